"""The golden arrays of tests/golden: what ggml's C code wrote, and how to find it by name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1] / "golden"

K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
LEGACY = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
ROW_ONLY = ("Q8_1", "Q8_K")
"""Types that ggml writes for activations only: no importance matrix, no `ggml_quantize_chunk`."""
IQ = ("IQ4_NL",)
FP4 = ("MXFP4",)
FLOATS = ("F16", "BF16")
TYPES = K_QUANTS + LEGACY + IQ + FP4 + ROW_ONLY + FLOATS
"""Every type with golden bytes; F32 is its own golden."""
WEIGHTED = K_QUANTS + LEGACY[:-1] + IQ
"""The types whose quantizers look at importance weights."""


@cache
def arrays(name: str) -> dict[str, NDArray[Any]]:
    """Every array of one `.npz` file of tests/golden, read-only, by key."""
    with np.load(ROOT / name) as npz:
        loaded = {key: npz[key] for key in npz.files}
    for array in loaded.values():
        array.flags.writeable = False
    return loaded


@cache
def document(name: str) -> Any:
    """One JSON file of tests/golden."""
    return json.loads((ROOT / name).read_text())


def inputs() -> dict[str, NDArray[np.float32]]:
    """The named float32 inputs, each (n_rows, n_per_row)."""
    return arrays("inputs.npz")


def importance(name: str, n_per_row: int) -> NDArray[np.float32] | None:
    """Weights per column of a named set; None for the sets that stand for "no importance matrix"."""
    return None if name in ("none", "ref") else arrays("imatrix.npz")[f"{name}_{n_per_row}"]


def sha256(array: NDArray[Any]) -> str:
    """SHA-256 of an array's bytes in row-major order."""
    return hashlib.sha256(array.tobytes()).hexdigest()


@dataclass(frozen=True)
class Quantized:
    """One call of ggml's quantizer: its input and importance set, by name, and where its bytes are."""

    type: str
    input: str
    importance: str
    key: str
    sha256: str
    file: str

    def __str__(self) -> str:
        return f"{self.type}-{self.input}-{self.importance}"

    @property
    def is_chunk(self) -> bool:
        """Whether `ggml_quantize_chunk` writes these bytes: IQ4_NL's row reference tries fewer scales."""
        return (self.type, self.importance) != ("IQ4_NL", "ref")

    @property
    def x(self) -> NDArray[np.float32]:
        """What was quantized: float32 (n_rows, n_per_row)."""
        return inputs()[self.input]

    @property
    def weights(self) -> NDArray[np.float32] | None:
        """The importance weights of that call: float32 (n_per_row,) or None."""
        return importance(self.importance, self.x.shape[1])

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """What ggml wrote: uint8 (n_rows, row_bytes)."""
        return arrays(self.file)[self.key]


@cache
def quantized(type_name: str) -> tuple[Quantized, ...]:
    """Every recorded call for a type, the edge cases included, the skipped ones left out."""
    cases = document("quantized/manifest.json")["types"][type_name]
    return tuple(
        Quantized(
            type_name, name, weights, entry["key"], entry["sha256"], _file(type_name, entry.get("file"))
        )
        for name, sets in cases.items()
        for weights, entry in sets.items()
        if "skipped" not in entry
    )


def _file(type_name: str, folder: str | None) -> str:
    return f"{folder or 'quantized'}/{type_name}.npz"
