"""Carries a room's `unpack_scales`, `unpack_levels` and `add` over rows and columns, in either execution.

Sixteen rows at a time: the blocks that they have at one place are unpacked once, into a few KB that stay in
the fastest cache, and multiplied with all columns.  For a single column of super-blocks it is sixteen blocks
side by side, so that memory is read from one end to the other.  Every element of the result is summed block
by block from the first to the last, in float32, whatever is computed beside it.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from kquant.activations import Activations
from kquant.kernels.execute import Bytes, Execution, Floats, aligned_empty
from kquant.kernels.jit import column_count, compiled, group_size
from kquant.kernels.lanes import Lanes, Rows
from kquant.kernels.mark import kernel
from kquant.kernels.products import (
    FACTORS,
    FETCHED,
    PAIRS,
    QUADS,
    ROWS,
    SCALES,
    Columns,
    Tile,
    block_from,
    columns_at,
    empty_tile,
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
from kquant.kernels.strips import (
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
from kquant.types import TensorType

__all__ = ["activations", "arguments", "is_far", "multiplier", "multiply"]

NEAR = 1 << 20
"""Bytes of weights that stay in a cache: for more of them, the next rows are fetched ahead."""
AHEAD = 16 << 10
"""Bytes behind those that are multiplied, to be fetched meanwhile."""
SOME = 12
"""Columns that take so long that fetching the blocks behind these costs little beside it."""
FOLLOWED = 192
"""Bytes of a block; sixteen rows of larger ones, of Q6_K, processors do not fetch by themselves."""
STRETCH = 256
"""Elements of each row that are unpacked at a time: one super-block, or eight blocks of 32."""


# ---------------------------------------------------------------- compiled


def unpack_scales(block: Rows, tile: Tile) -> None:
    """Stands for a room's `unpack_scales`."""


def unpack_levels(block: Rows, tile: Tile) -> None:
    """Stands for a room's `unpack_levels`."""


