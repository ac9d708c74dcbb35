"""Convert a model to another file type from Python, with progress, and look at the result.

python examples/requantize_file.py IN.gguf OUT.gguf Q4_K_M
"""

import sys
from collections import Counter

import kquant


def main(source: str, target: str, file_type: str) -> None:
    def progress(done: int, total: int) -> None:
        print(f"\r{100 * done // total:3} %", end="", flush=True)

    try:
        plan = kquant.requantize(source, target, file_type, progress=progress)
    except kquant.KQuantError as error:
        sys.exit(f"\n{error}")

    print(f"\r{plan.bits_per_weight:.2f} -> {plan.new_bits_per_weight:.2f} bits per weight")
    with kquant.open(target) as model:
        for tensor_type, count in Counter(t.type.name for t in model.tensors.values()).most_common():
            print(f"{count:4} tensors of {tensor_type}")


if __name__ == "__main__":
    main(*sys.argv[1:])
