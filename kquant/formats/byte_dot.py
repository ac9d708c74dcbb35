"""What the dot products of blocks of 32 with Q8_0 and Q8_1 share."""

from __future__ import annotations

import numpy as np

from kquant.kernels.jit import kernel
from kquant.kernels.lanes import Lanes, Rows, as_float, count_up, run_half
from kquant.kernels.products import (
    add_products,
    bytes_of,
    joined,
    load_bytes,
    load_signed_bytes,
    no_sum,
    repeated,
    shorts_of,
)

Q8_0_D, Q8_0_QS = 0, 2
Q8_1_D, Q8_1_S, Q8_1_QS = 0, 2, 4
"""Where the partners keep their fields: the room of Q8_0 itself needs them."""
SHARE = np.float32(1 / 8)
"""Of a float that is added once, in each of 8 lanes."""


@kernel
def levels(block: Rows, at: int) -> Lanes:
    """Bits 0-3 of the 32 levels."""
    qs = load_bytes(block, at, 16)
    return joined(qs & 15, qs >> 4)


@kernel
def sum_32(q: Lanes, a: Rows, at: int) -> Lanes:
    """The sum of q * activation for 32 int16 q and the bytes from `at` on."""
    total = add_products(no_sum(8), repeated(q, 0, 16, 1), shorts_of(load_signed_bytes(a, at, 16)))
    return as_float(add_products(total, repeated(q, 16, 16, 1), shorts_of(load_signed_bytes(a, at + 16, 16))))


@kernel
def fifth_bits(block: Rows, at: int) -> Lanes:
    """16 * bit 4 of the 32 levels, whose bit l is bit l of the 32-bit number at byte `at`."""
    bits = repeated(load_bytes(block, at, 4), 0, 4, 8)
    return ((bits >> bytes_of(count_up(32) & 7)) & 1) << 4


@kernel
def symmetric_dot(q: Lanes, d: Lanes, a: Rows) -> Lanes:
    """Of int8 with a block of Q8_0."""
    return sum_32(shorts_of(q), a, Q8_0_QS) * (d * run_half(a, Q8_0_D))


@kernel
def affine_dot(q: Lanes, d: Lanes, m: Lanes, a: Rows) -> Lanes:
    """Of uint8 with a block of Q8_1, whose sum the minimum multiplies."""
    total = sum_32(shorts_of(q), a, Q8_1_QS)
    return d * run_half(a, Q8_1_D) * total + m * run_half(a, Q8_1_S) * SHARE
