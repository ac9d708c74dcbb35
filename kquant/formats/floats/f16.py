"""F16: IEEE 754 half precision, 16 bits per element, one number a block.

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      2     x       ``SEEEEEMM MMMMMMMM``  sign, exponent (bias 15), mantissa, little endian
====== ===== ======= ==========================================================================

Rounds to nearest, half to even, subnormals kept; NaN becomes sign | 0x7e00.

Source: `ggml_fp32_to_fp16_row` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml.c
"""

from __future__ import annotations

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw
from kquant.kernels.execute import NumberDecoder, NumberEncoder
from kquant.kernels.language.dot import NumberDot
from kquant.kernels.language.lanes import Lanes, float_of_half, half_bits_of_number
from kquant.kernels.language.mark import kernel
from kquant.types import TensorType

TYPE = TensorType.F16
LAYOUT = np.dtype([("x", "<f2")])
(X,) = offsets(LAYOUT, TYPE)


def unpack(data: Bytes) -> Fields:
    """x: float16 (...)."""
    return {"x": blocks_of(data, LAYOUT)["x"]}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    return raw(fields["x"])


@kernel
def decode(bits: Lanes) -> Lanes:
    return float_of_half(bits)


@kernel
def encode(value: Lanes) -> Lanes:
    return half_bits_of_number(value)


FORMAT = BlockFormat(
    __doc__,
    TYPE,
    LAYOUT,
    unpack,
    pack,
    decoder=NumberDecoder(decode),
    quantizer=NumberEncoder(encode),
    dot=NumberDot(TYPE),
)
