"""The language of rounding: whole blocks of 32 elements, whose scale needs no search.

What `language.lanes` is to the searches, this is to the types that ask a block for its extremes only:
their order does not matter, so that no element has to be moved into a lane.  NumPy executes the functions
below for any number of blocks at a time, Numba compiles them for sixteen (`lowering.blocks`).  Two
kinds of vector occur:

* **numbers**, float32 or int32 (blocks,): one of each block.  They are vectors of lanes;
* **runs**, (blocks, n): n neighbouring elements of each block.  Compiled, a loop takes block after block.
"""

from __future__ import annotations

import numpy as np

from kquant.kernels.language.lanes import Lanes, Rows

__all__ = [
    "BLOCKS",
    "SIZE",
    "apart",
    "are_below",
    "count",
    "first_of",
    "highest",
    "largest",
    "lowest",
    "of_block",
    "put_bits",
    "put_run",
    "put_shorts",
    "put_sum",
    "run_of",
    "together",
]

BLOCKS = 16
"""Blocks that compiled kernels work on at a time."""
SIZE = 32
"""Elements of a block."""


# ---------------------------------------------------------------- a number of each block


def are_below(x: Rows, limit: int) -> bool:
    """Whether every magnitude in float32 (blocks, 32) is below the float32 of these bits; NaN is not."""
    return bool((np.abs(x).view(np.int32) < limit).all())


def highest(x: Rows) -> Lanes:
    """The largest element; of zeros of both signs either."""
    return np.maximum.reduce(x, axis=1)


def lowest(x: Rows) -> Lanes:
    """The smallest element; of zeros of both signs either."""
    return np.minimum.reduce(x, axis=1)


def largest(x: Rows) -> Lanes:
    """The largest magnitude."""
    return np.maximum.reduce(np.abs(x), axis=1)


def first_of(x: Rows, magnitude: Lanes) -> Lanes:
    """The first element of this magnitude, where there is one."""
    first = np.argmax(np.abs(x) == magnitude[:, None], axis=1)
    return x[np.arange(len(x)), first]


# ---------------------------------------------------------------- block after block


def count(x: Rows) -> int:
    """How many steps a loop over the blocks takes: NumPy takes all at once."""
    return 1


def apart(numbers: Lanes) -> Rows:
    """Numbers to be read and written one by one."""
    return np.array(numbers)[:, None]


def together(place: Rows) -> Lanes:
    """What `apart` made, as numbers again."""
    return place[:, 0]


def of_block(place: Rows, b: int) -> Lanes:
    """The number of block b, which fits every run of that block."""
    return place


def put_sum(place: Rows, b: int, run: Lanes) -> None:
    """The number of block b is the sum of an int32 run."""
    place[:] = np.add.reduce(run, axis=1, keepdims=True, dtype=np.int32)


def run_of(x: Rows, b: int, at: int, n: int) -> Lanes:
    """Elements at .. at + n of block b."""
    return x[:, at : at + n]


def put_run(block: Rows, b: int, at: int, value: Lanes) -> None:
    """Bytes from `at` on of packed block b, from int32."""
    block[:, at : at + value.shape[1]] = value


def put_bits(block: Rows, b: int, at: int, condition: Lanes) -> None:
    """The same, a bit for each element, the lowest first."""
    bits = np.packbits(condition, axis=1, bitorder="little")
    block[:, at : at + bits.shape[1]] = bits


def put_shorts(block: Rows, at: int, numbers: Lanes) -> None:
    """Bytes at and at + 1 of every packed block, from int32."""
    block[:, at], block[:, at + 1] = numbers & 255, numbers >> 8
