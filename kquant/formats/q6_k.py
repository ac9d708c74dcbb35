"""Q6_K: 6.5625 bits per element; a super-block of 16 sub-blocks of 16.

    x = d * sc[j] * (q - 32)                   q 6 bits, sc a signed byte, d fp16

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      128   ql      ``CCCCAAAA``  bits 0-3; 64 bytes for each 128 elements, the first 32 of them:
                                   A = q[128k + l], C = q[128k + 64 + l]
                     ``DDDDBBBB``  the other 32: B = q[128k + 32 + l], D = q[128k + 96 + l]
128    64    qh      ``ddccbbaa``  bits 4-5 of the same four, 32 bytes for each 128 elements
192    16    scales  ``SSSSSSSS``  sc[j], two's complement
208    2     d       fp16
====== ===== ======= ==========================================================================

Source: `block_q6_K` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
"""

from __future__ import annotations

import numpy as np

from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw, spread, squeeze
from kquant.formats.k_dot import add_symmetric, put_scales
from kquant.formats.scale_search import GROUP_MAX_EPS, ONE, ZERO, symmetric_levels, symmetric_search
from kquant.formats.symmetric_block import largest_scale, requantize
from kquant.kernels.lanes import (
    Lanes,
    Rows,
    as_float,
    as_int,
    load,
    load_half,
    load_run,
    load_run_signed,
    nearest_int,
    run_half,
    smaller,
    store,
    store_half,
    store_run,
    where,
)
from kquant.kernels.mark import kernel
from kquant.kernels.products import Tile, half_at, load_bytes, put_bytes, put_factor, put_pair, quad, signed
from kquant.types import TensorType

TYPE = TensorType.Q6_K
VEC_DOT_TYPE = TensorType.Q8_K
LAYOUT = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
QL, QH, SCALES, D = offsets(LAYOUT, TYPE)
WHOLE_ROW = False
NMAX = np.float32(32)


def unpack(data: Bytes) -> Fields:
    """d: float16 (...); sc: int8 (..., 16); q: uint8 (..., 256), 32 too large."""
    blocks = blocks_of(data, LAYOUT)
    q = spread(blocks["ql"], 4, 64) | spread(blocks["qh"], 2, 32) << 4
    return {"d": blocks["d"], "sc": blocks["scales"], "q": q}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    blocks = np.empty(fields["d"].shape, LAYOUT)
    blocks["d"], blocks["scales"] = fields["d"], fields["sc"]
    blocks["ql"] = squeeze(fields["q"] & 15, 4, 64)
    blocks["qh"] = squeeze(fields["q"] >> 4, 2, 32)
    return raw(blocks)


