"""Q5_K: 5.5 bits per element; a super-block of 8 sub-blocks of 32.

    x = d * sc[j] * q - dmin * m[j]            q 5 bits, sc and m 6 bits, d and dmin fp16

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      2     d       fp16
2      2     dmin    fp16
4      4     scales  ``ttSSSSSS``  sc[j], j = 0..3; tt: bits 4-5 of sc[4 + j]
8      4             ``nnMMMMMM``  m[j], j = 0..3; nn: bits 4-5 of m[4 + j]
12     4             ``NNNNTTTT``  bits 0-3 of m[4 + j] and of sc[4 + j]
16     32    qh      ``hgfedcba``  bit 4 of q[l], q[32 + l], ... q[224 + l]
48     128   qs      ``BBBBAAAA``  32 bytes for each 64 elements: A = q[64k + l], B = q[64k + 32 + l]
====== ===== ======= ==========================================================================

Source: `block_q5_K` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
"""

from __future__ import annotations

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw, spread, squeeze
from kquant.formats.k.affine_block import (
    load_scale_min,
    pack_scale_min,
    put_scales_and_minima,
    requantize,
    round_6_bits,
    run_scale_min,
    search_32,
    search_weighted,
    store_scale_min,
    unpack_scale_min,
)
from kquant.formats.scale_search import positive_search
from kquant.kernels.execute import BlockDecoder, Search, WeightedSearch
from kquant.kernels.language.dot import BlockDot, Minima, Scales
from kquant.kernels.language.lanes import (
    Lanes,
    Rows,
    as_float,
    as_int,
    load,
    load_half,
    load_run,
    run_half,
    smaller,
    store,
    store_half,
    store_run,
    zeros,
)
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import load_bytes, nibbles_joined
from kquant.kernels.language.tiles import Tile, put_levels
from kquant.types import TensorType

TYPE = TensorType.Q5_K
LAYOUT = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])
D, DMIN, SCALES, QH, QS = offsets(LAYOUT, TYPE)
NMAX = np.float32(31)


def unpack(data: Bytes) -> Fields:
    """d, dmin: float16 (...); sc, m: uint8 (..., 8); q: uint8 (..., 256)."""
    blocks = blocks_of(data, LAYOUT)
    sc, m = unpack_scale_min(blocks["scales"])
    q = spread(blocks["qs"], 4, 32) | spread(blocks["qh"], 1, 32) << 4
    return {"d": blocks["d"], "dmin": blocks["dmin"], "sc": sc, "m": m, "q": q}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    blocks = np.empty(fields["d"].shape, LAYOUT)
    blocks["d"], blocks["dmin"] = fields["d"], fields["dmin"]
    blocks["scales"] = pack_scale_min(fields["sc"], fields["m"])
    blocks["qh"] = squeeze(fields["q"] >> 4, 1, 32)
    blocks["qs"] = squeeze(fields["q"] & 15, 4, 32)
    return raw(blocks)


@kernel
def dequantize(block: Rows, y: Rows) -> None:
    d, dmin = run_half(block, D), run_half(block, DMIN)
    qh = load_run(block, QH, 32)
    for k in range(4):
        qs = load_run(block, QS + 32 * k, 32)
        sc, m = run_scale_min(block, 2 * k)
        q = (qs & 15) | (((qh >> (2 * k)) & 1) << 4)
        store_run(y, 64 * k, d * as_float(sc) * as_float(q) - dmin * as_float(m))
        sc, m = run_scale_min(block, 2 * k + 1)
        q = (qs >> 4) | (((qh >> (2 * k + 1)) & 1) << 4)
        store_run(y, 64 * k + 32, d * as_float(sc) * as_float(q) - dmin * as_float(m))


@kernel
def quantize(x: Rows, block: Rows) -> None:
    levels = np.empty((256, x.shape[1]), np.float32)
    found = np.empty((32, x.shape[1]), np.float32)
    max_scale, max_min = search_32(x, NMAX, np.float32(-0.5), 15, levels, found)
    store_half(block, D, max_scale / np.float32(63))
    store_half(block, DMIN, max_min / np.float32(63))
    for j in range(8):
        sc = round_6_bits(load(found, j), max_scale)
        store_scale_min(block, j, sc, round_6_bits(load(found, 8 + j), max_min))
    finish(x, found, levels, block)


@kernel
def quantize_weighted(x: Rows, weights: Rows, row_mean: Rows, block: Rows) -> None:
    levels = np.empty((256, x.shape[1]), np.float32)
    found = np.empty((32, x.shape[1]), np.float32)
    sums = np.empty((8, x.shape[1]), np.float32)
    search_weighted(x, weights, 32, NMAX, np.float32(2), levels, found, sums)
    sc, m = np.empty_like(sums), np.empty_like(sums)
    store_half(block, D, positive_search(found[:8], 8, sums, np.float32(63), sc))
    store_half(block, DMIN, positive_search(found[8:16], 8, sums, np.float32(63), m))
    for j in range(8):
        store_scale_min(block, j, smaller(as_int(load(sc, j)), 63), smaller(as_int(load(m, j)), 63))
    finish(x, found, levels, block)


@kernel
def finish(x: Rows, found: Rows, levels: Rows, block: Rows) -> None:
    """Levels for the rounded scales, packed."""
    d, dmin = load_half(block, D), load_half(block, DMIN)
    for j in range(8):
        sc, m = load_scale_min(block, j)
        requantize(x, j, 32, NMAX, d * as_float(sc), dmin * as_float(m), found, levels)
    for i in range(32):
        qh = as_int(zeros(x))
        for k in range(4):
            low, high = as_int(load(levels, 64 * k + i)), as_int(load(levels, 64 * k + 32 + i))
            qh = qh | ((low >> 4) << (2 * k)) | ((high >> 4) << (2 * k + 1))
            store(block, QS + 32 * k + i, (low & 15) | ((high & 15) << 4))
        store(block, QH + i, qh)


@kernel
def unpack_levels(block: Rows, tile: Tile) -> None:
    qh = load_bytes(block, QH, 32)
    put_64(tile, 0, nibbles_joined(load_bytes(block, QS, 32), qh, 0, 1, 1))
    put_64(tile, 64, nibbles_joined(load_bytes(block, QS + 32, 32), qh, 2, 3, 1))
    put_64(tile, 128, nibbles_joined(load_bytes(block, QS + 64, 32), qh, 4, 5, 1))
    put_64(tile, 192, nibbles_joined(load_bytes(block, QS + 96, 32), qh, 6, 7, 1))


@kernel
def put_64(tile: Tile, at: int, levels: tuple[Lanes, Lanes]) -> None:
    put_levels(tile, at, levels[0])
    put_levels(tile, at + 32, levels[1])


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
        put_scales_and_minima,
        unpack_levels,
        largest=31,
        scales=Scales(32, 63),
        minima=Minima(32, 63),
    ),
)