def add(acc: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """Stands for a room's `add`."""


SIZE, LEVELS_ALONE, MANY, FEW = 1, 0, 1, 1
"""Stand for the bytes of a room's block, for its constant of that name, and for what `column_count` says."""


@kernel
def multiply_column(w: Rows, columns: Rows, tiles: Rows, acc: Rows, is_far: bool, out: Rows) -> None:
    """`multiply_tiles` for a single column: levels are multiplied as they are unpacked."""
    n_rows, n_blocks = len(w), len(columns)
    for start in range(0, n_rows, ROWS):
        row, ahead = min(start, n_rows - ROWS), min(start + ROWS, n_rows - ROWS)
        total = no_floats(one_column(acc, 0))
        for b in range(n_blocks):
            block, column = block_from(w, row, b * SIZE), columns_at(columns, b)
            tile = products_at(tiles, 0, column)
            unpack_scales(block, tile)
            if is_far:
                fetch_blocks(w, ahead, b * SIZE, SIZE)
            unpack_levels(block, tile)
            total = add(total, tile, column, 0)
        put_sums(acc, 0, total)
        give(acc, 0, out, row)


@kernel
def multiply_strips(
    w: Rows,
    groups: Rows,
    lanes: Rows,
    terms: Rows,
    words: Rows,
    acc: Rows,
    is_far: bool,
    out: Rows,
) -> None:
    """out[0, r] = row r of w times a column of super-blocks, of which sixteen side by side make a tile.

    w is one run of bytes.  Sixteen rows are as many strips as a row has blocks; the products of all their
    blocks, `terms`, are then summed row by row.  words: the same memory, as bytes (16, 4 * blocks).
    """
    n_rows, n_blocks, n_strips = len(w), len(terms), len(lanes)
    of = parts(groups_at(strip_at(groups, 0, lanes, 0)))
    period, share = len(groups) - of + 1, ROWS * SIZE // of
    for start in range(0, n_rows, ROWS):
        row = min(start, n_rows - ROWS)
        g, t = 0, 0
        for b in range(n_blocks):
            at, strip = b * ROWS * SIZE, strip_at(groups, g, lanes, t)
            block, tile = neighbours_from(w, row, at, SIZE), groups_at(strip)
            if not LEVELS_ALONE:  # this reads here and there, which prefetchers of processors do not follow
                unpack_scales(block, tile)
            for i in range(of):
                if is_far and not LEVELS_ALONE:
                    fetch_run(w, row, at + share * i + AHEAD, share)
                part = part_at(tile, i, LEVELS_ALONE)
                unpack_levels(rows_at(block, tile, i), part)
                put_part(tile, i, part)
            if LEVELS_ALONE:
                unpack_scales(block, tile)
            put_terms(terms, b, add(no_terms(acc), tile, strip, 0))
            g = g + of if g + of < period else g + of - period
            t = t + 1 if t + 1 < n_strips else 0
        put_sums(acc, 0, sum_of_terms(words, n_blocks, no_floats(one_column(acc, 0))))
        give(acc, 0, out, row)


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


@kernel
def multiply_tiles(w: Rows, columns: Rows, tiles: Rows, acc: Rows, is_far: bool, out: Rows) -> None:
    """out[c, r] = row r of w times column c, for at least 16 rows; the last tile overlaps the one before."""
    n_rows, n_columns, n_blocks, stretch = len(w), len(out), len(columns), len(tiles)
    for start in range(0, n_rows, ROWS):
        row, ahead = min(start, n_rows - ROWS), min(start + ROWS, n_rows - ROWS)
        for first in range(0, n_blocks, stretch):
            n = min(stretch, n_blocks - first)
            for i in range(n):
                if is_far:
                    fetch_blocks(w, ahead, (first + i) * SIZE, SIZE)
                block, tile = block_from(w, row, (first + i) * SIZE), tile_at(tiles, i)
                unpack_scales(block, tile)
                unpack_levels(block, tile)
            if is_far and (n_columns >= SOME or SIZE > FOLLOWED):
                fetch_next_blocks(w, row, (first + n) * SIZE, n * SIZE)
            c = 0
            while c + MANY <= n_columns:
                total = many_columns(acc, c)
                if first == 0:
                    total = no_floats(total)
                for i in range(n):
                    total = add(total, tile_at(tiles, i), columns_at(columns, first + i), c)
                put_sums(acc, c, total)
                c += MANY
            while c + FEW <= n_columns:
                some = few_columns(acc, c)
                if first == 0:
                    some = no_floats(some)
                for i in range(n):
                    some = add(some, tile_at(tiles, i), columns_at(columns, first + i), c)
                put_sums(acc, c, some)
                c += FEW
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


def is_far(w: Bytes) -> bool:
    """Whether a whole matrix, or a stack of them, comes from memory."""
    return w.nbytes > NEAR


def activations(codec: ModuleType, packed: Bytes, partner: TensorType, execution: Execution) -> Activations:
    """Those that kquant has packed, uint8 (columns, row_bytes), laid out before threads share them."""
    given = Activations(packed, partner, trusted=True)
    given.laid_out(in_strips=execution == "numba" and goes_in_strips(codec, len(packed)))
    return given


def multiply(
    codec: ModuleType, w: Bytes, given: Activations, out: Floats, execution: Execution, *, far: bool
) -> None:
    """out[c, r] = row r of w (rows, row_bytes) times column c; far: the bytes are likely in no cache."""
    if execution == "numpy" or not given.are_true:
        _multiply_numpy(codec, w, given.columns, out)
        return
    n_rows = len(w)
    if n_rows < ROWS or w.strides[1] != 1:
        w = np.resize(w, (max(n_rows, ROWS), w.shape[1]))
    is_whole = n_rows >= ROWS and out.strides[1] == out.itemsize
    result = out if is_whole else np.empty((len(out), len(w)), np.float32)
    multiplier(codec, len(out))(*arguments(codec, w, given, result, far=far))
    if not is_whole:
        out[...] = result[:, :n_rows]


def arguments(codec: ModuleType, w: Bytes, given: Activations, out: Floats, *, far: bool) -> tuple[Any, ...]:
    """Of the loops that `multiplier` compiles."""
    block_size, n_blocks = codec.TYPE.block_size, given.n_blocks
    acc = aligned_empty((len(out), ROWS), np.float32)
    if not goes_in_strips(codec, len(out)):
        tile_bytes = ROWS * (block_size + 4 * (SCALES + PAIRS + QUADS + FACTORS))
        tiles = aligned_empty((STRETCH // block_size, tile_bytes), np.uint8)
        columns = given.columns.view(np.uint8).reshape(*given.columns.shape, -1)
        return w, columns, tiles, acc, far, out
    terms = aligned_empty((n_blocks + 1, ROWS), np.float32)[:n_blocks]  # four are read at a time
    words = terms.view(np.uint8).reshape(ROWS, -1)
    return np.ascontiguousarray(w), *given.strips, terms, words, acc, far, out


def goes_in_strips(codec: ModuleType, n_columns: int) -> bool:
    """Whether so many columns times rows of a type are multiplied by `multiply_strips`."""
    return n_columns == 1 and bool(codec.TYPE.block_size == STRETCH) and group_size() > 0


def multiplier(codec: ModuleType, n_columns: int) -> Any:
    """The compiled `multiply_strips`, `multiply_column` or `multiply_tiles` of a room."""
    return _multiplier(codec, n_columns == 1)


@cache
def _multiplier(codec: ModuleType, is_one: bool) -> Any:
    many, few = column_count()
    names = {"SIZE": codec.TYPE.type_size, "MANY": many, "FEW": few}
    names |= {name: getattr(codec, name) for name in ("unpack_scales", "unpack_levels", "add")}
    name = f"{codec.TYPE.name.lower()}-multiply"
    if not is_one:
        return compiled(multiply_tiles, SIGNATURE, name, **names)
    if goes_in_strips(codec, 1):
        names["LEVELS_ALONE"] = int(getattr(codec, "LEVELS_ALONE", False))
        return compiled(multiply_strips, OF_STRIPS, f"{name}-column", **names)
    return compiled(multiply_column, SIGNATURE, f"{name}-column", **names)


# ---------------------------------------------------------------- as it stands


def _multiply_numpy(codec: ModuleType, w: Bytes, columns: Columns, out: Floats) -> None:
    """All rows at a time."""
    size, acc = codec.TYPE.type_size, np.zeros(out.shape, np.float32)
    tile = empty_tile(len(w), codec.TYPE.block_size)
    with np.errstate(all="ignore"):
        for b, block in enumerate(columns):
            rows = w[:, b * size : (b + 1) * size]
            codec.unpack_scales(rows, tile)
            codec.unpack_levels(rows, tile)
            acc = codec.add(acc, tile, block, 0)
    out[...] = acc
