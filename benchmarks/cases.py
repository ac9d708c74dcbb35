"""What is compared with what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kquant
from benchmarks import peers
from benchmarks.data import importance, weights
from benchmarks.measure import Run
from kquant.arrays import codec
from kquant.types import TensorType

K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
LEGACY = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
FLOATS = ("F16", "BF16")
TABLES = ("IQ4_NL", "MXFP4")
MULTIPLIED = K_QUANTS + LEGACY + TABLES
TYPES = MULTIPLIED + FLOATS

KQUANT, GGML, GGUF, LIBGGUF, COPY = "kquant", "ggml", "gguf-py", "libgguf", "copy"
PEAK, READ = "peak", "read"
ONE, TWO = "one thread", "two threads"
ONE_COLUMN = "one column"

HAS_LIBGGUF = find_spec("libgguf") is not None
"""It has wheels for some systems only."""
FEW_ROWS = (1, 4, 16, 64, 256)

SLOWER = 2
"""kquant under NumPy and gguf-py's k-quants are measured on this fraction of the rows."""


@dataclass(frozen=True)
class Case:
    """Contestants that make the same array of the same input; the first is measured against the others."""

    group: str
    type: str
    n_elements: int
    n_bytes: int
    """Bytes read and written."""
    contestants: Mapping[str, Run]
    limits: Mapping[str, Run] = field(default_factory=dict)
    """Limits that are measured in the same turns, without making that array: a memory copy of `n_elements`
    floats, as many products of bytes in registers, or one addition for each 8 bytes of the same memory."""
    tolerance: float = 0
    """The largest difference between results, as a share of the largest value; 0: equal bits."""

    def __str__(self) -> str:
        return f"{self.group} {self.type}"

    def differing(self) -> list[str]:
        """The contestants whose result is not that of the first."""
        results = [run() for run in self.contestants.values()]
        first = results[0]
        return [
            name
            for name, result in zip(self.contestants, results, strict=True)
            if result.shape != first.shape or not self._agree(result, first)
        ]

    def _agree(self, x: NDArray[Any], y: NDArray[Any]) -> bool:
        if self.tolerance:
            return float(np.abs(x - y).max()) <= self.tolerance * float(np.abs(y).max())
        return np.array_equal(x.view(np.uint8), y.view(np.uint8))


def cases(n_elements: int) -> Iterator[Case]:
    """Every case, made as it is asked for."""
    x = weights(max(n_elements // 4096, SLOWER))
    w = importance()
    for name in TYPES:
        yield quantize(name, x, None)
    for name in MULTIPLIED:
        yield quantize(name, x, w)
    for name in TYPES:
        yield dequantize(name, x)
    for name in K_QUANTS:
        yield under_numpy(name, x[: len(x) // SLOWER])
    for name in ("Q4_K", "Q6_K", "Q8_0"):
        yield two_threads(name, x)
    for name in ("Q4_K", "Q8_0"):
        yield unpacking_on_two_threads(name, x)
    for n_rows in FEW_ROWS:
        yield few_rows("Q4_K", x[:n_rows])


def quantize(name: str, x: peers.Floats, w: peers.Floats | None) -> Case:
    t = TensorType[name]
    contestants: dict[str, Run] = {
        KQUANT: partial(kquant.quantize, x, t, w, threads=1),
        GGML: partial(peers.ggml_quantize, x, t, w),
    }
    if w is None and name not in (*K_QUANTS, "IQ4_NL"):
        contestants[GGUF] = partial(peers.gguf_quantize, x, t)
    if HAS_LIBGGUF and name not in FLOATS:
        contestants[LIBGGUF] = partial(peers.libgguf_quantize, x, t, w)
    group = "quantize" if w is None else "quantize with imatrix"
    return Case(group, name, x.size, _bytes(x, t), contestants, {COPY: x.copy})


def dequantize(name: str, x: peers.Floats) -> Case:
    t = TensorType[name]
    packed = kquant.quantize(x, t)
    contestants: dict[str, Run] = {
        KQUANT: partial(kquant.dequantize, packed, t, threads=1),
        GGML: partial(peers.ggml_dequantize, packed, t),
        GGUF: partial(peers.gguf_dequantize, packed, t),
    }
    if HAS_LIBGGUF and name not in FLOATS:
        contestants[LIBGGUF] = partial(peers.libgguf_dequantize, packed, t)
    return Case("dequantize", name, x.size, _bytes(x, t), contestants, {COPY: x.copy})


def under_numpy(name: str, x: peers.Floats) -> Case:
    """The readable execution of the kernels: no compiler, every lane a NumPy element."""
    t = TensorType[name]
    contestants: dict[str, Run] = {
        KQUANT: partial(codec.quantize, x, t, threads=1, execution="numpy"),
        GGML: partial(peers.ggml_quantize, x, t),
    }
    return Case("quantize under NumPy", name, x.size, _bytes(x, t), contestants)


def two_threads(name: str, x: peers.Floats) -> Case:
    t = TensorType[name]
    contestants: dict[str, Run] = {
        TWO: partial(kquant.quantize, x, t, threads=2),
        ONE: partial(kquant.quantize, x, t, threads=1),
    }
    return Case("quantize on two threads", name, x.size, _bytes(x, t), contestants)


def unpacking_on_two_threads(name: str, x: peers.Floats) -> Case:
    t = TensorType[name]
    packed = kquant.quantize(x, t)
    contestants: dict[str, Run] = {
        TWO: partial(kquant.dequantize, packed, t, threads=2),
        ONE: partial(kquant.dequantize, packed, t, threads=1),
    }
    return Case("dequantize on two threads", name, x.size, _bytes(x, t), contestants)


def few_rows(name: str, x: peers.Floats) -> Case:
    """What a call costs, and how many rows outweigh that."""
    t = TensorType[name]
    contestants: dict[str, Run] = {
        KQUANT: partial(kquant.quantize, x, t, threads=1),
        GGML: partial(peers.ggml_quantize, x, t),
    }
    return Case("quantize few rows", f"{name} × {len(x)}", x.size, _bytes(x, t), contestants)


def _bytes(x: peers.Floats, t: TensorType) -> int:
    return x.nbytes + len(x) * t.row_bytes(x.shape[1])
