"""Tiles: one block of each of some rows, unpacked, and what the kernels that unpack blocks put there.

NumPy executes the functions below for any number of rows; Numba compiles them for 16, for each of the three
places in which a processor wants unpacked blocks (`lowering.tiles`, `lowering.lanes16`, `lowering.groups`).
What a tile does with levels and scales follows from its format's declaration, `BlockDot`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.lanes import Lanes

__all__ = ["Tile", "empty_tile", "put_d", "put_levels", "put_min", "put_minima", "put_scales"]


class Tile(NamedTuple):
    """One block of each of some rows, unpacked; compiled, a few KB of memory: `kernels.layout.tile`."""

    dot: BlockDot
    """The format's declaration."""
    levels: npt.NDArray[np.uint8]
    """(rows, elements)."""
    scales: npt.NDArray[np.int32]
    """(scales, rows)."""
    minima: npt.NDArray[np.int32]
    """(minima, rows)."""
    factors: npt.NDArray[np.float32]
    """(2, rows): d, and dmin or the float minimum."""


def empty_tile(n_rows: int, dot: BlockDot) -> Tile:
    """Memory for one block of each of so many rows."""
    size = dot.partner.block_size
    n_scales, n_minima = (size // x.elements if x else 0 for x in (dot.scales, dot.minima))
    return Tile(
        dot,
        np.empty((n_rows, size), np.uint8),
        np.empty((n_scales, n_rows), np.int32),
        np.empty((n_minima, n_rows), np.int32),
        np.empty((2, n_rows), np.float32),
    )


def put_levels(tile: Tile, at: int, value: Lanes) -> None:
    """The stored levels of 16 or 32 elements of each row, from `at` on; their scales may have to be there."""
    tile.levels[:, at : at + value.shape[1]] = value


def put_scales(tile: Tile, *quads: Lanes) -> None:
    """The integer scales: four bytes of each row after the other, or 16 where they are `with_levels`."""
    tile.scales[:] = np.concatenate(quads, 1).T


def put_minima(tile: Tile, *quads: Lanes) -> None:
    """The integer minima: four bytes of each row after the other."""
    tile.minima[:] = np.concatenate(quads, 1).T


def put_d(tile: Tile, value: Lanes) -> None:
    """The scale of each row's block, as float32."""
    tile.factors[0] = value


def put_min(tile: Tile, value: Lanes) -> None:
    """dmin of each row's block, or its float minimum, as float32."""
    tile.factors[1] = value
