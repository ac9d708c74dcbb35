"""MXFP4: 4.25 bits per element; a block of 32 floats of four bits with one power of two.

    x = 2**(e - 127) * FLOATS[q]               q 4 bits, e a byte

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      1     e       ``EEEEEEEE``  exponent of the scale; 255 stands for no number
1      16    qs      ``BBBBAAAA``  A = q[l], B = q[16 + l], l = 0..15
====== ===== ======= ==========================================================================

FLOATS: 0 0.5 1 1.5 2 3 4 6 for q = 0..7 (E2M1: two bits of exponent, one of mantissa), 0 for q = 8, which
would be -0, and -0.5 -1 -1.5 -2 -3 -4 -6 for q = 9..15.

Source: `block_mxfp4` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h,
`quantize_row_mxfp4_ref` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c
"""

from __future__ import annotations

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw, spread, squeeze
from kquant.formats.legacy.legacy_block import run_nibbles
from kquant.formats.scale_search import ONE, ZERO
from kquant.kernels.execute import BlockDecoder, BlockRounding
from kquant.kernels.language.blocks import apart, count, largest, of_block, put_run, run_of
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.lanes import (
    Lanes,
    Rows,
    as_float,
    as_int,
    bits_of_float,
    float_of_bits,
    larger,
    load_run,
    store_run,
    where,
)
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import load_bytes, load_short
from kquant.kernels.language.tables import Table, lookup
from kquant.kernels.language.tiles import Tile, put_d, put_levels
from kquant.types import TensorType

f32 = np.float32
TYPE = TensorType.MXFP4
LAYOUT = np.dtype([("e", "u1"), ("qs", "u1", 16)])
E, QS = offsets(LAYOUT, TYPE)

DOUBLED = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
VALUES = Table(tuple(map(float, DOUBLED)))
"""Twice `FLOATS` of the formula: integers, as ggml has them, times half the scale."""
ZERO_POINT = 16
UNSIGNED = Table(tuple(value + ZERO_POINT for value in DOUBLED))
"""The same as bytes of products."""

ULP_AS_LOG = f32(1.442695 * 2**-24)
"""How far log2(1 - 2**-24) lies below 0."""


def unpack(data: Bytes) -> Fields:
    """e: uint8 (...), the scale is 2**(e - 127); q: uint8 (..., 32), sign, exponent and mantissa."""
    blocks = blocks_of(data, LAYOUT)
    return {"e": blocks["e"], "q": spread(blocks["qs"], 4, 16)}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    blocks = np.empty(fields["e"].shape, LAYOUT)
    blocks["e"], blocks["qs"] = fields["e"], squeeze(fields["q"], 4, 16)
    return raw(blocks)


@kernel
def half_scale(e: Lanes) -> Lanes:
    """2**(e - 128); the two smallest are subnormal.  255 is taken for a number, as ggml does."""
    return float_of_bits(where(e < 2, (e + 1) << 21, (e - 1) << 23))


@kernel
def dequantize(block: Rows, y: Rows) -> None:
    d = half_scale(load_run(block, E, 1))
    low, high = run_nibbles(block, QS)
    store_run(y, 0, lookup(low, VALUES) * d)
    store_run(y, 16, lookup(high, VALUES) * d)


@kernel
def exponent(magnitude: Lanes) -> Lanes:
    """127 - 2 + floor(log2(magnitude)), as C's `log2f` rounds it; 0 for what would be less.

    A float32 just below a large power of two has that power's logarithm.  C casts a negative number to a
    byte for magnitudes below 2**-125, which is undefined; here they have the smallest scale.
    """
    bits = bits_of_float(magnitude)
    biased = bits >> 23
    next_power = as_float(biased - 126)
    below = as_float(0x800000 - (bits & 0x7FFFFF)) * ULP_AS_LOG
    return larger(where(next_power - below < next_power, biased - 2, biased - 1), 0)


@kernel
def quantize_blocks(x: Rows, block: Rows) -> None:
    e = exponent(largest(x))
    exponents, inverse = apart(e), apart(float_of_bits((254 - e) << 23))
    for b in range(count(x)):
        put_run(block, b, E, of_block(exponents, b))
        factor = of_block(inverse, b)
        low, high = nearest(run_of(x, b, 0, 16) * factor), nearest(run_of(x, b, 16, 16) * factor)
        put_run(block, b, QS, low | (high << 4))


@kernel
def nearest(value: Lanes) -> Lanes:
    """The four bits that are nearest, of two the smaller magnitude."""
    magnitude = np.abs(value)
    q = where(magnitude > f32(0.25), ONE, ZERO)
    q = where(magnitude > f32(0.75), f32(2), q)
    q = where(magnitude > f32(1.25), f32(3), q)
    q = where(magnitude > f32(1.75), f32(4), q)
    q = where(magnitude > f32(2.5), f32(5), q)
    q = where(magnitude > f32(3.5), f32(6), q)
    q = where(magnitude > f32(5), f32(7), q)
    return as_int(q + where(value < f32(-0.25), f32(8), ZERO))


@kernel
def unpack_scales(block: Rows, tile: Tile) -> None:
    put_d(tile, half_scale(load_short(block, E) & 255))


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
    quantizer=BlockRounding(quantize_blocks),
    dot=BlockDot(TensorType.Q8_0, unpack_scales, unpack_levels, largest=28, zero_point=ZERO_POINT),
)
