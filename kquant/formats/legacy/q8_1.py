"""Q8_1: 9 bits per element; ggml's partner of Q4_1 and Q5_1 in dot products, not a storage format.

    x = d * q                                  q a signed byte, d fp16

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      2     d       fp16
2      2     s       fp16: d * (q[0] + ... + q[31]), with d before its rounding to fp16
4      32    qs      ``QQQQQQQQ``  q[l], two's complement
====== ===== ======= ==========================================================================

Source: `block_q8_1` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h
"""

from __future__ import annotations

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw
from kquant.formats.legacy.byte_block import round_bytes
from kquant.kernels.execute import BlockDecoder, BlockRounding
from kquant.kernels.language.blocks import put_shorts
from kquant.kernels.language.lanes import Rows, as_float, half_bits, load_run_signed, run_half, store_run
from kquant.kernels.language.mark import kernel
from kquant.types import TensorType

TYPE = TensorType.Q8_1
LAYOUT = np.dtype([("d", "<f2"), ("s", "<f2"), ("qs", "i1", 32)])
D, S, QS = offsets(LAYOUT, TYPE)


def unpack(data: Bytes) -> Fields:
    """d, s: float16 (...); q: int8 (..., 32)."""
    blocks = blocks_of(data, LAYOUT)
    return {"d": blocks["d"], "s": blocks["s"], "q": blocks["qs"]}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    blocks = np.empty(fields["d"].shape, LAYOUT)
    blocks["d"], blocks["s"], blocks["qs"] = fields["d"], fields["s"], fields["q"]
    return raw(blocks)


@kernel
def dequantize(block: Rows, y: Rows) -> None:
    store_run(y, 0, as_float(load_run_signed(block, QS, 32)) * run_half(block, D))


@kernel
def quantize_blocks(x: Rows, block: Rows) -> None:
    d, total = round_bytes(x, block, QS)
    put_shorts(block, D, half_bits(d))
    put_shorts(block, S, half_bits(as_float(total) * d))


FORMAT = BlockFormat(
    __doc__,
    TYPE,
    LAYOUT,
    unpack,
    pack,
    decoder=BlockDecoder(dequantize),
    quantizer=BlockRounding(quantize_blocks, sure=np.float32(1024)),  # s is the sum of 32
)
