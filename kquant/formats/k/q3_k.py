"""Q3_K: 3.4375 bits per element; a super-block of 16 sub-blocks of 16.

    x = d * (sc[j] - 32) * (q - 4)             q 3 bits, sc 6 bits, d fp16

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      32    hmask   ``hgfedcba``  bit 2 of q[l], q[32 + l], ... q[224 + l]
32     64    qs      ``DDCCBBAA``  bits 0-1, 32 bytes for each 128 elements: A = q[128k + l],
                                   B = q[128k + 32 + l], C = q[128k + 64 + l], D = q[128k + 96 + l]
96     8     scales  ``TTTTSSSS``  bits 0-3 of sc[j] and of sc[8 + j], j = 0..7
104    4             ``ddccbbaa``  bits 4-5 of sc[j], sc[4 + j], sc[8 + j], sc[12 + j], j = 0..3
108    2     d       fp16
====== ===== ======= ==========================================================================

Source: `block_q3_K` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
"""

from __future__ import annotations

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw, spread, squeeze
from kquant.formats.k.coordinate_search import coordinate_search
from kquant.formats.k.symmetric_block import largest_scale, requantize
from kquant.formats.scale_search import (
    ONE,
    ZERO,
    all_finite,
    clamp,
    symmetric_levels,
    symmetric_search,
)
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
    nearest_int,
    run_half,
    store,
    store_half,
    store_run,
    where,
    zeros,
)
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import half_from, joined, load_bytes, quad, signed
from kquant.kernels.language.tiles import Tile, put_d, put_levels, put_scales
from kquant.types import TensorType

TYPE = TensorType.Q3_K
LAYOUT = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])
HMASK, QS, SCALES, D = offsets(LAYOUT, TYPE)
NMAX = np.float32(4)
SC_MAX = np.float32(32)


def unpack(data: Bytes) -> Fields:
    """d: float16 (...); sc: uint8 (..., 16), zero point 32; q: uint8 (..., 256), zero point 4."""
    blocks = blocks_of(data, LAYOUT)
    scales = blocks["scales"]
    sc = spread(scales[..., :8], 4, 8) | spread(scales[..., 8:], 2, 4) << 4
    q = spread(blocks["qs"], 2, 32) | spread(blocks["hmask"], 1, 32) << 2
    return {"d": blocks["d"], "sc": sc, "q": q}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    blocks = np.empty(fields["d"].shape, LAYOUT)
    sc, q = fields["sc"], fields["q"]
    blocks["d"] = fields["d"]
    blocks["scales"] = np.concatenate([squeeze(sc & 15, 4, 8), squeeze(sc >> 4, 2, 4)], axis=-1)
    blocks["hmask"] = squeeze(q >> 2, 1, 32)
    blocks["qs"] = squeeze(q & 3, 2, 32)
    return raw(blocks)


