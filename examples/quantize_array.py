"""What each format costs and how much it loses, on weights with heavy tails as models have them.

python examples/quantize_array.py
"""

import numpy as np

import kquant

TYPES = ("Q2_K", "Q3_K", "Q4_0", "Q4_K", "Q5_0", "Q5_K", "Q6_K", "Q8_0", "BF16", "F16")


def main() -> None:
    rng = np.random.default_rng(1)
    x = (rng.standard_t(df=5, size=(256, 4096)) * 0.02).astype(np.float32)

    print("type    bits per element    relative error")
    for name in TYPES:
        packed = kquant.quantize(x, name)
        y = kquant.dequantize(packed, name)
        error = np.linalg.norm(y - x) / np.linalg.norm(x)
        print(f"{name:6}  {8 * packed.nbytes / x.size:16.4f}    {100 * error:12.3f} %")


if __name__ == "__main__":
    main()
