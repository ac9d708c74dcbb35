"""The loops over rows and columns that multiply packed rows with packed activations.

Sixteen rows at a time: the blocks that they have at one place are unpacked once, into a few KB that stay in
the fastest cache, and multiplied with all columns.  For a single column of super-blocks it is sixteen blocks
side by side, so that memory is read from one end to the other.  Every element of the result is summed block
by block from the first to the last, in float32, whatever is computed beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.lanes import Lanes, Rows
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.products import (
    FETCHED,
    ROWS,
    block_from,
    columns_at,
    fetch,
    fetch_next,
    few_columns,
    float_at,
    give,
    load_bytes,
    many_columns,
    no_floats,
    one_column,
    products_at,
    put_sums,
    tile_at,
)
from kquant.kernels.language.strips import (
    groups_at,
    neighbours_from,
    no_terms,
    part_at,
    parts,
    put_part,
    put_terms,
    rows_at,
    strip_at,
)

__all__ = ["OF_STRIPS", "SIGNATURE", "multiply_column", "multiply_strips", "multiply_tiles"]

AHEAD = 16 << 10
"""Bytes behind those that are multiplied, to be fetched meanwhile."""
SOME = 12
"""Columns that take so long that fetching the blocks behind these costs little beside it."""
FOLLOWED = 192
"""Bytes of a block; sixteen rows of larger ones, of Q6_K, processors do not fetch by themselves."""


# ---------------------------------------------------------------- the loops


@cache
def multiply_column(dot: BlockDot, size: int) -> Callable[..., None]:
    """`multiply_tiles` for a single column: levels are multiplied as they are unpacked.

    size: bytes of a block.
    """
    unpack_scales, unpack_levels, add = dot.unpack_scales, dot.unpack_levels, dot.add

    @kernel
    def drive(w: Rows, columns: Rows, tiles: Rows, acc: Rows, is_far: bool, out: Rows) -> None:
        n_rows, n_blocks = len(w), len(columns)
        for start in range(0, n_rows, ROWS):
            row, ahead = min(start, n_rows - ROWS), min(start + ROWS, n_rows - ROWS)
            total = no_floats(one_column(acc, 0))
            for b in range(n_blocks):
                block, column = block_from(w, row, b * size), columns_at(columns, b)
                tile = products_at(tiles, 0, column)
                unpack_scales(block, tile)
                if is_far:
                    fetch_blocks(w, ahead, b * size, size)
                unpack_levels(block, tile)
                total = add(total, tile, column, 0)
            put_sums(acc, 0, total)
            give(acc, 0, out, row)

    return drive


@cache
def multiply_strips(dot: BlockDot, size: int) -> Callable[..., None]:
    """out[0, r] = row r of w times a column of super-blocks, of which sixteen side by side make a tile.

    w is one run of bytes.  Sixteen rows are as many strips as a row has blocks; the products of all their
    blocks, `terms`, are then summed row by row.  words: the same memory, as bytes (16, 4 * blocks).
    """
    unpack_scales, unpack_levels, add = dot.unpack_scales, dot.unpack_levels, dot.add
    levels_bring_scales = int(dot.levels_bring_scales)

    @kernel
    def drive(
        w: Rows,
        groups: Rows,
        lanes: Rows,
        terms: Rows,
        words: Rows,
        acc: Rows,
        is_far: bool,
        out: Rows,
    ) -> None:
        n_rows, n_blocks, n_strips = len(w), len(terms), len(lanes)
        of = parts(groups_at(strip_at(groups, 0, lanes, 0)))
        period, share = len(groups) - of + 1, ROWS * size // of
        for start in range(0, n_rows, ROWS):
            row = min(start, n_rows - ROWS)
            g, t = 0, 0
            for b in range(n_blocks):
                at, strip = b * ROWS * size, strip_at(groups, g, lanes, t)
                block, tile = neighbours_from(w, row, at, size), groups_at(strip)
                if (
                    not levels_bring_scales
                ):  # this reads here and there, which prefetchers of processors do not follow
                    unpack_scales(block, tile)
                for i in range(of):
                    if is_far and not levels_bring_scales:
                        fetch_run(w, row, at + share * i + AHEAD, share)
                    part = part_at(tile, i, levels_bring_scales)
                    unpack_levels(rows_at(block, tile, i), part)
                    put_part(tile, i, part)
                if levels_bring_scales:
                    unpack_scales(block, tile)
                put_terms(terms, b, add(no_terms(acc), tile, strip, 0))
                g = g + of if g + of < period else g + of - period
                t = t + 1 if t + 1 < n_strips else 0
            put_sums(acc, 0, sum_of_terms(words, n_blocks, no_floats(one_column(acc, 0))))
            give(acc, 0, out, row)

    return drive


@kernel
def sum_of_terms(words: Rows, n_blocks: int, total: Lanes) -> Lanes:
    """Of sixteen rows, from the first block to the last."""
    for b in range(0, n_blocks, 4):
        four = load_bytes(block_from(words, 0, 4 * b), 0)
        total = total + float_at(four, 0)
        if b + 1 < n_blocks:
            total = total + float_at(four, 4)
        if b + 2 < n_blocks:
            total = total + float_at(four, 8)
        if b + 3 < n_blocks:
            total = total + float_at(four, 12)
    return total


@kernel
def fetch_run(w: Rows, row: int, at: int, size: int) -> None:
    for k in range(0, size, FETCHED):
        fetch(w, row, at + k)


@cache
def multiply_tiles(dot: BlockDot, size: int, many: int, few: int) -> Callable[..., None]:
    """out[c, r] = row r of w times column c, for at least 16 rows; the last tile overlaps the one before.

    size: bytes of a block; many, few: columns whose sums are kept in registers.
    """
    unpack_scales, unpack_levels, add = dot.unpack_scales, dot.unpack_levels, dot.add

    @kernel
    def drive(w: Rows, columns: Rows, tiles: Rows, acc: Rows, is_far: bool, out: Rows) -> None:
        n_rows, n_columns, n_blocks, stretch = len(w), len(out), len(columns), len(tiles)
        for start in range(0, n_rows, ROWS):
            row, ahead = min(start, n_rows - ROWS), min(start + ROWS, n_rows - ROWS)
            for first in range(0, n_blocks, stretch):
                n = min(stretch, n_blocks - first)
                for i in range(n):
                    if is_far:
                        fetch_blocks(w, ahead, (first + i) * size, size)
                    block, tile = block_from(w, row, (first + i) * size), tile_at(tiles, i)
                    unpack_scales(block, tile)
                    unpack_levels(block, tile)
                if is_far and (n_columns >= SOME or size > FOLLOWED):
                    fetch_next_blocks(w, row, (first + n) * size, n * size)
                c = 0
                while c + many <= n_columns:
                    total = many_columns(acc, c)
                    if first == 0:
                        total = no_floats(total)
                    for i in range(n):
                        total = add(total, tile_at(tiles, i), columns_at(columns, first + i), c)
                    put_sums(acc, c, total)
                    c += many
                while c + few <= n_columns:
                    some = few_columns(acc, c)
                    if first == 0:
                        some = no_floats(some)
                    for i in range(n):
                        some = add(some, tile_at(tiles, i), columns_at(columns, first + i), c)
                    put_sums(acc, c, some)
                    c += few
                while c < n_columns:
                    one = one_column(acc, c)
                    if first == 0:
                        one = no_floats(one)
                    for i in range(n):
                        one = add(one, tile_at(tiles, i), columns_at(columns, first + i), c)
                    put_sums(acc, c, one)
                    c += 1
            for c in range(n_columns):
                give(acc, c, out, row)

    return drive


@kernel
def fetch_blocks(w: Rows, row: int, at: int, size: int) -> None:
    """As many bytes of the next rows as are read of these meanwhile; they lie side by side."""
    fetch_run(w, row, at * ROWS, size * ROWS)


@kernel
def fetch_next_blocks(w: Rows, row: int, at: int, size: int) -> None:
    """Sixteen rows' blocks, each of which may begin and end within a line."""
    for r in range(ROWS):
        for k in range(0, size + FETCHED - 1, FETCHED):
            fetch_next(w, row + r, at + k)


SIGNATURE = (
    "Array(uint8, 2, 'A', readonly=True), R(uint8, 3), uint8[:, ::1], float32[:, ::1], "
    "boolean, Array(float32, 2, 'A')"
)
OF_STRIPS = (
    "Array(uint8, 2, 'A', readonly=True), uint8[:, ::1], uint8[:, ::1], float32[:, ::1], "
    "uint8[:, ::1], float32[:, ::1], boolean, Array(float32, 2, 'A')"
)
