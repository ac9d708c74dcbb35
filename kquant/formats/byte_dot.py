"""What the products of blocks of 32 with Q8_0 and Q8_1 share."""

from __future__ import annotations

from kquant.kernels.lanes import Lanes, as_float
from kquant.kernels.mark import kernel
from kquant.kernels.products import Columns, Tile, by_column, dot_pairs, dots, factor

SIZE = 32


@kernel
def add_symmetric(acc: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """With Q8_0.  Levels are larger than they mean; the pair says by how much."""
    total = dots(acc, tile, 0, SIZE, 31, columns, SIZE, c) - dot_pairs(acc, tile, 1, columns, SIZE, c)
    return acc + factor(tile, 0) * by_column(acc, columns, SIZE, 0, c) * as_float(total)


@kernel
def add_bytes(acc: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """The same for levels of 8 bits."""
    total = dots(acc, tile, 0, SIZE, 255, columns, SIZE, c) - dot_pairs(acc, tile, 1, columns, SIZE, c)
    return acc + factor(tile, 0) * by_column(acc, columns, SIZE, 0, c) * as_float(total)


@kernel
def add_affine(acc: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """With Q8_1, whose sum the minimum multiplies."""
    total = as_float(dots(acc, tile, 0, SIZE, 31, columns, SIZE, c))
    minimum = factor(tile, 1) * by_column(acc, columns, SIZE, 1, c)
    return acc + (factor(tile, 0) * by_column(acc, columns, SIZE, 0, c) * total + minimum)
