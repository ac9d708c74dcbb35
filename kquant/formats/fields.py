"""Bits of packed blocks as NumPy arrays: what the formats' `unpack` and `pack` share.

ggml stores small integers in *runs*: byte l of a run holds, from its low bits up, element l of the
first 1/k of the run's elements, element l of the second, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kquant.types import TensorType

__all__ = ["Bytes", "Fields", "blocks_of", "high_bits", "join_bits", "offsets", "raw", "spread", "squeeze"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Fields: TypeAlias = Mapping[str, Any]
"""Field name -> array of shape (..., count); a single field of a block has shape (...,)."""


def offsets(layout: np.dtype[Any], tensor_type: TensorType) -> tuple[int, ...]:
    """The byte offset of every field of a layout, which must have the size that ggml gives the type."""
    assert layout.itemsize == tensor_type.type_size, (tensor_type, layout.itemsize)
    assert layout.fields is not None
    return tuple(int(layout.fields[name][1]) for name in layout.names or ())


def blocks_of(data: Bytes, layout: np.dtype[Any]) -> npt.NDArray[Any]:
    """uint8 (..., n * type_size) as structured blocks (..., n), without copying where possible."""
    return np.ascontiguousarray(data).view(layout)


def raw(blocks: npt.NDArray[Any]) -> Bytes:
    """Structured blocks (..., n) as uint8 (..., n * type_size)."""
    packed: Bytes = np.ascontiguousarray(blocks).view(np.uint8)
    return packed


def spread(packed: Bytes, bits: int, run: int) -> Bytes:
    """Unsigned integers of `bits` bits out of runs of `run` bytes: (..., n) -> (..., n * 8 / bits)."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    *outer, n = packed.shape
    runs = packed.reshape(*outer, n // run, 1, run)
    values: Bytes = ((runs >> shifts) & ((1 << bits) - 1)).astype(np.uint8, copy=False)
    return values.reshape(*outer, n * 8 // bits)


def squeeze(values: Bytes, bits: int, run: int) -> Bytes:
    """The inverse of `spread`."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    *outer, n = values.shape
    packed = n * bits // 8
    runs = values.reshape(*outer, packed // run, 8 // bits, run)
    joined: Bytes = np.bitwise_or.reduce(runs << shifts, axis=-2).reshape(*outer, packed)
    return joined


def high_bits(number: npt.NDArray[np.uint32]) -> Bytes:
    """Bit l of a 32-bit number, for l = 0 .. 31: (...) -> (..., 32)."""
    return ((number[..., None] >> np.arange(32, dtype=np.uint32)) & 1).astype(np.uint8)


def join_bits(bits: Bytes) -> npt.NDArray[np.uint32]:
    """The inverse of `high_bits`."""
    number: npt.NDArray[np.uint32] = np.bitwise_or.reduce(
        bits.astype(np.uint32) << np.arange(32, dtype=np.uint32), axis=-1
    )
    return number
