"""What the products of the k-quants with Q8_K share: integer sums over a super-block, then two floats."""

from __future__ import annotations

from kquant.kernels.language.lanes import Lanes, Rows, as_float
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.products import (
    Columns,
    Tile,
    by_column,
    dot_quads,
    factor,
    half_at,
    load_bytes,
    put_8_scales,
    put_factor,
    put_quad,
    quad,
)

SIZE = 256


@kernel
def add_symmetric(acc: Lanes, total: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """The total times d."""
    return acc + factor(tile, 0) * by_column(acc, columns, SIZE, 0, c) * as_float(total)


@kernel
def add_affine(acc: Lanes, total: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """The total times d, less what minima of sub-blocks of 32 make of the activations' sums, times dmin."""
    return add_with_minima(acc, total, dot_quads(acc, tile, 63, 32, columns, c), tile, columns, c)


@kernel
def add_with_minima(acc: Lanes, total: Lanes, minima: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """The total times d, less that of the minima times dmin."""
    d = by_column(acc, columns, SIZE, 0, c)
    return acc + (factor(tile, 0) * d * as_float(total) - factor(tile, 1) * d * as_float(minima))


@kernel
def put_scales_and_minima(block: Rows, tile: Tile) -> None:
    """The first 16 bytes of Q4_K and Q5_K: d, dmin, and the 6-bit scales and minima."""
    head = load_bytes(block, 0)
    put_factor(tile, 0, half_at(head, 0))
    put_factor(tile, 1, half_at(head, 2))
    first, second, third = quad(head, 1), quad(head, 2), quad(head, 3)
    put_8_scales(tile, first & 63, (third & 15) | ((first >> 6) << 4))
    put_quad(tile, 0, second & 63, 32)
    put_quad(tile, 1, (third >> 4) | ((second >> 6) << 4), 32)
