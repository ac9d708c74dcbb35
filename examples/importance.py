"""What an importance matrix does: the same bits, spent where the inputs of a layer are large.

python examples/importance.py
"""

import numpy as np

import kquant

TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


def main() -> None:
    rng = np.random.default_rng(3)
    weights = (rng.standard_normal((512, 1024)) * 0.02).astype(np.float32)
    # a few columns of the inputs are large, as in transformers
    inputs = rng.standard_normal((2000, 1024)) * rng.lognormal(sigma=1.5, size=1024)
    measured, unseen = inputs[:1000].astype(np.float32), inputs[1000:].astype(np.float32)
    importance = (measured**2).mean(axis=0)
    outputs = unseen @ weights.T

    print("type    error of a layer's outputs    with an importance matrix")
    for name in TYPES:
        errors = []
        for imatrix in (None, importance):
            packed = kquant.quantize(weights, name, imatrix=imatrix)
            change = unseen @ kquant.dequantize(packed, name).T - outputs
            errors.append(100 * np.linalg.norm(change) / np.linalg.norm(outputs))
        print(f"{name}    {errors[0]:24.2f} %    {errors[1]:23.2f} %")


if __name__ == "__main__":
    main()
