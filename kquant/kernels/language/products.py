"""The vocabulary of products: packed rows times columns of activations, sixteen rows at a time.

What `language.lanes` is to the searches, this is to products.  NumPy executes the functions below for
any number of rows; Numba compiles them for 16, each in a lane of 4 bytes (`lowering.products`).
Three kinds of vector occur:

* **bytes**, uint8 or int8 (rows, n): n neighbouring bytes of each row.  Under `+`, `-`, `&`, `|`, `<<` and
  `>>` each keeps its 8 bits;
* **numbers**, int32 or float32 (rows,): one of each row;
* **sums**, int32 or float32 (columns, rows): one of each row for each of some columns.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from kquant.kernels.language.lanes import Lanes, Rows, float_of_half
from kquant.kernels.language.mark import kernel

__all__ = [
    "BLOCK",
    "CENTER",
    "CENTERS",
    "DIGITS",
    "EVEN_AND_ODD",
    "FACTORS",
    "FETCHED",
    "MIDDLE",
    "PAIRS",
    "QUADS",
    "ROWS",
    "SCALES",
    "SUPER_BLOCK",
    "Columns",
    "Tile",
    "bits_at",
    "block_dots",
    "block_from",
    "by_column",
    "centered_dots",
    "columns_at",
    "dot_quads",
    "dots",
    "empty_tile",
    "factor",
    "fetch",
    "fetch_next",
    "few_columns",
    "float_at",
    "give",
    "half_at",
    "half_from",
    "load_bytes",
    "load_long",
    "load_quad",
    "load_short",
    "many_columns",
    "moved",
    "nibble_with",
    "no_floats",
    "no_sums",
    "one_column",
    "pair_with",
    "products_at",
    "put_8_scales",
    "put_16_scales",
    "put_bytes",
    "put_factor",
    "put_large_bytes",
    "put_pair",
    "put_quad",
    "put_signed_scales",
    "put_small_scales",
    "put_sums",
    "put_three_bits",
    "put_two_bits",
    "quad",
    "scaled_dots",
    "short_at",
    "signed",
    "small_dots",
    "tile_at",
]

ROWS = 16
"""Rows that compiled kernels work on at a time."""
SCALES, PAIRS, QUADS, FACTORS = 16, 8, 4, 2
"""Room in a tile, for each row."""
BLOCK, SUPER_BLOCK = 32, 256
"""Elements."""
EVEN_AND_ODD = [*range(0, 16, 2), *range(1, 16, 2)]
"""The order of 16 scales that puts those of the two halves of each 32 elements into halves of their own."""
DIGITS = 24
"""Of the sums of a super-block's activations: 16 of 16 elements each, then 8 of 32."""
CENTERS, CENTER, MIDDLE = 17, 32, 127
"""See `Columns`: where sums of products begin that are of levels too large, or of bytes."""

FETCHED = 64
"""Bytes that `fetch` is for."""


class Tile(NamedTuple):
    """One block of each of some rows, unpacked; compiled, a few KB of memory."""

    levels: npt.NDArray[np.uint8]
    """(rows, elements)."""
    scales: npt.NDArray[np.int32]
    """(scales, rows)."""
    quads: npt.NDArray[np.uint8]
    """(quads, rows, 4): factors of the sums of activations."""
    factors: npt.NDArray[np.float32]
    """(factors, rows)."""


Columns: TypeAlias = npt.NDArray[np.void]
"""One block of each of some columns: q (elements,), factors (2,).

In blocks of 32 also `negative`, minus the sum of the activations.  In super-blocks: `sums` (pairs, 2) of 16
elements each; `high` and `low` (24,), the digits to the base 128 of sums of 16 and of 32 elements; `centers`
(17,), -32 times the sum of each 16 elements, then -127 times that of all.
"""


def empty_tile(n_rows: int, block_size: int) -> Tile:
    """Room for one block of each of so many rows."""
    return Tile(
        np.empty((n_rows, block_size), np.uint8),
        np.empty((SCALES, n_rows), np.int32),
        np.empty((QUADS, n_rows, 4), np.uint8),
        np.empty((FACTORS, n_rows), np.float32),
    )


# ---------------------------------------------------------------- packed rows


def block_from(w: Rows, row: int, at: int) -> Rows:
    """The blocks that begin at byte `at` of 16 rows."""
    return w[row : row + ROWS, at:]


def fetch(w: Rows, row: int, at: int) -> None:
    """Tells the processor that `FETCHED` bytes, from `at` behind the row's beginning, will be needed soon."""


def fetch_next(w: Rows, row: int, at: int) -> None:
    """The same for what comes next: into the fastest cache."""


def load_bytes(block: Rows, at: int) -> Lanes:
    """Bytes at .. at + 16 of each row."""
    return block[:, at : at + 16]