@kernel
def dequantize(block: Rows, y: Rows) -> None:
    d = run_half(block, D)
    for j in range(16):
        k, half = j // 8, 16 * (j % 2)
        low = load_run(block, QL + 64 * k + 32 * (j // 2 % 2) + half, 16) >> (j % 8 // 4 * 4)
        high = load_run(block, QH + 32 * k + half, 16) >> (j % 8 // 2 * 2)
        step = d * as_float(load_run_signed(block, SCALES + j, 1))
        store_run(y, 16 * j, step * as_float(((low & 15) | ((high & 3) << 4)) - 32))


@kernel
def quantize(x: Rows, block: Rows) -> None:
    levels = np.empty((256, x.shape[1]), np.float32)
    scales = np.empty((16, x.shape[1]), np.float32)
    w = np.empty_like(scales)
    for j in range(16):
        for i in range(16):
            store(w, i, load(x, 16 * j + i) * load(x, 16 * j + i))
        search(x, j, w, scales, levels)
    finish(x, scales, levels, block)


@kernel
def quantize_weighted(x: Rows, weights: Rows, row_mean: Rows, block: Rows) -> None:
    levels = np.empty((256, x.shape[1]), np.float32)
    scales = np.empty((16, x.shape[1]), np.float32)
    for j in range(16):
        search(x, j, weights[16 * j : 16 * j + 16], scales, levels)
    finish(x, scales, levels, block)


@kernel
def search(x: Rows, j: int, w: Rows, scales: Rows, levels: Rows) -> None:
    wx = np.empty((16, x.shape[1]), np.float32)
    scale, inverse = symmetric_search(x, 16 * j, 16, w, NMAX, wx)
    store(scales, j, scale)
    symmetric_levels(x, 16 * j, 16, inverse, NMAX, levels[16 * j : 16 * j + 16])


@kernel
def finish(x: Rows, scales: Rows, levels: Rows, block: Rows) -> None:
    """Scales as signed bytes, then the levels for them, packed.  Without a scale all is zero."""
    extreme, magnitude = largest_scale(scales)
    blank = magnitude < GROUP_MAX_EPS
    inverse = np.float32(-128) / where(blank, ONE, extreme)
    store_half(block, D, where(blank, ZERO, ONE / inverse))
    d = load_half(block, D)
    for j in range(16):
        sc = smaller(nearest_int(inverse * load(scales, j)), np.float32(127))
        sc = where(blank, ZERO, sc)
        store(block, SCALES + j, as_int(sc))
        requantize(x, j, NMAX, d * sc, levels)
    mask = as_int(where(blank, ZERO, np.float32(63)))
    for k in range(2):
        for i in range(32):
            at = 128 * k + i
            q0, q1 = as_int(load(levels, at)) & mask, as_int(load(levels, at + 32)) & mask
            q2, q3 = as_int(load(levels, at + 64)) & mask, as_int(load(levels, at + 96)) & mask
            store(block, QL + 64 * k + i, (q0 & 15) | ((q2 & 15) << 4))
            store(block, QL + 64 * k + 32 + i, (q1 & 15) | ((q3 & 15) << 4))
            high = (q0 >> 4) | ((q1 >> 4) << 2) | ((q2 >> 4) << 4) | ((q3 >> 4) << 6)
            store(block, QH + 32 * k + i, high)


add = add_symmetric


@kernel
def unpack_rows(block: Rows, tile: Tile) -> None:
    sc, d = signed(load_bytes(block, SCALES)), half_at(load_bytes(block, D - 14), 14)
    put_half(block, 0, tile)
    put_half(block, 1, tile)
    put_factor(tile, 0, d)
    for_four(quad(sc, 0), 0, tile)
    for_four(quad(sc, 1), 4, tile)
    for_four(quad(sc, 2), 8, tile)
    for_four(quad(sc, 3), 12, tile)


@kernel
def put_half(block: Rows, k: int, tile: Tile) -> None:
    """128 elements; all their bytes are read before any is written, for which processors wait."""
    low0, low1 = load_bytes(block, QL + 64 * k), load_bytes(block, QL + 64 * k + 16)
    low2, low3 = load_bytes(block, QL + 64 * k + 32), load_bytes(block, QL + 64 * k + 48)
    high0, high1 = load_bytes(block, QH + 32 * k), load_bytes(block, QH + 32 * k + 16)
    put_levels(low0, low2, high0, 128 * k, tile)
    put_levels(low1, low3, high1, 128 * k + 16, tile)


@kernel
def put_levels(even: Lanes, odd: Lanes, high: Lanes, at: int, tile: Tile) -> None:
    """16 elements from `at` on, and 32, 64 and 96 further."""
    put_bytes(tile, at, (even & 15) | ((high & 3) << 4))
    put_bytes(tile, at + 32, (odd & 15) | ((high & 12) << 2))
    put_bytes(tile, at + 64, (even >> 4) | (high & 48))
    put_bytes(tile, at + 96, (odd >> 4) | ((high >> 2) & 48))


@kernel
def for_four(sc: Lanes, j: int, tile: Tile) -> None:
    """The scales from j on; levels are stored 32 too large."""
    put_scales(tile, j, sc)
    put_pair(tile, j // 2, sc, 0, 1, 5)
    put_pair(tile, j // 2 + 1, sc, 2, 3, 5)
