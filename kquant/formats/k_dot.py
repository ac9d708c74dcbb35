"""What the products of the k-quants with Q8_K share: integer sums over a super-block, then two floats."""

from __future__ import annotations

from kquant.kernels.lanes import Lanes, Rows, as_float
from kquant.kernels.mark import kernel
from kquant.kernels.products import (
    Columns,
    Tile,
    by_column,
    byte_at,
    dot_pairs,
    dots,
    factor,
    half_at,
    load_bytes,
    no_sums,
    put_factor,
    put_pair,
    put_scale,
    quad,
    scale,
)

SIZE = 256


@kernel
def dots_of_16(like: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """Scale * level * activation, summed over a super-block whose sub-blocks have 16 elements."""
    total = no_sums(like)
    for j in range(16):
        total = total + dots(like, tile, 16 * j, 16, 63, columns, SIZE, c) * scale(tile, j)
    return total


@kernel
def dots_of_32(like: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """The same where they have 32, with levels of 5 bits at most."""
    total = no_sums(like)
    for j in range(8):
        total = total + dots(like, tile, 32 * j, 32, 31, columns, SIZE, c) * scale(tile, j)
    return total


@kernel
def add_symmetric(acc: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """Levels are larger than they mean; the pairs make up for it."""
    total = dots_of_16(acc, tile, columns, c) - dot_pairs(acc, tile, 8, columns, SIZE, c)
    return acc + factor(tile, 0) * by_column(acc, columns, SIZE, 0, c) * as_float(total)


@kernel
def add_affine_16(acc: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """The pairs are minima."""
    return acc + affine(acc, dots_of_16(acc, tile, columns, c), tile, columns, c)


@kernel
def add_affine_32(acc: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """The same for sub-blocks of 32."""
    return acc + affine(acc, dots_of_32(acc, tile, columns, c), tile, columns, c)


@kernel
def affine(like: Lanes, total: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """The total times d, less what the minima make of the activations' sums times dmin."""
    minima = dot_pairs(like, tile, 8, columns, SIZE, c)
    d = by_column(like, columns, SIZE, 0, c)
    return factor(tile, 0) * d * as_float(total) - factor(tile, 1) * d * as_float(minima)


@kernel
def put_scales(tile: Tile, j: int, sc: Lanes) -> None:
    """The four scales from j on, out of four bytes."""
    put_scale(tile, j, byte_at(sc, 0))
    put_scale(tile, j + 1, byte_at(sc, 1))
    put_scale(tile, j + 2, byte_at(sc, 2))
    put_scale(tile, j + 3, byte_at(sc, 3))


@kernel
def put_scales_and_minima(block: Rows, tile: Tile) -> None:
    """The first 16 bytes of Q4_K and Q5_K: d, dmin, and the 6-bit scales and minima."""
    head = load_bytes(block, 0)
    put_factor(tile, 0, half_at(head, 0))
    put_factor(tile, 1, half_at(head, 2))
    first, second, third = quad(head, 1), quad(head, 2), quad(head, 3)
    put_scales(tile, 0, first & 63)
    put_minima(tile, 0, second & 63)
    put_scales(tile, 4, (third & 15) | ((first >> 6) << 4))
    put_minima(tile, 4, (third >> 4) | ((second >> 6) << 4))


@kernel
def put_minima(tile: Tile, j: int, m: Lanes) -> None:
    """Four minima of sub-blocks of 32, each for two sums of 16."""
    put_pair(tile, j, m, 0, 0, 0)
    put_pair(tile, j + 1, m, 1, 1, 0)
    put_pair(tile, j + 2, m, 2, 2, 0)
    put_pair(tile, j + 3, m, 3, 3, 0)
