"""Q8_0: 8.5 bits per element; a block of 32 with one scale.

    x = d * q                                  q a signed byte, d fp16

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      2     d       fp16
2      32    qs      ``QQQQQQQQ``  q[l], two's complement
====== ===== ======= ==========================================================================

Source: `block_q8_0` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
"""

from __future__ import annotations

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw
from kquant.formats.legacy.byte_block import round_bytes
from kquant.kernels.execute import BlockDecoder, BlockRounding
from kquant.kernels.language.blocks import put_shorts
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.lanes import (
    Rows,
    as_float,
    half_bits,
    load_run_signed,
    run_half,
    store_run,
)
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import half_from, load_bytes
from kquant.kernels.language.tiles import Tile, put_d, put_levels
from kquant.types import TensorType

TYPE = TensorType.Q8_0
LAYOUT = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
D, QS = offsets(LAYOUT, TYPE)


def unpack(data: Bytes) -> Fields:
    """d: float16 (...); q: int8 (..., 32)."""
    blocks = blocks_of(data, LAYOUT)
    return {"d": blocks["d"], "q": blocks["qs"]}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    blocks = np.empty(fields["d"].shape, LAYOUT)
    blocks["d"], blocks["qs"] = fields["d"], fields["q"]
    return raw(blocks)


@kernel
def dequantize(block: Rows, y: Rows) -> None:
    store_run(y, 0, as_float(load_run_signed(block, QS, 32)) * run_half(block, D))


@kernel
def quantize_blocks(x: Rows, block: Rows) -> None:
    d, _ = round_bytes(x, block, QS)
    put_shorts(block, D, half_bits(d))


@kernel
def unpack_scales(block: Rows, tile: Tile) -> None:
    put_d(tile, half_from(block, D))


@kernel
def unpack_levels(block: Rows, tile: Tile) -> None:
    put_levels(tile, 0, load_bytes(block, QS, 16) + 128)
    put_levels(tile, 16, load_bytes(block, QS + 16, 16) + 128)


FORMAT = BlockFormat(
    __doc__,
    TYPE,
    LAYOUT,
    unpack,
    pack,
    decoder=BlockDecoder(dequantize),
    quantizer=BlockRounding(quantize_blocks),
    dot=BlockDot(TensorType.Q8_0, unpack_scales, unpack_levels, largest=255, zero_point=128),
)
