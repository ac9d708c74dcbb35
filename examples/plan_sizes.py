"""How large a model would be in each file type, from its header alone.

python examples/plan_sizes.py MODEL.gguf
"""

import sys

import kquant


def main(path: str) -> None:
    print("file type       size    bits per weight")
    for file_type in kquant.FileType:
        plan = kquant.plan(path, file_type, allow_requantize=True)
        print(f"{file_type.name:8}  {plan.new_bytes / 2**20:7.1f} MiB    {plan.new_bits_per_weight:11.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
