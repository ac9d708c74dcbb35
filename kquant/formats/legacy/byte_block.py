"""What Q8_0 and Q8_1 share: 32 signed bytes, d = largest magnitude / 127, rounded half away from zero."""

from __future__ import annotations

import numpy as np

from kquant.formats.legacy.legacy_block import reciprocal
from kquant.kernels.language.blocks import apart, count, largest, of_block, put_run, put_sum, run_of, together
from kquant.kernels.language.lanes import Lanes, Rows, as_int, larger, smaller
from kquant.kernels.language.mark import kernel

f32 = np.float32
JUST_BELOW_HALF = f32(0.49999997)
"""Added to a magnitude before its fraction is cut, it rounds half up: 0.5 + this is 1 in float32."""
BYTE_MAX = f32(127)


@kernel
def round_bytes(x: Rows, block: Rows, at: int) -> tuple[Lanes, Lanes]:
    """Signed bytes to `at` .. `at` + 32 of each block; d, and the sum of the bytes.

    Where 1 / d overflows (every element denormal) C is undefined; here such a byte is the nearest
    that exists (and 127 for 0 * infinity).
    """
    d = largest(x) / BYTE_MAX
    inverse, sums = apart(reciprocal(d)), apart(as_int(d))
    for b in range(count(x)):
        value = larger(smaller(run_of(x, b, 0, 32) * of_block(inverse, b), BYTE_MAX), -BYTE_MAX)
        q = as_int(value + np.copysign(JUST_BELOW_HALF, value))
        put_run(block, b, at, q)
        put_sum(sums, b, q)
    return d, together(sums)
