"""What Q2_K, Q4_K and Q5_K share: a scale and a minimum for each sub-block, x = d * sc * q - dmin * m."""

from __future__ import annotations

import numpy as np

from kquant.formats.fields import Bytes
from kquant.formats.scale_search import ZERO, affine_levels, affine_search, clamp
from kquant.kernels.language.lanes import (
    Lanes,
    Rows,
    as_int,
    larger,
    load,
    load_run,
    nearest_int,
    nearest_quotient,
    smaller,
    store,
    where,
    zeros,
)
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import half_at, load_bytes, quad
from kquant.kernels.language.tiles import Tile, put_d, put_min, put_minima, put_scales

f32 = np.float32
SIXTY_THREE = f32(63)
SCALES = 4
"""Where Q4_K and Q5_K keep their 12 bytes of 6-bit scales and minima."""


@kernel
def remember(found: Rows, j: int, result: tuple[Lanes, Lanes, Lanes, Lanes]) -> None:
    """found: (4, sub-blocks, lanes) flattened: scales, minima, and the trial behind their levels."""
    n = found.shape[0] // 4
    store(found, j, result[0])
    store(found, n + j, result[1])
    store(found, 2 * n + j, result[2])
    store(found, 3 * n + j, result[3])


@kernel
def search_32(x: Rows, nmax: f32, rmin: f32, nstep: int, levels: Rows, found: Rows) -> tuple[Lanes, Lanes]:
    """Eight sub-blocks of 32, weighted with root mean square + |x|; the largest scale and minimum."""
    w = np.empty((32, x.shape[1]), np.float32)
    max_scale = zeros(x)
    max_min = zeros(x)
    for j in range(8):
        mean = zeros(x)
        for i in range(32 * j, 32 * j + 32):
            mean = mean + load(x, i) * load(x, i)
        mean = np.sqrt(mean / f32(32))
        for i in range(32):
            store(w, i, mean + np.abs(load(x, 32 * j + i)))
        result = affine_search(x, 32 * j, 32, w, nmax, rmin, f32(0.1), nstep, False, levels)
        remember(found, j, result)
        max_scale = larger(result[0], max_scale)
        max_min = larger(result[1], max_min)
    return max_scale, max_min


