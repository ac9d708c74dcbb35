"""Every operation on packed rows gives the same bytes under NumPy and compiled by Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kquant.kernels.compile import compiled
from kquant.kernels.language.dot import BlockDot, Minima, Scales
from kquant.kernels.language.lanes import Rows, as_float
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import (
    bits,
    bits_at,
    gather,
    half_at,
    half_from,
    high_product,
    joined,
    load_bytes,
    load_short,
    nibbles_joined,
    quad,
    signed,
)
from kquant.kernels.language.products import block_from, factor, put_sums, sums_at, tile_at, zero_sums
from kquant.kernels.language.tiles import empty_tile, put_d, put_levels, put_min, put_minima, put_scales
from kquant.kernels.layout import ROWS, tile
from kquant.types import TensorType

pytestmark = pytest.mark.usefixtures("compiled_here")


def no_kernel(block: Rows, tile: Any) -> None:
    """Of a declaration that is never multiplied with."""


def declared(**facts: Any) -> BlockDot:
    partner = facts.pop("partner", TensorType.Q8_0)
    return BlockDot(partner, no_kernel, no_kernel, facts.pop("largest", 255), **facts)


BLOCKS = declared()
SUPER_BLOCKS = declared(partner=TensorType.Q8_K, largest=63, scales=Scales(16, 127))
WITH_MINIMA = declared(partner=TensorType.Q8_K, largest=3, scales=Scales(16, 15), minima=Minima(16, 15))

W = np.random.default_rng(0).integers(0, 256, (ROWS, 64)).astype(np.uint8)
"""Sixteen rows of bytes, every bit at random."""


def levels_of(put: Callable[[Rows, Any], None], w: np.ndarray[Any, Any] = W) -> np.ndarray[Any, Any]:
    """What a kernel puts as levels, in both executions, which must agree: uint8 (16, 32)."""

    @kernel
    def drive(w: Rows, tiles: Rows) -> None:
        put(block_from(w, 0, 0, ROWS), tile_at(tiles, 0, BLOCKS))

    expected = empty_tile(ROWS, BLOCKS)
    put(w, expected)
    found = np.zeros((1, tile(32).itemsize), np.uint8)
    compiled(drive, "R(uint8, 2), uint8[:, ::1]", put.__name__)(w, found)
    levels = found.view(tile(32))["levels"][0, 0].swapaxes(0, 1).reshape(ROWS, 32)
    np.testing.assert_array_equal(levels, expected.levels)
    return expected.levels


# ---------------------------------------------------------------- bytes


@kernel
def put_32(block: Rows, tile: Any) -> None:
    put_levels(tile, 0, load_bytes(block, 3, 32))


def test_bytes_are_loaded_from_any_place() -> None:
    np.testing.assert_array_equal(levels_of(put_32), W[:, 3:35])


@kernel
def put_arithmetic(block: Rows, tile: Any) -> None:
    value = load_bytes(block, 0, 16)
    put_levels(tile, 0, ((value + 200) & 0x7F) | (value << 7))
    put_levels(tile, 16, (value >> 3) - 9)


def test_bytes_keep_their_eight_bits() -> None:
    value = W[:, :16]
    expected = np.concatenate([((value + 200) & 0x7F) | (value << 7), (value >> 3) - 9], 1)
    np.testing.assert_array_equal(levels_of(put_arithmetic), expected.astype(np.uint8))


BITS = [(0, 1), (7, 1), (0, 2), (3, 2), (6, 2), (1, 4), (4, 4), (2, 6), (0, 8)]


@pytest.mark.parametrize(("first", "n"), BITS)
def test_bits(first: int, n: int) -> None:
    @kernel
    def put_bits(block: Rows, tile: Any) -> None:
        put_levels(tile, 0, bits(load_bytes(block, 0, 32), first, n))

    np.testing.assert_array_equal(levels_of(put_bits), (W[:, :32] >> first) & ((1 << n) - 1))


JOINED = [
    *((first, 2, second, 1) for first, second in ((0, 0), (2, 1), (4, 2), (6, 3), (0, 4), (6, 7))),
    *((0, 4, 6, 2), (3, 2, 3, 2), (4, 4, 0, 4)),
]


@pytest.mark.parametrize(("first", "n", "second", "m"), JOINED)
def test_joined(first: int, n: int, second: int, m: int) -> None:
    @kernel
    def put_joined(block: Rows, tile: Any) -> None:
        low, high = load_bytes(block, 0, 32), load_bytes(block, 32, 32)
        put_levels(tile, 0, joined(low, first, n, high, second, m))

    low, high = W[:, :32] >> first & ((1 << n) - 1), W[:, 32:] >> second & ((1 << m) - 1)
    np.testing.assert_array_equal(levels_of(put_joined), low | high << n)


@pytest.mark.parametrize(("first", "second", "m"), [(0, 4, 2), (2, 6, 2), (0, 1, 1), (6, 7, 1), (0, 4, 4)])
@pytest.mark.parametrize("half", [0, 1])
def test_nibbles_joined(first: int, second: int, m: int, half: int) -> None:
    @kernel
    def put_nibbles(block: Rows, tile: Any) -> None:
        both = nibbles_joined(load_bytes(block, 0, 32), load_bytes(block, 32, 32), first, second, m)
        put_levels(tile, 0, both[half])

    low, at = W[:, :32] >> 4 * half & 15, (first, second)[half]
    expected = low | (W[:, 32:] >> at & ((1 << m) - 1)) << 4
    np.testing.assert_array_equal(levels_of(put_nibbles), expected.astype(np.uint8))


@pytest.mark.parametrize("at", [0, 16, 32, 48])
def test_bits_at(at: int) -> None:
    @kernel
    def put_flags(block: Rows, tile: Any) -> None:
        put_levels(tile, 0, bits_at(load_bytes(block, 0, 16), at, 16))
        put_levels(tile, 16, load_bytes(block, 0, 16))

    flags = np.unpackbits(W[:, at // 8 : at // 8 + 2], axis=1, bitorder="little") * np.uint8(16)
    np.testing.assert_array_equal(levels_of(put_flags)[:, :16], flags)


@kernel
def put_digits(block: Rows, tile: Any) -> None:
    value = load_bytes(block, 0, 16)
    put_levels(tile, 0, high_product(value, 3))
    put_levels(tile, 16, high_product(value * 81, 3))


def test_digits_to_the_base_three() -> None:
    """As TQ1_0 keeps them: a byte is a fraction, and each digit what a product with three carries over."""
    value = W[:, :16].astype(np.int32)
    expected = np.concatenate([value * 3 >> 8, (value * 81 & 255) * 3 >> 8], 1)
    np.testing.assert_array_equal(levels_of(put_digits), expected)


GRID = np.random.default_rng(1).integers(0, 256, (1024, 4)).astype(np.uint8)


@kernel
def put_gathered(block: Rows, tile: Any) -> None:
    low, high = load_bytes(block, 0, 16), load_bytes(block, 16, 16) & 3
    put_levels(tile, 0, gather(GRID, quad(low, 1), quad(high, 3)))
    put_levels(tile, 16, gather(GRID, quad(low, 0), quad(high, 0)))


def test_rows_of_a_grid() -> None:
    low, high = W[:, :16].astype(np.int32), W[:, 16:32].astype(np.int32) & 3
    index = np.concatenate([low[:, 4:8] + 256 * high[:, 12:], low[:, :4] + 256 * high[:, :4]], 1)
    np.testing.assert_array_equal(levels_of(put_gathered), GRID[index].reshape(ROWS, 32))


# ---------------------------------------------------------------- numbers


HALVES = np.concatenate([np.arange(65536, dtype="<u2")]).reshape(-1, ROWS, 1).view(np.uint8)


@kernel
def read_halves(w: Rows, tiles: Rows, out: Rows) -> None:
    block, tile = block_from(w, 0, 0, ROWS), tile_at(tiles, 0, BLOCKS)
    put_d(tile, half_from(block, 2))
    put_min(tile, half_at(load_bytes(block, 0, 4), 2))
    total = zero_sums(sums_at(out, 0, 2))
    put_sums(out, 0, total + factor(tile, 0))
    put_sums(out, 1, zero_sums(sums_at(out, 1, 1)) + factor(tile, 1))


def test_every_half() -> None:
    run = compiled(read_halves, "R(uint8, 2), uint8[:, ::1], float32[:, ::1]", "read_halves")
    memory, out = np.empty((1, tile(32).itemsize), np.uint8), np.empty((3, ROWS), np.float32)
    for some in HALVES[::37]:
        w = np.concatenate([W[:, :2], some, W[:, :12]], 1)
        run(w, memory, out)
        with np.errstate(all="ignore"):
            expected = w[:, 2:4].copy().view("<f2").astype(np.float32)[:, 0] + np.float32(0)
        np.testing.assert_array_equal(out[0], expected)
        np.testing.assert_array_equal(out[1], expected)


@kernel
def read_shorts(w: Rows, tiles: Any, out: Rows) -> None:
    block, tile = block_from(w, 0, 0, ROWS), tile_at(tiles, 0, BLOCKS)
    put_d(tile, as_float(load_short(block, 1)))
    put_sums(out, 0, zero_sums(sums_at(out, 0, 1)) + factor(tile, 0))


def test_shorts() -> None:
    """Of two bytes at any place, low byte first, and never negative."""
    run = compiled(read_shorts, "R(uint8, 2), uint8[:, ::1], float32[:, ::1]", "read_shorts")
    memory, found, expected = np.empty((1, tile(32).itemsize), np.uint8), *np.empty((2, 1, ROWS), np.float32)
    run(W, memory, found)
    tiles: Any = [empty_tile(ROWS, BLOCKS)]
    read_shorts(W, tiles, expected)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[0], W[:, 1] + 256 * W[:, 2].astype(np.int64))
    assert found.max() > 32767


@kernel
def keep_minima(w: Rows, tiles: Any) -> None:
    block, tile = block_from(w, 0, 0, ROWS), tile_at(tiles, 0, WITH_MINIMA)
    head = load_bytes(block, 0, 16)
    put_minima(tile, quad(head, 2), quad(head, 0), quad(head, 3), quad(head, 1))


def test_minima() -> None:
    expected, found = empty_tile(ROWS, WITH_MINIMA), np.zeros((1, tile(256).itemsize), np.uint8)
    tiles: Any = [expected]
    keep_minima(W, tiles)
    compiled(keep_minima, "R(uint8, 2), uint8[:, ::1]", "keep_minima")(W, found)
    minima = found.view(tile(256))["minima"][0, 0].swapaxes(0, 1).reshape(ROWS, 16)
    np.testing.assert_array_equal(minima.T, expected.minima)
    order = [8, 9, 10, 11, 0, 1, 2, 3, 12, 13, 14, 15, 4, 5, 6, 7]
    np.testing.assert_array_equal(expected.minima, W[:, order].T)


@kernel
def keep_scales(w: Rows, tiles: Rows) -> None:
    block, tile = block_from(w, 0, 0, ROWS), tile_at(tiles, 0, SUPER_BLOCKS)
    head = load_bytes(block, 0, 16)
    put_scales(tile, quad(head, 3), quad(head, 2), quad(head, 1), quad(head, 0))


@kernel
def keep_signed_scales(w: Rows, tiles: Rows) -> None:
    block, tile = block_from(w, 0, 0, ROWS), tile_at(tiles, 0, SUPER_BLOCKS)
    put_scales(tile, signed(load_bytes(block, 0, 16)))


@pytest.mark.parametrize("keep", [keep_scales, keep_signed_scales])
def test_scales(keep: Callable[[Rows, Any], None]) -> None:
    expected, found = empty_tile(ROWS, SUPER_BLOCKS), np.zeros((1, tile(256).itemsize), np.uint8)
    keep(W, [expected])
    compiled(keep, "R(uint8, 2), uint8[:, ::1]", keep.__name__)(W, found)
    np.testing.assert_array_equal(found.view(tile(256))["scales"][0, 0], expected.scales)
    bytes_ = (
        W[:, [12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3]] if keep is keep_scales else W[:, :16]
    )
    values = bytes_.astype(np.int32) if keep is keep_scales else bytes_.view(np.int8).astype(np.int32)
    np.testing.assert_array_equal(expected.scales, values.T)


# ---------------------------------------------------------------- declarations


@pytest.mark.parametrize(
    "facts",
    [
        {"largest": 256},
        {"zero_point": 12},
        {"partner": TensorType.Q8_K},
        {"scales": Scales(16, 15)},
        {"minima": Minima(16, 15)},
        {"offset": True},
    ],
)
def test_a_declaration_that_no_lowering_fits_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        declared(**facts)
