"""What Python lays out is what compiled code reads: one dtype says where each field is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kquant.kernels.compile import compiled, group_size
from kquant.kernels.language.dot import BlockDot, Minima, Scales
from kquant.kernels.language.lanes import Rows, as_float
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.products import (
    column_factor,
    columns_at,
    factor,
    integer_sums,
    minima_sums,
    put_sums,
    sums_at,
    tile_at,
    zero_sums,
)
from kquant.kernels.layout import (
    CENTER,
    MIDDLE,
    ROWS,
    at,
    block_of_column,
    group_of_blocks,
    lanes_of_column,
    tile,
)
from kquant.types import TensorType

pytestmark = pytest.mark.usefixtures("compiled_here")


def no_kernel(block: Rows, tile: Any) -> None:
    """Of a declaration whose tiles the tests fill."""


AFFINE = BlockDot(TensorType.Q8_K, no_kernel, no_kernel, 15, scales=Scales(32, 63), minima=Minima(32, 63))
CENTERED = BlockDot(TensorType.Q8_K, no_kernel, no_kernel, 63, 32, scales=Scales(16, 128, signed=True))
SMALL = BlockDot(TensorType.Q8_0, no_kernel, no_kernel, 31, 16)
RNG = np.random.default_rng(0)


def filled(record: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, (*shape, record.itemsize)).astype(np.uint8).view(record)[..., 0]


def columns_of(block_size: int, n: int) -> np.ndarray[Any, Any]:
    """One block of activations of each of n columns, every field true."""
    columns = filled(block_of_column(block_size), (1, n))
    columns["factors"] = RNG.standard_normal((1, n, 2))
    q = columns["q"].astype(np.int32)
    if block_size == 32:
        columns["negative"] = -q.sum(-1)
        return columns
    sums = q.reshape(1, n, 16, 16).sum(-1)
    both = np.concatenate([sums, sums.reshape(1, n, 8, 2).sum(-1)], -1)
    columns["sums"] = sums.reshape(1, n, 8, 2)
    columns["high"], columns["low"] = both >> 7, both & 127
    columns["centers"] = np.concatenate([-CENTER * sums, -MIDDLE * sums.sum(-1, keepdims=True)], -1)
    return columns


def run(drive: Any, dot: BlockDot, tiles: np.ndarray[Any, Any], n: int) -> tuple[Any, ...]:
    """Compiled, with one tile and n columns: the columns, and float32 (n + 1, 16)."""
    columns, out = columns_of(dot.partner.block_size, n), np.empty((n + 1, ROWS), np.float32)
    signature = "uint8[:, ::1], R(uint8, 3), float32[:, ::1]"
    bytes_ = columns.view(np.uint8).reshape(1, n, -1)
    compiled(drive, signature, drive.__name__)(tiles.view(np.uint8).reshape(1, -1), bytes_, out)
    return columns[0], out


def test_a_tile_of_a_super_block_and_its_columns() -> None:
    @kernel
    def affine(tiles: Rows, columns: Rows, out: Rows) -> None:
        some, block, unit = tile_at(tiles, 0, AFFINE), columns_at(columns, 0), sums_at(out, 0, 2)
        total = as_float(integer_sums(unit, some, block, 0)) * factor(some, 0)
        minima = as_float(minima_sums(unit, some, block, 0)) * factor(some, 1)
        put_sums(out, 0, zero_sums(unit) + total * column_factor(unit, some, block, 0, 0) + minima)

    tiles = filled(tile(256), (1,))
    tiles["levels"] &= 15
    tiles["scales"] = RNG.integers(0, 64, tiles["scales"].shape)
    tiles["minima"] &= 63
    tiles["factors"] = RNG.standard_normal(tiles["factors"].shape)
    columns, out = run(affine, AFFINE, tiles, 2)
    levels = tiles["levels"][0].swapaxes(0, 1).reshape(ROWS, 8, 32).astype(np.int32)
    minima = tiles["minima"][0, :2].swapaxes(0, 1).reshape(ROWS, 8).astype(np.int32)
    for c, column in enumerate(columns):
        q = column["q"].reshape(8, 32).astype(np.int32)
        total = np.einsum("rji,ji,jr->r", levels, q, tiles["scales"][0, :8]).astype(np.float32)
        by_minima = (minima @ q.sum(1)).astype(np.float32) * tiles["factors"][0, 1]
        expected = total * tiles["factors"][0, 0] * column["factors"][0] + by_minima
        np.testing.assert_array_equal(out[c], expected)


def test_centers_or_pairs() -> None:
    @kernel
    def centered(tiles: Rows, columns: Rows, out: Rows) -> None:
        some, block, unit = tile_at(tiles, 0, CENTERED), columns_at(columns, 0), sums_at(out, 0, 1)
        put_sums(out, 0, as_float(integer_sums(unit, some, block, 0)))

    tiles = filled(tile(256), (1,))
    tiles["levels"] &= 63
    scales = tiles["scales"][0] = RNG.integers(-128, 128, (16, ROWS))
    tiles["pairs"][0] = 32 * scales.reshape(8, 2, ROWS).swapaxes(1, 2)
    columns, out = run(centered, CENTERED, tiles, 1)
    levels = tiles["levels"][0].swapaxes(0, 1).reshape(ROWS, 16, 16).astype(np.int32) - 32
    q = columns[0]["q"].reshape(16, 16).astype(np.int32)
    np.testing.assert_array_equal(out[0], np.einsum("rji,ji,jr->r", levels, q, scales))


def test_a_tile_of_a_block_of_32_and_its_columns() -> None:
    @kernel
    def small(tiles: Rows, columns: Rows, out: Rows) -> None:
        some, block, unit = tile_at(tiles, 0, SMALL), columns_at(columns, 0), sums_at(out, 0, 1)
        total = as_float(integer_sums(unit, some, block, 1))
        put_sums(out, 0, total + column_factor(unit, some, block, 1, 1))

    tiles = filled(tile(32), (1,))
    tiles["levels"] &= 31
    columns, out = run(small, SMALL, tiles, 2)
    levels = tiles["levels"][0].swapaxes(0, 1).reshape(ROWS, 32).astype(np.int32) - 16
    total = (levels @ columns[1]["q"].astype(np.int32)).astype(np.float32)
    np.testing.assert_array_equal(out[0], total + columns[1]["factors"][1])


def test_records_are_as_large_as_their_fields() -> None:
    """Nothing is padded, so that records lie side by side, and registers within a line of the cache."""
    assert block_of_column(32).itemsize == 32 + 4 + 8
    assert block_of_column(256).itemsize == 256 + 32 + 2 * 24 + 8 + 4 * 17
    assert group_of_blocks(1).itemsize == 256 + 32
    assert group_of_blocks(2).itemsize == 2 * (256 + 32)
    assert lanes_of_column().itemsize % 64 == 0
    for size in (32, 256):
        names = tile(size).names or ()
        assert all(at(tile(size), name) % 64 == 0 for name in names)
        assert at(tile(size), "products") == at(tile(size), "levels")
    assert group_size() in (0, 1, 2)
