"""Carries a room's `unpack_scales`, `unpack_levels` and `add` over rows and columns, in either execution.

Sixteen rows at a time: the blocks that they have at one place are unpacked once, into a few KB that stay in
the fastest cache, and multiplied with all columns.  Every element of the result is summed block by block
from the first to the last, in float32, whatever is computed beside it.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from kquant.formats import room
from kquant.kernels.execute import Bytes, Execution, Floats, aligned_empty
from kquant.kernels.jit import column_count, compiled, has_groups, reads_in_turn
from kquant.kernels.lanes import Lanes, Rows
from kquant.kernels.mark import kernel
from kquant.kernels.products import (
    FACTORS,
    FETCHED,
    PAIRS,
    ROWS,
    SCALES,
    Columns,
    Tile,
    block_from,
    columns_at,
    fetch,
    few_columns,
    give,
    groups_at,
    many_columns,
    no_floats,
    one_column,
    part_at,
    parts,
    products_at,
    put_part,
    put_sums,
    rows_at,
    tile_at,
)
from kquant.types import TensorType

__all__ = [
    "arguments",
    "columns_of",
    "empty_tile",
    "goes_in_turn",
    "may_go_in_turn",
    "multiplier",
    "multiply",
]

NEAR = 1 << 20
"""Bytes of weights that stay in a cache: for more of them, the next rows are fetched ahead."""
IN_TURN = 64
"""Super-blocks of a row that are multiplied before those of the next row."""
STRETCH = 256
"""Elements of each row that are unpacked at a time: one super-block, or eight blocks of 32."""


def columns_of(packed: Bytes, partner: TensorType) -> Columns:
    """Packed activations (columns, row_bytes) as the kernels read them: block after block, of all columns."""
    fields = room(partner).unpack(packed)
    n, size = len(packed), partner.block_size
    q = fields["q"].reshape(n, -1, size)
    layout = [("q", "i1", size), ("sums", "<i2", (size // 32, 2)), ("factors", "<f4", FACTORS)]
    columns = aligned_empty((q.shape[1], n), np.dtype(layout))
    columns["q"] = q.swapaxes(0, 1)
    columns["factors"] = 0
    for i, key in enumerate(key for key in ("d", "s") if key in fields):
        columns["factors"][..., i] = fields[key].reshape(n, -1).T
    if "bsums" in fields:
        columns["sums"] = fields["bsums"].reshape(n, -1, size // 32, 2).swapaxes(0, 1)
    else:
        ones = np.ones(16, np.float32)  # whole numbers, which float32 sums faster
        columns["sums"] = columns["q"].reshape(-1, n, size // 32, 2, 16).astype(np.float32) @ ones
    return columns


# ---------------------------------------------------------------- compiled


def unpack_scales(block: Rows, tile: Tile) -> None:
    """Stands for a room's `unpack_scales`."""


def unpack_levels(block: Rows, tile: Tile) -> None:
    """Stands for a room's `unpack_levels`."""


