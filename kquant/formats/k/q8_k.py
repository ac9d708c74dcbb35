"""Q8_K: 9.125 bits per element; ggml's partner of the k-quants in dot products, not a storage format.

    x = d * q                                  q a signed byte, d float32

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      4     d       float32
4      256   qs      ``QQQQQQQQ``  q[l], two's complement
260    32    bsums   int16: the sum of q[16j] .. q[16j + 15], j = 0..15
====== ===== ======= ==========================================================================

ggml leaves the bsums of an all-zero super-block as they were; kquant writes zeros.

Source: `block_q8_K` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
"""

from __future__ import annotations

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw
from kquant.formats.scale_search import ONE, ZERO, largest_magnitude
from kquant.kernels.execute import INFINITY, BlockDecoder, Search
from kquant.kernels.language.lanes import (
    Rows,
    as_float,
    as_int,
    bits_of_float,
    float_of_bits,
    load,
    load_run,
    load_run_signed,
    nearest_int,
    smaller,
    store,
    store_run,
    where,
    zeros,
)
from kquant.kernels.language.mark import kernel
from kquant.types import TensorType

TYPE = TensorType.Q8_K
LAYOUT = np.dtype([("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)])
D, QS, BSUMS = offsets(LAYOUT, TYPE)


def unpack(data: Bytes) -> Fields:
    """d: float32 (...); q: int8 (..., 256); bsums: int16 (..., 16)."""
    blocks = blocks_of(data, LAYOUT)
    return {"d": blocks["d"], "q": blocks["qs"], "bsums": blocks["bsums"]}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    blocks = np.empty(fields["d"].shape, LAYOUT)
    blocks["d"], blocks["qs"], blocks["bsums"] = fields["d"], fields["q"], fields["bsums"]
    return raw(blocks)


@kernel
def dequantize(block: Rows, y: Rows) -> None:
    low = load_run(block, D, 1) | (load_run(block, D + 1, 1) << 8)
    d = float_of_bits(low | (load_run(block, D + 2, 1) << 16) | (load_run(block, D + 3, 1) << 24))
    for k in range(8):
        store_run(y, 32 * k, d * as_float(load_run_signed(block, QS + 32 * k, 32)))


@kernel
def quantize(x: Rows, block: Rows) -> None:
    extreme, magnitude = largest_magnitude(x, 0, 256)
    empty = magnitude == ZERO
    inverse = np.float32(-127) / where(empty, ONE, extreme)
    for j in range(16):
        total = as_int(zeros(x))
        for i in range(16 * j, 16 * j + 16):
            q = as_int(smaller(nearest_int(inverse * load(x, i)), np.float32(127)))
            q = ((q + 128) & 255) - 128
            store(block, QS + i, q)
            total = total + q
        store(block, BSUMS + 2 * j, total & 255)
        store(block, BSUMS + 2 * j + 1, (total >> 8) & 255)
    bits = bits_of_float(where(empty, ZERO, ONE / inverse))
    for k in range(4):
        store(block, D + k, (bits >> (8 * k)) & 255)


FORMAT = BlockFormat(
    __doc__,
    TYPE,
    LAYOUT,
    unpack,
    pack,
    decoder=BlockDecoder(dequantize),
    quantizer=Search(quantize, sure=INFINITY),  # d is float32
)