def load_long(block: Rows, at: int) -> Lanes:
    """Bytes at .. at + 32 of each row."""
    return block[:, at : at + 32]


def load_quad(block: Rows, at: int) -> Lanes:
    """Bytes at .. at + 4 of each row."""
    return block[:, at : at + 4]


def load_short(block: Rows, at: int) -> Lanes:
    """The 16 bits at byte `at` of each row, as a number."""
    return short_at(block[:, at : at + 2], 0)


def quad(value: Lanes, i: int) -> Lanes:
    """Bytes 4i .. 4i + 4 of each row."""
    return value[:, 4 * i : 4 * i + 4]


def signed(value: Lanes) -> Lanes:
    """The same bytes, as int8."""
    return value.view(np.int8)


def moved(value: Lanes, first: int, n: int, to: int) -> Lanes:
    """n bits of each byte, from bit `first` on, moved to bit `to`; the others are zero."""
    return value >> first << (8 - n) >> (8 - n) << to


def nibble_with(q: Lanes, i: int, high: Lanes, n: int, first: int, second: int) -> Lanes:
    """Bits 4i .. 4i + 4 of each byte, above them n bits of `high`: from `first` on if i is 0, or `second`."""
    at = second if i else first
    return moved(q, 4 * i, 4, 0) | moved(high, at, n, 4)


def pair_with(q: Lanes, i: int, high: Lanes, at: int) -> Lanes:
    """Bits 2i and 2i + 1 of each byte, above them bit `at` of `high`."""
    return moved(q, 2 * i, 2, 0) | moved(high, at, 1, 2)