def add(acc: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """Stands for a room's `add`."""


def column_tile(memory: Rows, i: int, columns: Columns) -> Tile:
    """Stands for `groups_at` or `products_at`."""
    raise NotImplementedError


SIZE, MANY, FEW = 1, 1, 1
"""Stand for the bytes of a room's block, and for what `column_count` says."""


@kernel
def multiply_column(w: Rows, columns: Rows, tiles: Rows, acc: Rows, is_far: bool, out: Rows) -> None:
    """`multiply_tiles` for a single column: levels are multiplied as they are unpacked."""
    n_rows, n_blocks = len(w), len(columns)
    for start in range(0, n_rows, ROWS):
        row, ahead = min(start, n_rows - ROWS), min(start + ROWS, n_rows - ROWS)
        total = no_floats(one_column(acc, 0))
        for b in range(n_blocks):
            block, column = block_from(w, row, b * SIZE), columns_at(columns, b)
            tile = column_tile(tiles, 0, column)
            unpack_scales(block, tile)
            for i in range(parts(tile)):
                if is_far:
                    fetch_blocks(w, ahead, b * SIZE, SIZE, i, parts(tile))
                part = part_at(tile, i)
                unpack_levels(rows_at(block, tile, i), part)
                put_part(tile, i, part)
            total = add(total, tile, column, 0)
        put_sums(acc, 0, total)
        give(acc, 0, out, row)


@kernel
def multiply_rows_in_turn(w: Rows, columns: Rows, tiles: Rows, acc: Rows, is_far: bool, out: Rows) -> None:
    """The same, but as many blocks of a group of rows as there are tiles before those of the next group.

    The levels must not need what `unpack_scales` puts into a tile.
    """
    n_rows, n_blocks, stretch = len(w), len(columns), len(tiles)
    of = parts(groups_at(tiles, 0, columns_at(columns, 0)))
    for start in range(0, n_rows, ROWS):
        row, ahead = min(start, n_rows - ROWS), min(start + ROWS, n_rows - ROWS)
        total = no_floats(one_column(acc, 0))
        for first in range(0, n_blocks, stretch):
            n = min(stretch, n_blocks - first)
            for i in range(of):
                for b in range(n):
                    at, tile = (first + b) * SIZE, groups_at(tiles, b, columns_at(columns, first + b))
                    for k in range(i, ROWS, of):
                        fetch_block(w, ahead + k, at, SIZE)
                    part = part_at(tile, i)
                    unpack_levels(rows_at(block_from(w, row, at), tile, i), part)
                    put_part(tile, i, part)
            for b in range(n):
                column = columns_at(columns, first + b)
                tile = groups_at(tiles, b, column)
                unpack_scales(block_from(w, row, (first + b) * SIZE), tile)
                total = add(total, tile, column, 0)
        put_sums(acc, 0, total)
        give(acc, 0, out, row)


@kernel
def fetch_block(w: Rows, row: int, at: int, size: int) -> None:
    for k in range(at, at + size, FETCHED):
        fetch(w, row, k)


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
                    fetch_blocks(w, ahead, (first + i) * SIZE, SIZE, 0, 1)
                block, tile = block_from(w, row, (first + i) * SIZE), tile_at(tiles, i)
                unpack_scales(block, tile)
                unpack_levels(block, tile)
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
def fetch_blocks(w: Rows, row: int, at: int, size: int, part: int, of: int) -> None:
    """As many bytes of the next rows as are read of these meanwhile; they lie side by side."""
    share = size * ROWS // of
    for k in range(share * part, share * (part + 1), FETCHED):
        fetch(w, row, at * ROWS + k)


SIGNATURE = (
    "Array(uint8, 2, 'A', readonly=True), R(uint8, 3), uint8[:, ::1], float32[:, ::1], "
    "boolean, Array(float32, 2, 'A')"
)


def multiply(codec: ModuleType, w: Bytes, columns: Columns, out: Floats, execution: Execution) -> None:
    """out[c, r] = row r of w (rows, row_bytes) times column c."""
    if execution == "numpy":
        _multiply_numpy(codec, w, columns, out)
        return
    n_rows = len(w)
    if n_rows < ROWS or w.strides[1] != 1:
        w = np.resize(w, (max(n_rows, ROWS), w.shape[1]))
    is_whole = n_rows >= ROWS and out.strides[1] == out.itemsize
    result = out if is_whole else np.empty((len(out), len(w)), np.float32)
    loops = multiplier(codec, len(out), in_turn=goes_in_turn(codec, w, len(out)))
    loops(*arguments(codec, w, columns, result))
    if not is_whole:
        out[...] = result[:, :n_rows]


def arguments(codec: ModuleType, w: Bytes, columns: Columns, out: Floats) -> tuple[Any, ...]:
    """Of the loops that `multiplier` compiles."""
    block_size = codec.TYPE.block_size
    n_tiles = min(len(columns), IN_TURN) if goes_in_turn(codec, w, len(out)) else STRETCH // block_size
    tile_bytes = ROWS * (block_size + 4 * (SCALES + PAIRS + FACTORS))
    return (
        w,
        columns.view(np.uint8).reshape(*columns.shape, -1),
        aligned_empty((n_tiles, tile_bytes), np.uint8),
        aligned_empty((len(out), ROWS), np.float32),
        w.nbytes > NEAR,
        out,
    )


def may_go_in_turn(codec: ModuleType) -> bool:
    """Whether `multiply_rows_in_turn` is for a type on this CPU."""
    return getattr(codec, "LEVELS_ALONE", False) and reads_in_turn()


def goes_in_turn(codec: ModuleType, w: Bytes, n_columns: int) -> bool:
    """Whether it is for a matrix, which comes from memory, times so many columns."""
    return n_columns == 1 and w.nbytes > NEAR and may_go_in_turn(codec)


def multiplier(codec: ModuleType, n_columns: int, *, in_turn: bool = False) -> Any:
    """The compiled `multiply_column`, `multiply_rows_in_turn` or `multiply_tiles` of a room."""
    many, few = column_count()
    names = {"SIZE": codec.TYPE.type_size, "MANY": many, "FEW": few}
    names |= {name: getattr(codec, name) for name in ("unpack_scales", "unpack_levels", "add")}
    name = f"{codec.TYPE.name.lower()}-multiply"
    if n_columns > 1:
        return compiled(multiply_tiles, SIGNATURE, name, **names)
    if in_turn:
        return compiled(multiply_rows_in_turn, SIGNATURE, f"{name}-in-turn", **names)
    names["column_tile"] = groups_at if codec.TYPE.block_size == STRETCH and has_groups() else products_at
    return compiled(multiply_column, SIGNATURE, f"{name}-column", **names)


# ---------------------------------------------------------------- as it stands


def _multiply_numpy(codec: ModuleType, w: Bytes, columns: Columns, out: Floats) -> None:
    """All rows at a time."""
    size, acc, tile = codec.TYPE.type_size, np.zeros(out.shape, np.float32), empty_tile(codec, len(w))
    with np.errstate(all="ignore"):
        for b, block in enumerate(columns):
            rows = w[:, b * size : (b + 1) * size]
            codec.unpack_scales(rows, tile)
            codec.unpack_levels(rows, tile)
            acc = codec.add(acc, tile, block, 0)
    out[...] = acc


def empty_tile(codec: ModuleType, n_rows: int) -> Tile:
    """Room for one block of each of so many rows."""
    return Tile(
        np.empty((n_rows, codec.TYPE.block_size), np.uint8),
        np.empty((SCALES, n_rows), np.int32),
        np.empty((PAIRS, n_rows, 2), np.int16),
        np.empty((FACTORS, n_rows), np.float32),
    )
