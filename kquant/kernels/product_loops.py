"""The loops over rows and columns that multiply packed rows with packed activations.

Sixteen rows at a time: the blocks that they have at one place are unpacked once, into a few KB that stay in
the fastest cache, and multiplied with all columns.  For a single column of super-blocks it is sixteen
consecutive blocks, so that memory is read from one end to the other.  Every element of the result is summed
block by block from the first to the last, in float32, whatever is computed beside it.

Each function makes the loops for one format.  NumPy runs them as they stand, for any number of rows at a
time; `kquant.kernels.compile.compiled` compiles them for sixteen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from kquant.kernels.language.consecutive import (
    activations_at,
    consecutive_from,
    group_at,
    group_rows,
    n_groups,
    put_group,
    put_terms,
    tile_for,
    zero_terms,
)
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.lanes import Lanes, Rows
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import load_bytes
from kquant.kernels.language.products import (
    LINE,
    adder,
    block_from,
    columns_at,
    float_at,
    prefetch,
    prefetch_next,
    products_at,
    put_sums,
    scatter,
    sums_at,
    tile_at,
    zero_sums,
)
from kquant.kernels.layout import ROWS

__all__ = [
    "CONSECUTIVE_SIGNATURE",
    "SIGNATURE",
    "multiply_column",
    "multiply_consecutive",
    "multiply_tiles",
]

AHEAD = 16 << 10
"""Bytes behind those that are multiplied, to be prefetched meanwhile."""
MANY_COLUMNS = 12
"""So many take so long that prefetching the next blocks costs little beside it."""
FOLLOWED = 192
"""Bytes of a block; sixteen rows of larger ones, of Q6_K, processors do not prefetch by themselves."""

SIGNATURE = (
    "Array(uint8, 2, 'A', readonly=True), R(uint8, 3), uint8[:, ::1], float32[:, ::1], "
    "boolean, Array(float32, 2, 'A')"
)
CONSECUTIVE_SIGNATURE = (
    "Array(uint8, 2, 'A', readonly=True), uint8[:, ::1], uint8[:, ::1], float32[:, ::1], "
    "uint8[:, ::1], float32[:, ::1], boolean, Array(float32, 2, 'A')"
)


# ---------------------------------------------------------------- tiles


@lru_cache(256)
def multiply_tiles(dot: BlockDot, size: int, many: int, few: int, rows: int = ROWS) -> Callable[..., None]:
    """(w, columns, tiles, sums, exceeds_cache, out): out[c, r] = row r of w times column c.

    w has at least `rows` rows; the last tile overlaps the one before it.  size: bytes of a block.  many, few:
    columns whose sums are kept in registers.  rows: those of a tile, 16 when compiled.
    """
    unpack_scales, unpack_levels = dot.unpack_scales, dot.unpack_levels
    add_many, add_few, add_one = (_add_columns(dot, width) for width in (many, few, 1))

    @kernel
    def drive(w: Rows, columns: Rows, tiles: Rows, sums: Rows, exceeds_cache: bool, out: Rows) -> None:
        n_rows, n_columns, n_blocks, stretch = len(w), len(out), len(columns), len(tiles)
        for start in range(0, n_rows, rows):
            row, ahead = min(start, n_rows - rows), min(start + rows, n_rows - rows)
            for first in range(0, n_blocks, stretch):
                n = min(stretch, n_blocks - first)
                for i in range(n):
                    if exceeds_cache:
                        prefetch_blocks(w, ahead, (first + i) * size, size)
                    block, tile = block_from(w, row, (first + i) * size, rows), tile_at(tiles, i, dot)
                    unpack_scales(block, tile)
                    unpack_levels(block, tile)
                if exceeds_cache and (n_columns >= MANY_COLUMNS or size > FOLLOWED):
                    prefetch_next_blocks(w, row, (first + n) * size, n * size)
                c = 0
                while c + many <= n_columns:
                    add_many(tiles, columns, sums, first, n, c)
                    c += many
                while c + few <= n_columns:
                    add_few(tiles, columns, sums, first, n, c)
                    c += few
                while c < n_columns:
                    add_one(tiles, columns, sums, first, n, c)
                    c += 1
            for c in range(n_columns):
                scatter(sums, c, out, row)

    return drive


def _add_columns(dot: BlockDot, width: int) -> Callable[..., None]:
    """Adds n tiles times as many blocks, from block `first` on, to the sums of columns c .. c + width."""
    add = adder(dot)

    @kernel
    def add_columns(tiles: Rows, columns: Rows, sums: Rows, first: int, n: int, c: int) -> None:
        total = sums_at(sums, c, width)
        if first == 0:
            total = zero_sums(total)
        for i in range(n):
            total = add(total, tile_at(tiles, i, dot), columns_at(columns, first + i), c)
        put_sums(sums, c, total)

    return add_columns


@lru_cache(64)
def multiply_column(dot: BlockDot, size: int) -> Callable[..., None]:
    """As `multiply_tiles`, for a single column: levels are multiplied as they are unpacked."""
    unpack_scales, unpack_levels, add = dot.unpack_scales, dot.unpack_levels, adder(dot)

    @kernel
    def drive(w: Rows, columns: Rows, tiles: Rows, sums: Rows, exceeds_cache: bool, out: Rows) -> None:
        n_rows, n_blocks = len(w), len(columns)
        for start in range(0, n_rows, ROWS):
            row, ahead = min(start, n_rows - ROWS), min(start + ROWS, n_rows - ROWS)
            total = zero_sums(sums_at(sums, 0, 1))
            for b in range(n_blocks):
                block, column = block_from(w, row, b * size, ROWS), columns_at(columns, b)
                tile = products_at(tiles, 0, column, dot)
                unpack_scales(block, tile)
                if exceeds_cache:
                    prefetch_blocks(w, ahead, b * size, size)
                unpack_levels(block, tile)
                total = add(total, tile, column, 0)
            put_sums(sums, 0, total)
            scatter(sums, 0, out, row)

    return drive


# ---------------------------------------------------------------- consecutive super-blocks


@lru_cache(64)
def multiply_consecutive(dot: BlockDot, size: int) -> Callable[..., None]:
    """(w, groups, lanes, terms, words, sums, exceeds_cache, out): out[0, r] = row r of w times one column.

    w is one run of bytes.  Sixteen rows are as many tiles of sixteen consecutive super-blocks as a row has
    super-blocks; the products of all their blocks, `terms` (blocks, 16), are then summed row by row.  words:
    the same memory, as bytes (16, 4 * blocks).  groups, lanes: `kquant.kernels.consecutive`.
    """
    unpack_scales, unpack_levels, add = dot.unpack_scales, dot.unpack_levels, adder(dot)
    with_levels = int(dot.scales is not None and dot.scales.with_levels)

    @kernel
    def drive(
        w: Rows,
        groups: Rows,
        lanes: Rows,
        terms: Rows,
        words: Rows,
        sums: Rows,
        exceeds_cache: bool,
        out: Rows,
    ) -> None:
        n_rows, n_blocks, n_tiles = len(w), len(terms), len(lanes)
        n = n_groups(tile_for(activations_at(groups, 0, lanes, 0), dot))
        period, share = len(groups) - n + 1, ROWS * size // n
        for start in range(0, n_rows, ROWS):
            row = min(start, n_rows - ROWS)
            g, t = 0, 0
            for b in range(n_blocks):
                at, given = b * ROWS * size, activations_at(groups, g, lanes, t)
                blocks, tile = consecutive_from(w, row, at, size), tile_for(given, dot)
                if not with_levels:
                    unpack_scales(blocks, tile)
                for i in range(n):
                    # scales are read here and there, which prefetchers of processors do not follow
                    if exceeds_cache and not with_levels:
                        prefetch_run(w, row, at + share * i + AHEAD, share)
                    group = group_at(tile, i)
                    unpack_levels(group_rows(blocks, tile, i), group)
                    put_group(tile, i, group)
                if with_levels:
                    unpack_scales(blocks, tile)
                put_terms(terms, b, add(zero_terms(sums), tile, given, 0))
                g = g + n if g + n < period else g + n - period
                t = t + 1 if t + 1 < n_tiles else 0
            put_sums(sums, 0, sum_of_terms(words, n_blocks, zero_sums(sums_at(sums, 0, 1))))
            scatter(sums, 0, out, row)

    return drive


@kernel
def sum_of_terms(words: Rows, n_blocks: int, total: Lanes) -> Lanes:
    """Of sixteen rows, from the first block to the last."""
    for b in range(0, n_blocks, 4):
        four = load_bytes(block_from(words, 0, 4 * b, ROWS), 0, 16)
        total = total + float_at(four, 0)
        if b + 1 < n_blocks:
            total = total + float_at(four, 4)
        if b + 2 < n_blocks:
            total = total + float_at(four, 8)
        if b + 3 < n_blocks:
            total = total + float_at(four, 12)
    return total


# ---------------------------------------------------------------- prefetching


@kernel
def prefetch_run(w: Rows, row: int, at: int, size: int) -> None:
    for k in range(0, size, LINE):
        prefetch(w, row, at + k)


@kernel
def prefetch_blocks(w: Rows, row: int, at: int, size: int) -> None:
    """As many bytes of the next rows as are read of these meanwhile; they lie side by side."""
    prefetch_run(w, row, at * ROWS, size * ROWS)


@kernel
def prefetch_next_blocks(w: Rows, row: int, at: int, size: int) -> None:
    """Sixteen rows' blocks, each of which may begin and end within a line."""
    for r in range(ROWS):
        for k in range(0, size + LINE - 1, LINE):
            prefetch_next(w, row + r, at + k)