@kernel
def dequantize(block: Rows, y: Rows) -> None:
    d = run_half(block, D)
    for j in range(16):
        low = load_run(block, SCALES + j % 8, 1) >> (j // 8 * 4)
        high = load_run(block, SCALES + 8 + j % 4, 1) >> (j // 4 * 2)
        sc = ((low & 15) | ((high & 3) << 4)) - 32
        q = (load_run(block, QS + 32 * (j // 8) + 16 * (j % 2), 16) >> (j % 8 // 2 * 2)) & 3
        bit = (load_run(block, HMASK + 16 * (j % 2), 16) >> (j // 2)) & 1
        store_run(y, 16 * j, d * as_float(sc) * as_float((q | (bit << 2)) - 4))


@kernel
def quantize(x: Rows, block: Rows) -> None:
    levels = np.empty((256, x.shape[1]), np.float32)
    scales = np.empty((16, x.shape[1]), np.float32)
    for j in range(16):
        here = slice(16 * j, 16 * j + 16)
        store(scales, j, coordinate_search(x[here], NMAX, levels[here]))
    extreme, _ = largest_scale(scales)
    empty = extreme == ZERO
    inverse = -SC_MAX / where(empty, ONE, extreme)
    store_half(block, D, where(empty, ZERO, ONE / inverse))
    for j in range(16):
        sc = clamp(nearest_int(inverse * load(scales, j)), -SC_MAX, SC_MAX - ONE) + SC_MAX
        store_scale(block, j, as_int(where(empty, ZERO, sc)))
    finish(x, levels, block)


@kernel
def quantize_weighted(x: Rows, weights: Rows, row_mean: Rows, block: Rows) -> None:
    levels = np.empty((256, x.shape[1]), np.float32)
    scales = np.empty((16, x.shape[1]), np.float32)
    sums, w, wx = np.empty_like(scales), np.empty_like(scales), np.empty_like(scales)
    total = zeros(x)
    for i in range(256):
        total = total + load(x, i) * load(x, i)
    mean = np.float32(2) * total / np.float32(256)
    for j in range(16):
        total = zeros(x)
        for i in range(16):
            xi = load(x, 16 * j + i)
            wi = load(weights, 16 * j + i) * np.sqrt(mean + xi * xi)
            store(w, i, wi)
            total = total + wi
        store(sums, j, total)
        scale, inverse = symmetric_search(x, 16 * j, 16, w, NMAX, wx, True)
        store(scales, j, scale)
        symmetric_levels(x, 16 * j, 16, inverse, NMAX, levels[16 * j : 16 * j + 16])
    scale, inverse = symmetric_search(scales, 0, 16, sums, SC_MAX, wx, all_finite(scales))
    store_half(block, D, scale)
    symmetric_levels(scales, 0, 16, inverse, SC_MAX, w)
    for j in range(16):
        store_scale(block, j, as_int(load(w, j)))
    finish(x, levels, block)


@kernel
def store_scale(block: Rows, j: int, sc: Lanes) -> None:
    """Scale j, in the order of j."""
    low, high = SCALES + j % 8, SCALES + 8 + j % 4
    store(block, low, sc & 15 if j < 8 else load(block, low) | ((sc & 15) << 4))
    store(block, high, sc >> 4 if j < 4 else load(block, high) | ((sc >> 4) << (j // 4 * 2)))


@kernel
def load_scale(block: Rows, j: int) -> Lanes:
    low = load(block, SCALES + j % 8) >> (j // 8 * 4)
    high = load(block, SCALES + 8 + j % 4) >> (j // 4 * 2)
    return ((low & 15) | ((high & 3) << 4)) - 32


@kernel
def finish(x: Rows, levels: Rows, block: Rows) -> None:
    """Levels for the rounded scales, packed."""
    d = load_half(block, D)
    for j in range(16):
        requantize(x, j, NMAX, d * as_float(load_scale(block, j)), levels)
    for i in range(32):
        mask = as_int(zeros(x))
        for k in range(2):
            q = as_int(zeros(x))
            for part in range(4):
                level = as_int(load(levels, 128 * k + 32 * part + i))
                q = q | ((level & 3) << (2 * part))
                mask = mask | ((level >> 2) << (4 * k + part))
            store(block, QS + 32 * k + i, q)
        store(block, HMASK + i, mask)


@kernel
def unpack_scales(block: Rows, tile: Tile) -> None:
    put_d(tile, half_from(block, D))
    tail = load_bytes(block, SCALES - 4, 16)
    low, other, high = quad(tail, 1), quad(tail, 2), quad(tail, 3)
    first = signed(((low & 15) | ((high & 3) << 4)) - 32)
    second = signed(((other & 15) | (((high >> 2) & 3) << 4)) - 32)
    third = signed(((low >> 4) | (((high >> 4) & 3) << 4)) - 32)
    fourth = signed(((other >> 4) | ((high >> 6) << 4)) - 32)
    put_scales(tile, first, second, third, fourth)


@kernel
def unpack_levels(block: Rows, tile: Tile) -> None:
    hmask = load_bytes(block, HMASK, 32)
    low, high = load_bytes(block, QS, 32), load_bytes(block, QS + 32, 32)
    put_levels(tile, 0, joined(low, 0, 2, hmask, 0, 1))
    put_levels(tile, 32, joined(low, 2, 2, hmask, 1, 1))
    put_levels(tile, 64, joined(low, 4, 2, hmask, 2, 1))
    put_levels(tile, 96, joined(low, 6, 2, hmask, 3, 1))
    put_levels(tile, 128, joined(high, 0, 2, hmask, 4, 1))
    put_levels(tile, 160, joined(high, 2, 2, hmask, 5, 1))
    put_levels(tile, 192, joined(high, 4, 2, hmask, 6, 1))
    put_levels(tile, 224, joined(high, 6, 2, hmask, 7, 1))


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
        largest=7,
        zero_point=4,
        scales=Scales(16, 32, signed=True),
    ),
)
