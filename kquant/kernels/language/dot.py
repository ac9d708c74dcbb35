"""How a format declares its products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kquant.kernels.language.lanes import Lanes, Rows
from kquant.kernels.language.products import Columns, Tile
from kquant.types import TensorType

__all__ = ["BlockDot", "NumberDot"]


@dataclass(frozen=True)
class NumberDot:
    """Rows of numbers are decoded and multiplied as floats."""

    partner: TensorType
    """The type of the activations."""


@dataclass(frozen=True)
class BlockDot:
    """Blocks are unpacked to small integers and multiplied with packed activations."""

    partner: TensorType
    """The type of the activations."""
    unpack_scales: Callable[[Rows, Tile], None]
    """kernel(block, tile): of one block of each of some rows what belongs to it as a whole -> a tile."""
    unpack_levels: Callable[[Rows, Tile], None]
    """kernel(block, tile): the levels -> the tile, one byte each."""
    add: Callable[[Lanes, Tile, Columns, int], Lanes]
    """kernel(sums, tile, columns, c): the tile times a block of each of some columns, added to sums."""
    levels_bring_scales: bool = False
    """Whether `unpack_levels` puts the scales that levels are multiplied with."""
