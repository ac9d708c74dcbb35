"""Golden models whose weights are random numbers, drawn again from their seeds rather than stored.

llama.cpp's `tests/test-llama-archs.cpp` fills tensors with `std::normal_distribution<float>` on a
`std::mt19937` that starts from a hash of the tensor's name.  NumPy has the same generator; libstdc++'s
distribution is the polar method of Marsaglia.  One weight in 300 differs by its last bit, since logarithms
are not rounded alike everywhere.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kquant.gguf import read

FOLDER = Path(__file__).parents[1] / "golden" / "runtime" / "drawn"
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))
"""Models with logits."""
EMBEDDERS = sorted(f"embeddings/{path.stem}" for path in FOLDER.glob("embeddings/*.npz"))
"""Models that embed tokens, and have no logits."""
DEVIATION = np.float32(0.1)

_folder = tempfile.TemporaryDirectory(prefix="kquant-drawn-")


def drawn(seed: int, n: int) -> NDArray[np.float32]:
    """The first n numbers of normal distribution from that seed of the Mersenne twister."""
    one = np.float32(1)
    bits = np.random.RandomState(seed).randint(0, 1 << 32, 2 * n + 64, dtype=np.uint32)
    uniform = np.minimum(bits.astype(np.float32) / np.float32(1 << 32), np.nextafter(one, np.float32(0)))
    x, y = 2 * uniform[::2] - one, 2 * uniform[1::2] - one
    square = x * x + y * y
    inside = (square <= one) & (square != 0)
    x, y, square = x[inside], y[inside], square[inside]
    logarithm = np.log(square.astype(np.float64)).astype(np.float32)
    factor = np.sqrt(np.float32(-2) * logarithm / square)
    pairs = np.stack([y * factor, x * factor], axis=1).ravel()
    assert len(pairs) >= n
    result: NDArray[np.float32] = pairs[:n] * DEVIATION
    return result


def recorded(name: str) -> dict[str, Any]:
    """What is stored: `header`, `seeds`, `tokens`, and tensors that were not drawn; `logits` and `greedy`, or
    `embeddings`.
    """
    with np.load(FOLDER / f"{name}.npz") as archive:
        return dict(archive)


@cache
def model_path(name: str) -> Path:
    """The model as a GGUF file, for this process."""
    path, golden = Path(_folder.name, f"{name.replace('/', '-')}.gguf"), recorded(name)
    path.write_bytes(golden["header"].tobytes())
    with read(path, header_only=True) as file, path.open("r+b") as stream:
        for info, seed in zip(file.tensors.values(), golden["seeds"].tolist(), strict=True):
            stream.seek(info.offset)
            stream.write(golden.get(info.name, drawn(seed, info.n_elements)).tobytes())
    return path
