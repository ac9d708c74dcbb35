"""F32: IEEE 754 single precision, 32 bits per element, one number a block.

====== ===== ======= ==========================================================================
offset bytes field   bits
====== ===== ======= ==========================================================================
0      4     x       ``SEEEEEEE EMMMMMMM MMMMMMMM MMMMMMMM``  sign, exponent (bias 127), mantissa,
                     little endian
====== ===== ======= ==========================================================================
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

TYPE = TensorType.F32
LAYOUT = np.dtype([("x", "<f4")])
(X,) = offsets(LAYOUT, TYPE)


def unpack(data: Bytes) -> Fields:
    """x: float32 (...)."""
    return {"x": blocks_of(data, LAYOUT)["x"]}


def pack(fields: Fields) -> Bytes:
    """The inverse of `unpack`."""
    return raw(fields["x"])


@kernel
def decode(bits: Lanes) -> Lanes:
    return float_of_bits(bits)


@kernel
def encode(value: Lanes) -> Lanes:
    return bits_of_float(value)


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