def bits_at(value: Lanes, at: int, worth: int) -> Lanes:
    """16 bytes of each row: `worth` where bit at, at + 1, ... of its bytes is set, else 0."""
    bits: Lanes = np.unpackbits(value[:, at // 8 : at // 8 + 2], axis=1, bitorder="little")
    return bits * np.uint8(worth)


def short_at(value: Lanes, i: int) -> Lanes:
    """The 16 bits in bytes i and i + 1 of each row, i even, as a number."""
    return value[:, i].astype(np.int32) | value[:, i + 1].astype(np.int32) << 8


@kernel
def half_at(value: Lanes, i: int) -> Lanes:
    """The fp16 number in bytes i and i + 1 of each row, i even, as float32."""
    return float_of_half(short_at(value, i))


@kernel
def half_from(block: Rows, at: int) -> Lanes:
    """The fp16 number at byte `at` of each row, as float32."""
    return float_of_half(load_short(block, at))


def float_at(value: Lanes, i: int) -> Lanes:
    """The float32 in bytes i .. i + 4 of each row."""
    numbers: Lanes = value[:, i : i + 4].copy().view(np.float32)[:, 0]
    return numbers


# ---------------------------------------------------------------- what is kept of a block for all columns


def tile_at(memory: Rows, i: int) -> Tile:
    """Tile i of those that a kernel has."""
    tile: Tile = memory[i]
    return tile


def products_at(memory: Rows, i: int, columns: Columns) -> Tile:
    """Tile i for a single column; compiled, it keeps the sums of 16 products in the place of the levels."""
    tile: Tile = memory[i]
    return tile


def put_bytes(tile: Tile, at: int, value: Lanes) -> None:
    """The levels of 16 or 32 elements of each row from `at` on, up to 63."""
    tile.levels[:, at : at + value.shape[1]] = value


def put_large_bytes(tile: Tile, at: int, value: Lanes) -> None:
    """The same for levels above 63."""
    tile.levels[:, at : at + value.shape[1]] = value


def put_16_scales(tile: Tile, first: Lanes, second: Lanes, third: Lanes, fourth: Lanes) -> None:
    """The bytes of each row that levels are multiplied with, one for each 16 elements."""
    tile.scales[:] = np.concatenate([first, second, third, fourth], 1).T


def put_8_scales(tile: Tile, first: Lanes, second: Lanes) -> None:
    """The same, one for each 32 elements."""
    tile.scales[:8] = np.concatenate([first, second], 1).T


def put_signed_scales(tile: Tile, value: Lanes) -> None:
    """The 16 scales of `put_16_scales` side by side, of levels that are `CENTER` too large."""
    tile.scales[:] = value.T


def put_small_scales(tile: Tile, value: Lanes) -> None:
    """16 scales below 16 side by side, of levels of two bits."""
    tile.scales[:] = value.T


def put_two_bits(tile: Tile, at: int, q: Lanes, i: int) -> None:
    """Levels from `at` on: bits 2i and 2i + 1 of each byte; their scales are there."""
    put_bytes(tile, at, moved(q, 2 * i, 2, 0))


def put_three_bits(tile: Tile, at: int, value: Lanes) -> None:
    """Levels from `at` on, up to 7 and 4 too large; their scales, from -32 to 31, are there."""
    put_bytes(tile, at, value)


def put_factor(tile: Tile, i: int, value: Lanes) -> None:
    """Factor i of each row, as float32."""
    tile.factors[i] = value


def put_pair(tile: Tile, i: int, value: Lanes, j: int, k: int, shift: int) -> None:
    """Pair i: bytes j and k of each row, of the same four, shifted left.

    Compiled without VNNI, `centered_dots` takes these times the sums of activations off.
    """


def put_quad(tile: Tile, i: int, value: Lanes, size: int) -> None:
    """Quad i: four bytes of each row, factors of the sums of `size` activations each."""
    tile.quads[i] = value


# ---------------------------------------------------------------- rows times columns


def columns_at(memory: Rows, b: int) -> Columns:
    """Block b of all columns."""
    columns: Columns = memory[b]
    return columns


def many_columns(sums: Rows, c: int) -> Lanes:
    """Columns of float32 (columns, rows) from c on: as many as the processor has registers for."""
    return sums[c:]


def few_columns(sums: Rows, c: int) -> Lanes:
    """Some columns from c on, but not so many."""
    return sums[c:]


def one_column(sums: Rows, c: int) -> Lanes:
    """Column c."""
    return sums[c : c + 1]


def put_sums(sums: Rows, c: int, value: Lanes) -> None:
    """Set the columns from c on."""
    sums[c : c + len(value)] = value


def give(sums: Rows, c: int, out: Rows, row: int) -> None:
    """Column c of float32 (columns, rows) to out[c, row .. row + 16]."""
    out[c, row : row + ROWS] = sums[c]


def no_sums(like: Lanes) -> Lanes:
    """int32 zeros for the same rows and columns."""
    return np.zeros(like.shape, np.int32)


def no_floats(like: Lanes) -> Lanes:
    """float32 zeros for the same rows and columns."""
    return np.zeros(like.shape, np.float32)


def factor(tile: Tile, i: int) -> Lanes:
    """Factor i of each row."""
    return tile.factors[i]


def by_column(like: Lanes, columns: Columns, size: int, i: int, c: int) -> Lanes:
    """Factor i of each column from c on; blocks have `size` elements."""
    return columns["factors"][c : c + len(like), i, None]


def dots(like: Lanes, tile: Tile, at: int, n: int, top: int, columns: Columns, size: int, c: int) -> Lanes:
    """The sums of level * activation over n elements from `at` on, for the columns from c on.

    No level is larger than `top`.  The sums are whole numbers below 2**24: float32 has them exactly, and
    NumPy multiplies it faster than integers.
    """
    x = columns["q"][c : c + len(like), at : at + n].astype(np.float32)
    return (x @ tile.levels[:, at : at + n].T.astype(np.float32)).astype(np.int32)


def block_dots(like: Lanes, tile: Tile, top: int, excess: int, columns: Columns, c: int) -> Lanes:
    """The sums of activation * (level - excess) over blocks of 32; the excess is a power of two, or zero."""
    sums = dots(like, tile, 0, BLOCK, top, columns, BLOCK, c)
    return sums + columns["negative"][c : c + len(like), None] * excess


def scaled_dots(like: Lanes, tile: Tile, n: int, top: int, columns: Columns, size: int, c: int) -> Lanes:
    """The sums of scale * level * activation over blocks of `size` elements, a scale for each n of them."""
    total = no_sums(like)
    for j in range(size // n):
        total = total + dots(like, tile, n * j, n, top, columns, size, c) * tile.scales[j]
    return total


def small_dots(like: Lanes, tile: Tile, columns: Columns, c: int) -> Lanes:
    """`scaled_dots` of a super-block with a scale for each 16 elements, for levels of `put_two_bits`."""
    return scaled_dots(like, tile, 16, 3, columns, SUPER_BLOCK, c)


def centered_dots(like: Lanes, tile: Tile, top: int, columns: Columns, c: int) -> Lanes:
    """The same where levels up to 7, of `put_three_bits`, or up to 63 are too large by half their range."""
    total = no_sums(like)
    for j in range(16):
        too_much = columns["q"][c : c + len(like), 16 * j : 16 * j + 16].sum(1, np.int32, keepdims=True)
        sums = dots(like, tile, 16 * j, 16, top, columns, SUPER_BLOCK, c) - too_much * ((top + 1) // 2)
        total = total + sums * tile.scales[j]
    return total


def dot_quads(like: Lanes, tile: Tile, top: int, size: int, columns: Columns, c: int) -> Lanes:
    """The sums of the quads, no larger than `top`, times those of `size` activations of each super-block."""
    n = SUPER_BLOCK // size
    x = columns["sums"][c : c + len(like)].reshape(len(like), n, -1).sum(2, np.int32)
    return x @ tile.quads[: n // 4].swapaxes(0, 1).reshape(-1, n).T.astype(np.int32)
