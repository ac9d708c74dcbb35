"""How a format declares its products.  What the processor makes of a declaration, the lowering decides.

A block of weights and a block of activations, x, have the product

    d * dx * sum_j sc[j] * sum_i (q[i] - zero_point) * x[i]             i in sub-block j
    - dmin * dx * sum_j m[j] * sum_i x[i]                               if there are minima
    + m * s                                                             if there is an offset

where d, dmin and m are floats of the weights' block, dx and s floats of the activations' block (s the sum of
its values), and q, sc and m[j] integers that the format's kernels unpack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kquant.kernels.language.lanes import Rows
from kquant.types import TensorType

__all__ = ["BlockDot", "Minima", "NumberDot", "Scales"]


@dataclass(frozen=True)
class NumberDot:
    """Rows of numbers are decoded and multiplied as floats."""

    partner: TensorType
    """The type of the activations."""


@dataclass(frozen=True)
class Scales:
    """Integer scales inside a block."""

    elements: int
    """That share a scale: 16 or 32."""
    largest: int
    """The largest magnitude of a scale."""
    signed: bool = False
    with_levels: bool = False
    """Whether `unpack_levels` puts them, from the 16 bytes of `load_bytes`; else `unpack_scales` does."""


@dataclass(frozen=True)
class Minima:
    """Integer minima inside a block, in units of dmin."""

    elements: int
    """That share a minimum: 16 or 32."""
    largest: int


@dataclass(frozen=True)
class BlockDot:
    """Blocks are unpacked to small integers and multiplied with packed activations."""

    partner: TensorType
    """The type of the activations: Q8_K for super-blocks, Q8_0 or Q8_1 for blocks of 32."""
    unpack_scales: Callable[[Rows, Any], None]
    """kernel(block, tile): of one block of each of some rows what belongs to it as a whole -> a tile."""
    unpack_levels: Callable[[Rows, Any], None]
    """kernel(block, tile): the levels -> the tile, one unsigned byte each."""
    largest: int
    """The largest level that is stored, at most 255."""
    zero_point: int = 0
    """The stored level that stands for zero: 0 or a power of two."""
    scales: Scales | None = None
    """None: one scale, d, for the whole block."""
    minima: Minima | None = None
    offset: bool = False
    """Whether a float minimum of the block multiplies the sum that Q8_1 keeps."""

    def __post_init__(self) -> None:
        assert 0 < self.largest <= 255
        assert self.zero_point & (self.zero_point - 1) == 0
        assert (self.scales is None) == (self.partner.block_size == 32), "super-blocks have scales"
        assert self.minima is None or self.scales is not None
        assert not self.offset or self.partner is TensorType.Q8_1
