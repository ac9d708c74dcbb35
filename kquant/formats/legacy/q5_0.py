"""Q5_0: 5.5 bits per element; a block of 32 with one scale.

    x = d * (q - 16)                            q 5 bits, d fp16

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      2     d       fp16
2      4     qh      32-bit number, bit l: bit 4 of q[l]
6      16    qs      ``BBBBAAAA``  bits 0-3; A = q[l], B = q[16 + l], l = 0..15
====== ===== ======= ==========================================================================

An all-zero block stores d = -0, as ggml does.

Source: `block_q5_0` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
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
    round_symmetric,
    run_fifth_bits,
    run_nibbles,
    store_fifth_bits,
    store_nibbles,
    symmetric_weighted,
)
from kquant.kernels.execute import BlockDecoder, BlockRounding, WeightedSearch
from kquant.kernels.language.blocks import put_shorts
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.lanes import Rows, as_float, half_bits, run_half, store_half, store_run
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import bits_at, half_from, load_bytes
from kquant.kernels.language.tiles import Tile, put_d, put_levels
from kquant.types import TensorType

TYPE = TensorType.Q5_0
LAYOUT = np.dtype([("d", "<f2"), ("qh", "<u4"), ("qs", "u1", 16)])
D, QH, QS = offsets(LAYOUT, TYPE)
NMAX = np.float32(16)


def unpack(data: Bytes) -> Fields:
    """d: float16 (...); q: uint8 (..., 32), zero point 16."""
    blocks = blocks_of(data, LAYOUT)
    return {"d": blocks["d"], "q": spread(blocks["qs"], 4, 16) | high_bits(blocks["qh"]) << 4}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    blocks = np.empty(fields["d"].shape, LAYOUT)
    blocks["d"], blocks["qs"] = fields["d"], squeeze(fields["q"] & 15, 4, 16)
    blocks["qh"] = join_bits(fields["q"] >> 4)
    return raw(blocks)


@kernel
def dequantize(block: Rows, y: Rows) -> None:
    d = run_half(block, D)
    low, high = run_nibbles(block, QS)
    low_fifth, high_fifth = run_fifth_bits(block, QH)
    store_run(y, 0, as_float((low | low_fifth) - 16) * d)
    store_run(y, 16, as_float((high | high_fifth) - 16) * d)


@kernel
def quantize_blocks(x: Rows, block: Rows) -> None:
    put_shorts(block, D, half_bits(round_symmetric(x, NMAX, block, QS, QH)))


@kernel
def quantize_weighted(x: Rows, weights: Rows, row_mean: Rows, block: Rows) -> None:
    levels = np.empty((32, x.shape[1]), np.float32)
    store_half(block, D, symmetric_weighted(x, weights, row_mean, NMAX, levels))
    store_nibbles(levels, QS, block)
    store_fifth_bits(levels, QH, block)


@kernel
def unpack_scales(block: Rows, tile: Tile) -> None:
    put_d(tile, half_from(block, D))


@kernel
def unpack_levels(block: Rows, tile: Tile) -> None:
    head, q = load_bytes(block, D, 16), load_bytes(block, QS, 16)
    put_levels(tile, 0, (q & 15) | bits_at(head, 16, 16))
    put_levels(tile, 16, (q >> 4) | bits_at(head, 32, 16))


FORMAT = BlockFormat(
    __doc__,
    TYPE,
    LAYOUT,
    unpack,
    pack,
    decoder=BlockDecoder(dequantize),
    quantizer=BlockRounding(quantize_blocks),
    weighted=WeightedSearch(quantize_weighted, needs_row_mean=True),
    dot=BlockDot(TensorType.Q8_0, unpack_scales, unpack_levels, largest=31, zero_point=16),
)
