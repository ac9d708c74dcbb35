"""IQ4_NL: 4.5 bits per element; a block of 32 with one scale and sixteen levels that are not evenly spaced.

    x = d * LEVELS[q]                          q 4 bits, d fp16

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      2     d       fp16
2      16    qs      ``BBBBAAAA``  A = q[l], B = q[16 + l], l = 0..15
====== ===== ======= ==========================================================================

LEVELS: -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113

Source: `block_iq4_nl` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h,
`quantize_iq4_nl` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw, spread, squeeze
from kquant.formats.legacy.legacy_block import run_nibbles, store_nibbles
from kquant.formats.scale_search import GROUP_MAX_EPS, ONE, ZERO, largest_magnitude
from kquant.kernels.execute import BlockDecoder, Search, WeightedSearch
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.lanes import (
    Lanes,
    Rows,
    as_float,
    as_int,
    load,
    run_half,
    store,
    store_half,
    store_run,
    where,
    zeros,
)
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import half_from, load_bytes
from kquant.kernels.language.tables import Table, lookup
from kquant.kernels.language.tiles import Tile, put_d, put_levels
from kquant.types import TensorType

f32 = np.float32
TYPE = TensorType.IQ4_NL
LAYOUT = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
D, QS = offsets(LAYOUT, TYPE)

LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
VALUES = Table(tuple(map(float, LEVELS)))
ZERO_POINT = 128
UNSIGNED = Table(tuple(level + ZERO_POINT for level in LEVELS))
"""The levels as bytes of products."""

_HALFWAY = [(low + high) / 2 for low, high in pairwise(LEVELS)]
FIRST = f32(_HALFWAY[7])
SECOND, THIRD, FOURTH = (
    Table(tuple(_HALFWAY[3::8])),
    Table(tuple(_HALFWAY[1::4])),
    Table(tuple(_HALFWAY[::2])),
)
"""Where the next level begins to be nearer, in the order in which a search that halves asks for them."""
STEPS = 7
"""Other scales that are tried, in either direction."""


def unpack(data: Bytes) -> Fields:
    """d: float16 (...); q: uint8 (..., 32), numbers of entries of `LEVELS`."""
    blocks = blocks_of(data, LAYOUT)
    return {"d": blocks["d"], "q": spread(blocks["qs"], 4, 16)}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    blocks = np.empty(fields["d"].shape, LAYOUT)
    blocks["d"], blocks["qs"] = fields["d"], squeeze(fields["q"], 4, 16)
    return raw(blocks)


@kernel
def dequantize(block: Rows, y: Rows) -> None:
    d = run_half(block, D)
    low, high = run_nibbles(block, QS)
    store_run(y, 0, lookup(low, VALUES) * d)
    store_run(y, 16, lookup(high, VALUES) * d)


@kernel
def quantize(x: Rows, block: Rows) -> None:
    """Squares are the weights."""
    w = np.empty((32, x.shape[1]), np.float32)
    for i in range(32):
        store(w, i, load(x, i) * load(x, i))
    finish(x, search(x, w), block)


@kernel
def quantize_weighted(x: Rows, weights: Rows, row_mean: Rows, block: Rows) -> None:
    """The weights are importance * sqrt(2 * mean square of the block + x**2)."""
    total = zeros(x)
    for i in range(32):
        total = total + load(x, i) * load(x, i)
    total = total * f32(2 / 32)
    w = np.empty((32, x.shape[1]), np.float32)
    for i in range(32):
        xi = load(x, i)
        store(w, i, load(weights, i) * np.sqrt(total + xi * xi))
    finish(x, search(x, w), block)


@kernel
def search(x: Rows, w: Rows) -> Lanes:
    """The scale of least weighted error, and zero for a block that counts as zero.

    The first trial has another inverse than the middle one of those that follow: 1 / (extreme / 127).
    """
    extreme, magnitude = largest_magnitude(x, 0, 32)
    empty = magnitude < GROUP_MAX_EPS
    extreme = where(empty, ONE, extreme)
    sum_lx, sum_l2 = sums(x, w, ONE / (extreme / f32(127)))
    scale = where(sum_l2 > ZERO, sum_lx / sum_l2, ZERO)
    best = scale * sum_lx
    for step in range(-STEPS, STEPS + 1):
        sum_lx, sum_l2 = sums(x, w, f32(step - 127) / extreme)
        better = (sum_l2 > ZERO) & (sum_lx * sum_lx > best * sum_l2)
        scale = where(better, sum_lx / sum_l2, scale)
        best = where(better, scale * sum_lx, best)
    return where(empty, ZERO, scale)


@kernel
def sums(x: Rows, w: Rows, inverse: Lanes) -> tuple[Lanes, Lanes]:
    """The sums of w * level * x and w * level**2 of one trial."""
    sum_lx = zeros(x)
    sum_l2 = zeros(x)
    for i in range(32):
        xi = load(x, i)
        level = lookup(nearest(inverse * xi), VALUES)
        wl = load(w, i) * level
        sum_lx = sum_lx + wl * xi
        sum_l2 = sum_l2 + wl * level
    return sum_lx, sum_l2


@kernel
def nearest(value: Lanes) -> Lanes:
    """Which of `LEVELS` is nearest, the higher of two; the last for NaN."""
    q = as_int(where(value < FIRST, ZERO, ONE))
    q = where(value < lookup(q, SECOND), q + q, q + q + 1)
    q = where(value < lookup(q, THIRD), q + q, q + q + 1)
    return where(value < lookup(q, FOURTH), q + q, q + q + 1)


@kernel
def finish(x: Rows, scale: Lanes, block: Rows) -> None:
    """The scale, and the levels for what it was before it was rounded to fp16."""
    store_half(block, D, scale)
    inverse = where(scale != ZERO, ONE / scale, ZERO)
    levels = np.empty((32, x.shape[1]), np.float32)
    for i in range(32):
        store(levels, i, as_float(nearest(inverse * load(x, i))))
    store_nibbles(levels, QS, block)


@kernel
def unpack_scales(block: Rows, tile: Tile) -> None:
    put_d(tile, half_from(block, D))


@kernel
def unpack_levels(block: Rows, tile: Tile) -> None:
    q = load_bytes(block, QS, 16)
    put_levels(tile, 0, lookup(q & 15, UNSIGNED))
    put_levels(tile, 16, lookup(q >> 4, UNSIGNED))


FORMAT = BlockFormat(
    __doc__,
    TYPE,
    LAYOUT,
    unpack,
    pack,
    decoder=BlockDecoder(dequantize),
    quantizer=Search(quantize),
    weighted=WeightedSearch(quantize_weighted),
    dot=BlockDot(TensorType.Q8_0, unpack_scales, unpack_levels, largest=241, zero_point=ZERO_POINT),
)
