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

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw, spread, squeeze
from kquant.formats.k.symmetric_block import largest_scale, requantize
from kquant.formats.scale_search import GROUP_MAX_EPS, ONE, ZERO, symmetric_levels, symmetric_search
from kquant.kernels.execute import BlockDecoder, Search, WeightedSearch
from kquant.kernels.language.dot import BlockDot, Scales
from kquant.kernels.language.lanes import (
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
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import half_from, load_bytes, nibbles_joined, signed
from kquant.kernels.language.tiles import Tile, put_d, put_levels, put_scales
from kquant.types import TensorType

TYPE = TensorType.Q6_K
LAYOUT = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
QL, QH, SCALES, D = offsets(LAYOUT, TYPE)
NMAX = np.float32(32)


def unpack(data: Bytes) -> Fields:
    """d: float16 (...); sc: int8 (..., 16); q: uint8 (..., 256), zero point 32."""
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
    scale, inverse = symmetric_search(x, 16 * j, 16, w, NMAX, wx, True)
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


@kernel
def unpack_scales(block: Rows, tile: Tile) -> None:
    put_d(tile, half_from(block, D))


@kernel
def unpack_levels(block: Rows, tile: Tile) -> None:
    put_scales(tile, signed(load_bytes(block, SCALES, 16)))
    put_half(tile, 0, load_bytes(block, QL, 32), load_bytes(block, QL + 32, 32), load_bytes(block, QH, 32))
    first, second = load_bytes(block, QL + 64, 32), load_bytes(block, QL + 96, 32)
    put_half(tile, 128, first, second, load_bytes(block, QH + 32, 32))


@kernel
def put_half(tile: Tile, at: int, even: Lanes, odd: Lanes, high: Lanes) -> None:
    a, c = nibbles_joined(even, high, 0, 4, 2)
    b, d = nibbles_joined(odd, high, 2, 6, 2)
    put_levels(tile, at, a)
    put_levels(tile, at + 32, b)
    put_levels(tile, at + 64, c)
    put_levels(tile, at + 96, d)


FORMAT = BlockFormat(
    __doc__,
    TYPE,
    LAYOUT,
    unpack,
    pack,
    decoder=BlockDecoder(dequantize),
    quantizer=Search(quantize),
    weighted=WeightedSearch(quantize_weighted),
    dot=BlockDot(
        TensorType.Q8_K,
        unpack_scales,
        unpack_levels,
        largest=63,
        zero_point=32,
        scales=Scales(16, 128, signed=True, with_levels=True),
    ),
)
