"""What Q8_0 and Q8_1 share: 32 signed bytes, d = largest magnitude / 127, rounded half away from zero."""

from __future__ import annotations

import numpy as np

from kquant.formats.legacy_block import reciprocal
from kquant.formats.scale_search import ZERO, largest_magnitude
from kquant.kernels.lanes import Lanes, Rows, as_int, larger, load, smaller, store, where, zeros
from kquant.kernels.mark import kernel

f32 = np.float32
JUST_BELOW_HALF = f32(0.49999997)
"""Added to a magnitude before its fraction is cut, it rounds half up: 0.5 + this is 1 in float32."""
BYTE_MAX = f32(127)


@kernel
def round_bytes(x: Rows, block: Rows, at: int) -> tuple[Lanes, Lanes]:
    """Signed bytes to `at` .. `at` + 32 of the block; d, and the sum of the bytes.

    Where 1 / d overflows (every element denormal) C is undefined; here such a byte is the nearest
    that exists (and 127 for 0 * infinity).
    """
    _, magnitude = largest_magnitude(x, 0, 32)
    d = magnitude / BYTE_MAX
    inverse = reciprocal(d)
    total = as_int(zeros(x))
    for i in range(32):
        value = larger(smaller(load(x, i) * inverse, BYTE_MAX), -BYTE_MAX)
        q = as_int(value + where(value < ZERO, -JUST_BELOW_HALF, JUST_BELOW_HALF))
        store(block, at + i, q)
        total = total + q
    return d, total
