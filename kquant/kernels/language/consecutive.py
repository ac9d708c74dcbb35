"""Sixteen consecutive super-blocks, each times a super-block of one column: memory is read from end to end.

What `language.products` is to rows times columns; the same kernels unpack the blocks.  Compiled
(`lowering.consecutive`, `lowering.groups`), scales and factors have a lane for each super-block, and the
levels are multiplied in groups of one or two super-blocks, as many as a register holds.
"""

from __future__ import annotations

import numpy as np

from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.lanes import Lanes, Rows
from kquant.kernels.language.products import Columns
from kquant.kernels.language.tiles import Tile, empty_tile
from kquant.kernels.layout import ROWS

__all__ = [
    "activations_at",
    "consecutive_from",
    "group_at",
    "group_rows",
    "n_groups",
    "put_group",
    "put_terms",
    "tile_for",
    "zero_terms",
]


def consecutive_from(w: Rows, row: int, at: int, size: int) -> Rows:
    """16 consecutive blocks of this size, the first of them `at` bytes behind the row's beginning."""
    first = row * w.shape[1] + at
    return w.reshape(-1)[first : first + ROWS * size].reshape(ROWS, size)


def activations_at(groups: Rows, g: int, lanes: Rows, t: int) -> Columns:
    """What sixteen consecutive super-blocks are multiplied with, each with its own.

    Compiled: the activations of group g and of those behind it (`layout.group_of_blocks`), and what belongs
    to the lanes (`layout.lanes_of_column`).  As it stands: sixteen columns, `lanes[t]`.
    """
    found: Columns = lanes[t]
    return found


def tile_for(activations: Columns, dot: BlockDot) -> Tile:
    """A tile for sixteen super-blocks; compiled, in registers."""
    return empty_tile(ROWS, dot)


def n_groups(tile: Tile) -> int:
    """How many groups the levels are multiplied in."""
    return 1


def group_at(tile: Tile, i: int) -> Tile:
    """What the levels of group i are put into."""
    return tile


def group_rows(blocks: Rows, tile: Tile, i: int) -> Rows:
    """The super-blocks of group i."""
    return blocks


def put_group(tile: Tile, i: int, group: Tile) -> None:
    """Group i is complete."""


def zero_terms(memory: Rows) -> Lanes:
    """float32 zeros for a tile; as it stands, for each of its blocks times each of its columns."""
    return np.zeros((ROWS, ROWS), np.float32)


def put_terms(terms: Rows, b: int, value: Lanes) -> None:
    """The products of sixteen super-blocks, in their order."""
    terms[b] = value.diagonal()
