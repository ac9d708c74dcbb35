"""Packed rows: what the kernels that unpack blocks for products may say about bytes.

NumPy executes the functions below for any number of rows; Numba compiles them for 16, each in a lane of
4 bytes (`lowering.rows`, `lowering.bits`).  Two kinds of vector occur:

* **bytes**, uint8 or int8 (rows, n): n consecutive bytes of each row.  Under `+`, `-`, `*`, `&`, `|`, `<<`
  and `>>` each keeps its 8 bits;
* **numbers**, int32 or float32 (rows,): one of each row.

Positions and counts are constants.
"""

from __future__ import annotations

import numpy as np

from kquant.kernels.language.lanes import Lanes, Rows, float_of_half
from kquant.kernels.language.mark import kernel

__all__ = [
    "bits",
    "bits_at",
    "gather",
    "half_at",
    "half_from",
    "high_product",
    "joined",
    "load_bytes",
    "load_short",
    "nibbles_joined",
    "quad",
    "short_at",
    "signed",
]


def load_bytes(block: Rows, at: int, n: int) -> Lanes:
    """Bytes at .. at + n of each row: n is 4, 16 or 32."""
    return block[:, at : at + n]


def load_short(block: Rows, at: int) -> Lanes:
    """The 16 bits at byte `at` of each row, as a number."""
    return short_at(block[:, at : at + 2], 0)


@kernel
def half_from(block: Rows, at: int) -> Lanes:
    """The fp16 number at byte `at` of each row, as float32."""
    return float_of_half(load_short(block, at))


def short_at(value: Lanes, i: int) -> Lanes:
    """The 16 bits in bytes i and i + 1 of each row, i even, as a number."""
    return value[:, i].astype(np.int32) | value[:, i + 1].astype(np.int32) << 8


@kernel
def half_at(value: Lanes, i: int) -> Lanes:
    """The fp16 number in bytes i and i + 1 of each row, i even, as float32."""
    return float_of_half(short_at(value, i))


def quad(value: Lanes, i: int) -> Lanes:
    """Bytes 4i .. 4i + 4 of each row."""
    return value[:, 4 * i : 4 * i + 4]


def signed(value: Lanes) -> Lanes:
    """The same bytes, as int8."""
    return value.view(np.int8)


def bits(value: Lanes, first: int, n: int) -> Lanes:
    """n bits of each byte, from bit `first` on."""
    return value >> first << (8 - n) >> (8 - n)


def joined(low: Lanes, first: int, n: int, high: Lanes, second: int, m: int) -> Lanes:
    """Of each byte of `low` n bits, from bit `first` on; above them m bits of `high`, from `second` on."""
    return bits(low, first, n) | bits(high, second, m) << n


def nibbles_joined(low: Lanes, high: Lanes, first: int, second: int, m: int) -> tuple[Lanes, Lanes]:
    """Both nibbles of each byte of `low`; above each m bits of `high`, from bit `first` or `second` on."""
    return joined(low, 0, 4, high, first, m), joined(low, 4, 4, high, second, m)


def bits_at(value: Lanes, at: int, worth: int) -> Lanes:
    """16 bytes of each row: `worth` where bit at, at + 1, ... of its bytes is set, else 0."""
    flags: Lanes = np.unpackbits(value[:, at // 8 : at // 8 + 2], axis=1, bitorder="little")
    return flags * np.uint8(worth)


def high_product(value: Lanes, number: int) -> Lanes:
    """The upper 8 bits of each byte times a number below 256: digits to another base, as in TQ1_0."""
    return (value.astype(np.uint16) * np.uint16(number) >> 8).astype(np.uint8)


def gather(grid: Rows, low: Lanes, high: Lanes) -> Lanes:
    """Row `low + 256 * high` of a grid, for each byte of each row, side by side.

    grid: uint8 (n, 4), a constant; low, high: 4 or 8 bytes of each row, so that the result has 16 or 32.
    """
    found: Lanes = grid[low + high.astype(np.int32) * 256]
    return found.reshape(len(low), -1)