@kernel
def search_weighted(
    x: Rows, weights: Rows, n: int, nmax: f32, power: f32, levels: Rows, found: Rows, sums: Rows
) -> None:
    """256 / n sub-blocks with importance weights; `sums` receives the sum of each one's weights.

    The weight of x is its importance times sqrt(power * mean square of the super-block + x**2).
    """
    w = np.empty((n, x.shape[1]), np.float32)
    total = zeros(x)
    for i in range(256):
        total = total + load(x, i) * load(x, i)
    mean = power * total / f32(256)
    for j in range(256 // n):
        total = zeros(x)
        for i in range(n):
            xi = load(x, n * j + i)
            wi = load(weights, n * j + i) * np.sqrt(mean + xi * xi)
            store(w, i, wi)
            total = total + wi
        store(sums, j, total)
        remember(found, j, affine_search(x, n * j, n, w, nmax, f32(-0.9), f32(0.05), 36, False, levels))


@kernel
def requantize(
    x: Rows, j: int, n: int, nmax: f32, step: Lanes, offset: Lanes, found: Rows, levels: Rows
) -> None:
    """The final levels of sub-block j, for its rounded scale and minimum: x = step * level - offset.

    They go to rows n * j .. of `levels`.  A sub-block whose rounded scale is zero keeps the levels of
    the search.
    """
    lowest, highest = zeros(x), zeros(x) + nmax
    here = levels[n * j : n * j + n]
    dead = step == ZERO
    if np.all(~dead):
        for i in range(n):
            store(here, i, clamp(nearest_quotient(load(x, n * j + i) + offset, step), lowest, highest))
    else:
        count = found.shape[0] // 4
        affine_levels(x, n * j, n, load(found, 2 * count + j), load(found, 3 * count + j), nmax, here)
        for i in range(n):
            level = clamp(nearest_quotient(load(x, n * j + i) + offset, step), lowest, highest)
            store(here, i, where(dead, load(here, i), level))


# ---------------------------------------------------------------- the 6-bit scales of Q4_K and Q5_K


@kernel
def round_6_bits(value: Lanes, highest: Lanes) -> Lanes:
    """63 * value / highest as an integer 0 .. 63; ggml's cast to a byte wraps a negative one."""
    inverse = where(highest > ZERO, SIXTY_THREE / highest, ZERO)
    return smaller(as_int(nearest_int(inverse * value)) & 255, 63)


@kernel
def store_scale_min(block: Rows, j: int, sc: Lanes, m: Lanes) -> None:
    """Scale and minimum j, in the order of j: the last four borrow the high bits of the first eight bytes."""
    if j < 4:
        store(block, SCALES + j, sc)
        store(block, SCALES + 4 + j, m)
    else:
        store(block, SCALES + 4 + j, (sc & 15) | ((m & 15) << 4))
        store(block, SCALES - 4 + j, load(block, SCALES - 4 + j) | ((sc >> 4) << 6))
        store(block, SCALES + j, load(block, SCALES + j) | ((m >> 4) << 6))


@kernel
def join_scale_min(j: int, a: Lanes, b: Lanes, c: Lanes) -> tuple[Lanes, Lanes]:
    """Scale and minimum j out of the bytes j % 4, 4 + j % 4 and 4 + j of the twelve."""
    if j < 4:
        sc, m = a & 63, b & 63
    else:
        sc, m = (c & 15) | ((a >> 6) << 4), (c >> 4) | ((b >> 6) << 4)
    return sc, m


@kernel
def load_scale_min(block: Rows, j: int) -> tuple[Lanes, Lanes]:
    """Scale and minimum j, in every lane."""
    at = SCALES + j % 4
    return join_scale_min(j, load(block, at), load(block, at + 4), load(block, SCALES + 4 + j))


@kernel
def run_scale_min(block: Rows, j: int) -> tuple[Lanes, Lanes]:
    """Scale and minimum j of one block."""
    at = SCALES + j % 4
    a, b, c = load_run(block, at, 1), load_run(block, at + 4, 1), load_run(block, SCALES + 4 + j, 1)
    return join_scale_min(j, a, b, c)


def unpack_scale_min(scales: Bytes) -> tuple[Bytes, Bytes]:
    """uint8 (..., 12) -> scales and minima, uint8 (..., 8)."""
    a, b, c = scales[..., 0:4], scales[..., 4:8], scales[..., 8:12]
    sc = np.concatenate([a & 63, (c & 15) | ((a >> 6) << 4)], axis=-1)
    m = np.concatenate([b & 63, (c >> 4) | ((b >> 6) << 4)], axis=-1)
    return sc, m


def pack_scale_min(sc: Bytes, m: Bytes) -> Bytes:
    """The inverse of `unpack_scale_min`."""
    a = (sc[..., :4] & 63) | ((sc[..., 4:] >> 4) << 6)
    b = (m[..., :4] & 63) | ((m[..., 4:] >> 4) << 6)
    return np.concatenate([a, b, (sc[..., 4:] & 15) | ((m[..., 4:] & 15) << 4)], axis=-1)


@kernel
def put_scales_and_minima(block: Rows, tile: Tile) -> None:
    """The first 16 bytes of Q4_K and Q5_K: d, dmin, and the 6-bit scales and minima."""
    head = load_bytes(block, 0, 16)
    put_d(tile, half_at(head, 0))
    put_min(tile, half_at(head, 2))
    first, second, third = quad(head, 1), quad(head, 2), quad(head, 3)
    put_scales(tile, first & 63, (third & 15) | ((first >> 6) << 4))
    put_minima(tile, second & 63, (third >> 4) | ((second >> 6) << 4))
