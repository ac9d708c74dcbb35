"""BF16: the upper half of a float32, 16 bits per element, one number a block.

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      2     x       ``SEEEEEEE EMMMMMMM``  sign, exponent (bias 127), mantissa, little endian
====== ===== ======= ==========================================================================

Rounds to nearest, half to even, subnormals kept; a NaN loses its lower half and becomes quiet.

Source: `ggml_compute_fp32_to_bf16` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-impl.h
"""

from __future__ import annotations

import numpy as np

from kquant.formats.base import BlockFormat
from kquant.formats.fields import Bytes, Fields, blocks_of, offsets, raw
from kquant.kernels.execute import NumberDecoder, NumberEncoder
from kquant.kernels.language.dot import NumberDot
from kquant.kernels.language.lanes import Lanes, bits_of_float, float_of_bits
from kquant.kernels.language.mark import kernel
from kquant.types import TensorType

TYPE = TensorType.BF16
LAYOUT = np.dtype([("x", "<u2")])
(X,) = offsets(LAYOUT, TYPE)
END = np.uint32(0x7F7F8000).view(np.float32)
"""Half a step above the largest number: from here on all become infinite."""


def unpack(data: Bytes) -> Fields:
    """x: uint16 (...), the bit patterns."""
    return {"x": blocks_of(data, LAYOUT)["x"]}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    return raw(fields["x"])


@kernel
def decode(bits: Lanes) -> Lanes:
    return float_of_bits(bits << 16)


@kernel
def encode(value: Lanes) -> Lanes:
    bits = bits_of_float(value)
    return (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16


FORMAT = BlockFormat(
    __doc__,
    TYPE,
    LAYOUT,
    unpack,
    pack,
    decoder=NumberDecoder(decode),
    quantizer=NumberEncoder(encode, END),
    dot=NumberDot(TYPE),
)
