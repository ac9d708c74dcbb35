"""Lowers fp16 on processors that cannot convert it: integers instead.

LLVM would call a function that Numba does not bring along (`__truncsfhf2`), which ends the process.
Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from kquant.kernels.language import lanes
from kquant.kernels.lowering.isa.facts import CONVERTS_HALVES

__all__ = ["float_of_half", "half_bits_of_number"]

_SIGN, _SIZE, _QUIET = 0x8000, 0x7FFF, 0x400000
_DROPPED = 13
"""Bits of the mantissa that float32 has and fp16 has not."""
_ONE_EXPONENT, _BIAS = 1 << 23, 112 << 23
"""In the bits of a float32: one step of the exponent, and by how many of them the two formats differ."""
_NORMAL, _INFINITE = 113 << 23, 143 << 23
"""The bits of float32 where fp16's normal numbers begin, and where they have ended."""
_HALF, _SMALLEST_NORMAL = np.float32(0.5), np.float32(2**-14)
_HALF_BITS = 126 << 23


def half_bits_of_number(value: Any) -> Any:
    """As `kquant.kernels.language.lanes.half_bits_of_number`."""
    bits = lanes.bits_of_float(value)
    size = bits & 0x7FFFFFFF
    # the last bit of a subnormal fp16 is worth what the last bit of 0.5 is: the addition rounds to it
    subnormal = lanes.bits_of_float(lanes.float_of_bits(size) + _HALF) - _HALF_BITS
    normal = (size - _BIAS + 0xFFF + ((size >> _DROPPED) & 1)) >> _DROPPED
    rounded = lanes.where(size < _NORMAL, subnormal, lanes.where(size < _INFINITE, normal, 0x7C00))
    return rounded | ((bits >> 16) & _SIGN)


def float_of_half(bits: Any) -> Any:
    """As `kquant.kernels.language.lanes.float_of_half`."""
    size = (bits & _SIZE) << _DROPPED
    normal = size + _BIAS
    subnormal = lanes.bits_of_float(lanes.float_of_bits(normal + _ONE_EXPONENT) - _SMALLEST_NORMAL)
    number = lanes.where(normal < _NORMAL, subnormal, normal)
    infinite = lanes.where(normal == _INFINITE, normal + _BIAS, (normal + _BIAS) | _QUIET)
    return lanes.float_of_bits(lanes.where(normal < _INFINITE, number, infinite) | ((bits & _SIGN) << 16))


if not CONVERTS_HALVES:

    @overload(lanes.half_bits_of_number)  # type: ignore[untyped-decorator]
    def _half_bits_of_number(value: Any) -> Any:
        return half_bits_of_number

    @overload(lanes.float_of_half)  # type: ignore[untyped-decorator]
    def _float_of_half(bits: Any) -> Any:
        return float_of_half
