"""What the products of blocks of 32 with Q8_0 and Q8_1 share."""

from __future__ import annotations

from kquant.kernels.language.lanes import Lanes, as_float
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.products import Columns, Tile, by_column, factor

SIZE = 32


@kernel
def add_symmetric(acc: Lanes, total: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """With Q8_0: the total times d."""
    return acc + factor(tile, 0) * by_column(acc, columns, SIZE, 0, c) * as_float(total)


@kernel
def add_affine(acc: Lanes, total: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """With Q8_1, whose sum the minimum multiplies."""
    minimum = factor(tile, 1) * by_column(acc, columns, SIZE, 1, c)
    return acc + (factor(tile, 0) * by_column(acc, columns, SIZE, 0, c) * as_float(total) + minimum)
