"""The vocabulary of strips: sixteen super-blocks side by side, each times a super-block of its own.

What `language.products` is to rows times columns; levels are put and summed with its words.  Numba
compiles these in `lowering.strips` and `lowering.groups`.
"""

from __future__ import annotations

import numpy as np

from kquant.kernels.language.lanes import Lanes, Rows
from kquant.kernels.language.products import ROWS, SUPER_BLOCK, Columns, Tile, empty_tile

__all__ = [
    "groups_at",
    "neighbours_from",
    "no_terms",
    "part_at",
    "parts",
    "put_part",
    "put_terms",
    "rows_at",
    "strip_at",
]


def neighbours_from(w: Rows, row: int, at: int, size: int) -> Rows:
    """16 blocks of this size side by side, the first of them `at` bytes behind the row's beginning."""
    first = row * w.shape[1] + at
    return w.reshape(-1)[first : first + ROWS * size].reshape(ROWS, size)


def strip_at(groups: Rows, g: int, lanes: Rows, t: int) -> Columns:
    """What sixteen super-blocks side by side are multiplied with, each with its own.

    Compiled: the activations of group g and of those behind it, and what belongs to the lanes of strip t.
    As it stands: sixteen columns, `lanes[t]`.
    """
    strip: Columns = lanes[t]
    return strip


def groups_at(strip: Columns) -> Tile:
    """One for a strip, whose levels are unpacked and multiplied in small groups of super-blocks."""
    return empty_tile(ROWS, SUPER_BLOCK)


def parts(tile: Tile) -> int:
    """How many groups its rows are unpacked in."""
    return 1


def part_at(tile: Tile, i: int, is_alone: int) -> Tile:
    """What group i writes to; if levels are unpacked alone, sums are finished before more is loaded."""
    return tile


def rows_at(block: Rows, tile: Tile, i: int) -> Rows:
    """The rows of group i."""
    return block


def put_part(tile: Tile, i: int, part: Tile) -> None:
    """Group i is complete."""


def no_terms(sums: Rows) -> Lanes:
    """float32 zeros for a strip; as it stands, for each of its blocks times each of its columns."""
    return np.zeros((ROWS, ROWS), np.float32)


def put_terms(terms: Rows, b: int, value: Lanes) -> None:
    """The products of strip b, in the order of its blocks."""
    terms[b] = value.diagonal()
