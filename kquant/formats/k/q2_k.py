"""Q2_K: 2.625 bits per element; a super-block of 16 sub-blocks of 16.

    x = d * sc[j] * q - dmin * m[j]            q 2 bits, sc and m 4 bits, d and dmin fp16

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      16    scales  ``MMMMSSSS``  S = sc[j], M = m[j]
16     64    qs      ``DDCCBBAA``  32 bytes for each 128 elements: A = q[128k + l],
                                   B = q[128k + 32 + l], C = q[128k + 64 + l], D = q[128k + 96 + l]
80     2     d       fp16
82     2     dmin    fp16
====== ===== ======= ==========================================================================

Source: `block_q2_K` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
"""

from __future__ import annotations

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw, spread, squeeze
from kquant.formats.k.affine_block import remember, requantize, search_weighted
from kquant.formats.scale_search import ZERO, affine_search, positive_search
from kquant.kernels.execute import BlockDecoder, Search, WeightedSearch
from kquant.kernels.language.dot import BlockDot, Minima, Scales
from kquant.kernels.language.lanes import (
    Lanes,
    Rows,
    as_float,
    as_int,
    larger,
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
from kquant.kernels.language.packed import bits, half_at, load_bytes
from kquant.kernels.language.tiles import Tile, put_d, put_levels, put_min, put_minima, put_scales
from kquant.types import TensorType

TYPE = TensorType.Q2_K
LAYOUT = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
SCALES, QS, D, DMIN = offsets(LAYOUT, TYPE)
NMAX = np.float32(3)


def unpack(data: Bytes) -> Fields:
    """d, dmin: float16 (...); sc, m: uint8 (..., 16); q: uint8 (..., 256)."""
    blocks = blocks_of(data, LAYOUT)
    sc, m = blocks["scales"] & 15, blocks["scales"] >> 4
    return {"d": blocks["d"], "dmin": blocks["dmin"], "sc": sc, "m": m, "q": spread(blocks["qs"], 2, 32)}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    blocks = np.empty(fields["d"].shape, LAYOUT)
    blocks["d"], blocks["dmin"] = fields["d"], fields["dmin"]
    blocks["scales"] = fields["sc"] | fields["m"] << 4
    blocks["qs"] = squeeze(fields["q"], 2, 32)
    return raw(blocks)


@kernel
def dequantize(block: Rows, y: Rows) -> None:
    d, dmin = run_half(block, D), run_half(block, DMIN)
    for j in range(16):
        both = load_run(block, SCALES + j, 1)
        q = (load_run(block, QS + 32 * (j // 8) + 16 * (j % 2), 16) >> (j % 8 // 2 * 2)) & 3
        store_run(y, 16 * j, d * as_float(both & 15) * as_float(q) - dmin * as_float(both >> 4))


@kernel
def quantize(x: Rows, block: Rows) -> None:
    w = np.empty((16, x.shape[1]), np.float32)
    levels = np.empty((256, x.shape[1]), np.float32)
    found = np.empty((64, x.shape[1]), np.float32)
    max_scale = zeros(x)
    max_min = zeros(x)
    for j in range(16):
        for i in range(16):
            store(w, i, np.abs(load(x, 16 * j + i)))
        result = affine_search(x, 16 * j, 16, w, NMAX, np.float32(-0.5), np.float32(0.1), 15, True, levels)
        remember(found, j, result)
        max_scale = larger(result[0], max_scale)
        max_min = larger(result[1], max_min)

    inverse_scale = where(max_scale > ZERO, np.float32(15) / max_scale, ZERO)
    inverse_min = where(max_min > ZERO, np.float32(15) / max_min, ZERO)
    store_half(block, D, max_scale / np.float32(15))
    store_half(block, DMIN, max_min / np.float32(15))
    for j in range(16):
        sc = as_int(nearest_int(inverse_scale * load(found, j)))
        store(block, SCALES + j, sc | (as_int(nearest_int(inverse_min * load(found, 16 + j))) << 4))
    finish(x, found, levels, block)


@kernel
def quantize_weighted(x: Rows, weights: Rows, row_mean: Rows, block: Rows) -> None:
    levels = np.empty((256, x.shape[1]), np.float32)
    found = np.empty((64, x.shape[1]), np.float32)
    sums = np.empty((16, x.shape[1]), np.float32)
    search_weighted(x, weights, 16, NMAX, np.float32(1), levels, found, sums)
    sc, m = np.empty_like(sums), np.empty_like(sums)
    store_half(block, D, positive_search(found[:16], 16, sums, np.float32(15), sc))
    store_half(block, DMIN, positive_search(found[16:32], 16, sums, np.float32(15), m))
    for j in range(16):
        store(block, SCALES + j, as_int(load(sc, j)) | (as_int(load(m, j)) << 4))
    finish(x, found, levels, block)


@kernel
def finish(x: Rows, found: Rows, levels: Rows, block: Rows) -> None:
    """Levels for the rounded scales, packed."""
    d, dmin = load_half(block, D), load_half(block, DMIN)
    for j in range(16):
        both = load(block, SCALES + j)
        requantize(x, j, 16, NMAX, d * as_float(both & 15), dmin * as_float(both >> 4), found, levels)
    for k in range(2):
        for i in range(32):
            q = as_int(zeros(x))
            for part in range(4):
                q = q | (as_int(load(levels, 128 * k + 32 * part + i)) << (2 * part))
            store(block, QS + 32 * k + i, q)


@kernel
def unpack_scales(block: Rows, tile: Tile) -> None:
    minima, tail = load_bytes(block, SCALES, 16) >> 4, load_bytes(block, D, 4)
    put_d(tile, half_at(tail, 0))
    put_min(tile, half_at(tail, 2))
    put_minima(tile, minima)


@kernel
def unpack_levels(block: Rows, tile: Tile) -> None:
    put_scales(tile, load_bytes(block, SCALES, 16) & 15)
    put_half(tile, 0, load_bytes(block, QS, 32))
    put_half(tile, 128, load_bytes(block, QS + 32, 32))


@kernel
def put_half(tile: Tile, at: int, q: Lanes) -> None:
    put_levels(tile, at, bits(q, 0, 2))
    put_levels(tile, at + 32, bits(q, 2, 2))
    put_levels(tile, at + 64, bits(q, 4, 2))
    put_levels(tile, at + 96, bits(q, 6, 2))


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
        largest=3,
        scales=Scales(16, 15, with_levels=True),
        minima=Minima(16, 15),
    ),
)
