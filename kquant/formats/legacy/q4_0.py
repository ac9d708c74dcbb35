"""Q4_0: 4.5 bits per element; a block of 32 with one scale.

    x = d * (q - 8)                            q 4 bits, d fp16

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      2     d       fp16
2      16    qs      ``BBBBAAAA``  A = q[l], B = q[16 + l], l = 0..15
====== ===== ======= ==========================================================================

An all-zero block stores d = -0, as ggml does.

Source: `block_q4_0` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
"""

from __future__ import annotations

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw, spread, squeeze
from kquant.formats.legacy.legacy_block import (
    NONE,
    round_symmetric,
    run_nibbles,
    store_nibbles,
    symmetric_weighted,
)
from kquant.kernels.execute import BlockDecoder, BlockRounding, WeightedSearch
from kquant.kernels.language.blocks import put_shorts
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.lanes import Rows, as_float, half_bits, run_half, store_half, store_run
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import half_from, load_bytes
from kquant.kernels.language.tiles import Tile, put_d, put_levels
from kquant.types import TensorType

TYPE = TensorType.Q4_0
LAYOUT = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
D, QS = offsets(LAYOUT, TYPE)
NMAX = np.float32(8)


def unpack(data: Bytes) -> Fields:
    """d: float16 (...); q: uint8 (..., 32), zero point 8."""
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
    store_run(y, 0, as_float(low - 8) * d)
    store_run(y, 16, as_float(high - 8) * d)


@kernel
def quantize_blocks(x: Rows, block: Rows) -> None:
    put_shorts(block, D, half_bits(round_symmetric(x, NMAX, block, QS, NONE)))


@kernel
def quantize_weighted(x: Rows, weights: Rows, row_mean: Rows, block: Rows) -> None:
    levels = np.empty((32, x.shape[1]), np.float32)
    store_half(block, D, symmetric_weighted(x, weights, row_mean, NMAX, levels))
    store_nibbles(levels, QS, block)


@kernel
def unpack_scales(block: Rows, tile: Tile) -> None:
    put_d(tile, half_from(block, D))


@kernel
def unpack_levels(block: Rows, tile: Tile) -> None:
    q = load_bytes(block, QS, 16)
    put_levels(tile, 0, q & 15)
    put_levels(tile, 16, q >> 4)


FORMAT = BlockFormat(
    __doc__,
    TYPE,
    LAYOUT,
    unpack,
    pack,
    decoder=BlockDecoder(dequantize),
    quantizer=BlockRounding(quantize_blocks),
    weighted=WeightedSearch(quantize_weighted, needs_row_mean=True),
    dot=BlockDot(TensorType.Q8_0, unpack_scales, unpack_levels, largest=15, zero_point=8),
)
