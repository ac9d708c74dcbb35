"""Products: what the loops over rows and columns say (`kquant.kernels.product_loops`).

Rows are worked on sixteen at a time when compiled, in any number by NumPy.  **Sums** are a vector, int32 or
float32 (columns, rows): one number of each row for each of some columns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.lanes import Lanes, Rows, as_float
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.tiles import Tile

__all__ = [
    "LINE",
    "Columns",
    "adder",
    "block_from",
    "column_factor",
    "columns_at",
    "factor",
    "float_at",
    "integer_sums",
    "minima_sums",
    "prefetch",
    "prefetch_next",
    "products_at",
    "put_sums",
    "scatter",
    "sums_at",
    "tile_at",
    "zero_sums",
]

Columns: TypeAlias = npt.NDArray[np.void]
"""One block of activations of each of some columns: `kernels.layout.block_of_column`."""

LINE = 64
"""Bytes that `prefetch` is for."""


# ---------------------------------------------------------------- where blocks are


def block_from(w: Rows, row: int, at: int, n: int) -> Rows:
    """The blocks that begin at byte `at` of n rows: compiled, 16."""
    return w[row : row + n, at:]


def tile_at(tiles: Rows, i: int, dot: BlockDot) -> Tile:
    """Tile i of those that a loop has."""
    tile: Tile = tiles[i]
    return tile


def products_at(tiles: Rows, i: int, columns: Columns, dot: BlockDot) -> Tile:
    """Tile i for a single column; compiled, it multiplies levels as they are put, and keeps the sums."""
    tile: Tile = tiles[i]
    return tile


def columns_at(columns: Rows, b: int) -> Columns:
    """Block b of all columns."""
    found: Columns = columns[b]
    return found


def prefetch(w: Rows, row: int, at: int) -> None:
    """Tells the processor that a line, `at` bytes behind the row's beginning, will be needed soon."""


def prefetch_next(w: Rows, row: int, at: int) -> None:
    """The same for what is needed next: into the fastest cache."""


# ---------------------------------------------------------------- sums


def sums_at(memory: Rows, c: int, n: int) -> Lanes:
    """Columns c .. c + n of float32 (columns, rows)."""
    return memory[c : c + n]


def zero_sums(like: Lanes) -> Lanes:
    """Zeros for the same rows and columns."""
    return np.zeros_like(like)


def put_sums(memory: Rows, c: int, value: Lanes) -> None:
    """Set the columns from c on."""
    memory[c : c + len(value)] = value


def scatter(memory: Rows, c: int, out: Rows, row: int) -> None:
    """Column c of float32 (columns, rows) to out[c, row ..]."""
    out[c, row : row + memory.shape[1]] = memory[c]


def float_at(value: Lanes, i: int) -> Lanes:
    """The float32 in bytes i .. i + 4 of each row."""
    numbers: Lanes = value[:, i : i + 4].copy().view(np.float32)[:, 0]
    return numbers


# ---------------------------------------------------------------- a tile times columns


def factor(tile: Tile, i: int) -> Lanes:
    """Of each row's block: 0 for d, 1 for dmin or the float minimum."""
    return tile.factors[i]


def column_factor(like: Lanes, tile: Tile, columns: Columns, i: int, c: int) -> Lanes:
    """Of each column's block, from column c on: 0 for d, 1 for the sum that Q8_1 keeps."""
    return columns["factors"][c : c + len(like), i, None]


def integer_sums(like: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """Of each row and column, from column c on: scale * (level - zero point) * activation, over the block.

    The sums of a sub-block are whole numbers below 2**24: float32 has them exactly, and NumPy multiplies it
    faster than integers.
    """
    dot, q = tile.dot, columns["q"][c : c + len(like)]
    n = dot.scales.elements if dot.scales else q.shape[1]
    total = np.zeros(like.shape, np.int32)
    for j in range(q.shape[1] // n):
        x = q[:, n * j : n * j + n].astype(np.float32)
        levels = tile.levels[:, n * j : n * j + n].astype(np.float32) - np.float32(dot.zero_point)
        sums = (x @ levels.T).astype(np.int32)
        total = total + (sums * tile.scales[j] if dot.scales else sums)
    return total


def minima_sums(like: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """Of each row and column, from column c on: minimum * sum of its activations, over the block."""
    n = len(tile.minima)
    x = columns["sums"][c : c + len(like)].reshape(len(like), n, -1).sum(2, np.int32)
    return x @ tile.minima


@cache
def adder(dot: BlockDot) -> Callable[[Lanes, Any, Any, int], Lanes]:
    """kernel(sums, tile, columns, c): the sums and the tile's products with the columns from c on."""

    @kernel
    def add(sums: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
        total = integer_sums(sums, tile, columns, c)
        return sums + factor(tile, 0) * column_factor(sums, tile, columns, 0, c) * as_float(total)

    @kernel
    def add_with_minima(sums: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
        total, minima = integer_sums(sums, tile, columns, c), minima_sums(sums, tile, columns, c)
        d = column_factor(sums, tile, columns, 0, c)
        return sums + (factor(tile, 0) * d * as_float(total) - factor(tile, 1) * d * as_float(minima))

    @kernel
    def add_with_offset(sums: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
        total = integer_sums(sums, tile, columns, c)
        offset = factor(tile, 1) * column_factor(sums, tile, columns, 1, c)
        return sums + (factor(tile, 0) * column_factor(sums, tile, columns, 0, c) * as_float(total) + offset)

    return add_with_minima if dot.minima else add_with_offset if dot.offset else add
