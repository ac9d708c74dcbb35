"""Finite numbers that a tensor type cannot hold: which one, and what the type holds.

ggml writes an infinite scale for them, or an infinite number, and unpacks the block to NaN or infinity.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kquant.arrays.validation import suspects
from kquant.formats import format_of
from kquant.formats.base import BlockFormat
from kquant.kernels.execute import WHOLE, Bytes, Execution, Floats
from kquant.types import TensorType

__all__ = ["Overflow", "quantize_checked"]

LARGEST_HALF = 65504.0
MINIMA = ("m", "dmin")
"""Fields that hold the least value of a block, not its steps."""
HOLDERS = (TensorType.Q8_0, TensorType.BF16, TensorType.F32)
"""What is named as able to hold a value: small, and large enough for most."""


class Overflow(NamedTuple):
    """A finite value that cannot be held, in the first block that has one."""

    element: int
    """Which of the quantized values is too large, in their order."""
    value: float
    limits: str
    """What the type holds, as the rest of a sentence."""

    def sentence(self, place: str) -> str:
        """What is wrong, for a value at such a place."""
        return f"{self.value:.5g} {place} {self.limits}"


def quantize_checked(
    codec: BlockFormat,
    x: Floats,
    importance: Floats | None,
    out: Bytes,
    execution: Execution,
    *,
    large: bool = False,
) -> tuple[int, Overflow | None]:
    """As `BlockFormat.quantize_rows`; and the first number that the type cannot hold, if all are finite.

    Quantizers stop at magnitudes that may be too large, which costs nothing; only then, and where
    importance weights take part, the result is looked at.
    """
    found = codec.quantize_rows(x, importance, out, execution, large=large, limited=True)
    if found == WHOLE and (importance is None or codec.weighted is None):
        return WHOLE, None
    if found != WHOLE:
        found = codec.quantize_rows(x, importance, out, execution, large=large)
    return found, _find(x, codec, importance, out) if found == WHOLE else None


def _find(x: Floats, codec: BlockFormat, importance: Floats | None, packed: Bytes) -> Overflow | None:
    """The first block with a scale that is not finite, or with a value far beyond all that it holds."""
    size = codec.type.block_size
    bad = [(int(np.argmax(is_bad)), name) for name, is_bad in _suspects(x, codec, packed) if is_bad.any()]
    if not bad:
        return None
    block, field = min(bad)
    values = x.reshape(-1, size)[block]
    at = int(np.argmin(values) if field in MINIMA else np.argmax(np.abs(values)))
    value, limit = float(values[at]), _limit(codec.type, field)
    limits = f"is beyond {codec.type.name}, {_extent(codec, field, limit)}; {_holders(value)}"
    if importance is not None and codec.weighted is not None and abs(value) < limit / 2:
        weights = importance.reshape(-1, size)[block % (x.shape[-1] // size)]
        limits = (
            f"and importance weights up to {weights.max():.5g}: their products are beyond float32; "
            "divide all weights by the same number"
        )
    return Overflow(block * size + at, value, limits)


def _suspects(x: Floats, codec: BlockFormat, packed: Bytes) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Each field that is a float, and in which blocks it shows that values were too large."""
    size, type_size = codec.type.block_size, codec.type.type_size
    blocks = packed.reshape(-1, type_size)
    found = suspects(blocks, codec.type)
    if any(field.name == "d" for field in codec.fields):
        # squares that overflow float32 end in scales of zero; twice: a weighted search may clamp an outlier
        limit = 2 * _limit(codec.type, "d")
        if x.max() > limit or x.min() < -limit:
            found.append(("d", np.abs(x.reshape(-1, size)).max(axis=1) > limit))
    return found


def _extent(codec: BlockFormat, field: str, limit: float) -> str:
    if codec.type.block_size == 1:
        return f"which ends at {limit:.6g}"
    if not limit:  # the field only serves products
        return f"whose blocks have sums up to {LARGEST_HALF:.6g} ({field} is fp16)"
    if field in MINIMA:
        return f"whose blocks begin at about {-limit:.4g} ({field} is fp16)"
    fields = {f.name for f in codec.fields}
    verb = "span about" if fields.intersection(MINIMA) else "end at about"
    return f"whose blocks {verb} {limit:.4g} ({field} is fp16)"


def _holders(value: float) -> str:
    """Which types can; of blocks not to the last per cents, which depend on the values beside it."""
    share = {t: 1.0 if t.block_size == 1 else 0.9 for t in HOLDERS}
    *others, last = (
        t.name for t in HOLDERS if abs(value) <= share[t] * _limit(t, format_of(t).fields[0].name)
    )
    return f"{', '.join(others)}{' or ' if others else ''}{last} can hold it"


@cache
def _limit(tensor_type: TensorType, field: str) -> float:
    """The largest magnitude that this field can make, the others of its kind being zero."""
    codec = format_of(tensor_type)
    blocks = np.zeros((256, tensor_type.type_size), np.uint8) + np.arange(256, dtype=np.uint8)[:, None]
    largest = {"f2": 0x7BFF, "f4": 0x7F7FFFFF}
    for name, offset, dtype in codec.fields:
        if tensor_type is TensorType.BF16 or dtype.kind == "f":
            bits = 0x7F7F if tensor_type is TensorType.BF16 else largest[dtype.str[1:]]
            blocks[:, offset : offset + dtype.itemsize] = 0
            if name == field:
                blocks[:, offset : offset + dtype.itemsize] = np.array([bits], f"<u{dtype.itemsize}").view(
                    np.uint8
                )
    values = np.empty((256, tensor_type.block_size), np.float32)
    codec.dequantize_rows(blocks, values, "numpy")
    return float(np.abs(values).max())
