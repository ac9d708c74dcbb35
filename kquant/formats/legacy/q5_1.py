"""Q5_1: 6 bits per element; a block of 32 with a scale and a minimum.

    x = d * q + m                              q 5 bits, d and m fp16

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      2     d       fp16
2      2     m       fp16
4      4     qh      32-bit number, bit l: bit 4 of q[l]
8      16    qs      ``BBBBAAAA``  bits 0-3; A = q[l], B = q[16 + l], l = 0..15
====== ===== ======= ==========================================================================

The minimum is the first of several equal ones, so it can be -0.

Source: `block_q5_1` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
"""

from __future__ import annotations

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import (
    Bytes,
    Fields,
    blocks_of,
    high_bits,
    join_bits,
    offsets,
    raw,
    spread,
    squeeze,
)
from kquant.formats.legacy.legacy_block import (
    affine_weighted,
    round_affine,
    run_fifth_bits,
    run_nibbles,
    store_fifth_bits,
    store_nibbles,
)
from kquant.kernels.execute import BlockDecoder, BlockRounding, WeightedSearch
from kquant.kernels.language.blocks import put_shorts
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.lanes import Rows, as_float, half_bits, run_half, store_half, store_run
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import bits_at, half_at, load_bytes
from kquant.kernels.language.tiles import Tile, put_d, put_levels, put_min
from kquant.types import TensorType

TYPE = TensorType.Q5_1
LAYOUT = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "<u4"), ("qs", "u1", 16)])
D, M, QH, QS = offsets(LAYOUT, TYPE)
NMAX = np.float32(31)


def unpack(data: Bytes) -> Fields:
    """d, m: float16 (...); q: uint8 (..., 32)."""
    blocks = blocks_of(data, LAYOUT)
    return {
        "d": blocks["d"],
        "m": blocks["m"],
        "q": spread(blocks["qs"], 4, 16) | high_bits(blocks["qh"]) << 4,
    }


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    blocks = np.empty(fields["d"].shape, LAYOUT)
    blocks["d"], blocks["m"], blocks["qs"] = fields["d"], fields["m"], squeeze(fields["q"] & 15, 4, 16)
    blocks["qh"] = join_bits(fields["q"] >> 4)
    return raw(blocks)


@kernel
def dequantize(block: Rows, y: Rows) -> None:
    d, m = run_half(block, D), run_half(block, M)
    low, high = run_nibbles(block, QS)
    low_fifth, high_fifth = run_fifth_bits(block, QH)
    store_run(y, 0, as_float(low | low_fifth) * d + m)
    store_run(y, 16, as_float(high | high_fifth) * d + m)


@kernel
def quantize_blocks(x: Rows, block: Rows) -> None:
    d, m = round_affine(x, NMAX, block, QS, QH)
    put_shorts(block, D, half_bits(d))
    put_shorts(block, M, half_bits(m))


@kernel
def quantize_weighted(x: Rows, weights: Rows, row_mean: Rows, block: Rows) -> None:
    levels = np.empty((32, x.shape[1]), np.float32)
    d, m = affine_weighted(x, weights, row_mean, NMAX, levels)
    store_half(block, D, d)
    store_half(block, M, m)
    store_nibbles(levels, QS, block)
    store_fifth_bits(levels, QH, block)


@kernel
def unpack_scales(block: Rows, tile: Tile) -> None:
    head = load_bytes(block, D, 16)
    put_d(tile, half_at(head, 0))
    put_min(tile, half_at(head, 2))


@kernel
def unpack_levels(block: Rows, tile: Tile) -> None:
    head, q = load_bytes(block, D, 16), load_bytes(block, QS, 16)
    put_levels(tile, 0, (q & 15) | bits_at(head, 32, 16))
    put_levels(tile, 16, (q >> 4) | bits_at(head, 48, 16))


FORMAT = BlockFormat(
    __doc__,
    TYPE,
    LAYOUT,
    unpack,
    pack,
    decoder=BlockDecoder(dequantize),
    quantizer=BlockRounding(quantize_blocks),
    weighted=WeightedSearch(quantize_weighted, needs_row_mean=True),
    dot=BlockDot(TensorType.Q8_1, unpack_scales, unpack_levels, largest=31, offset=True),
)
