"""What Q4_0, Q4_1, Q5_0 and Q5_1 share: blocks of 32 whose elements l and 16 + l share a byte."""

from __future__ import annotations

import numpy as np

from kquant.formats.scale_search import (
    HALF,
    ONE,
    ZERO,
    affine_levels,
    affine_search,
    symmetric_levels,
    symmetric_search,
)
from kquant.kernels.language.blocks import (
    apart,
    count,
    first_of,
    highest,
    lowest,
    of_block,
    put_bits,
    put_run,
    run_of,
)
from kquant.kernels.language.lanes import (
    Lanes,
    Rows,
    as_int,
    count_up,
    larger,
    load,
    load_run,
    smaller,
    store,
    where,
)
from kquant.kernels.language.mark import kernel

f32 = np.float32
NONE = -1
"""Where levels of four bits have their fifth."""


@kernel
def reciprocal(d: Lanes) -> Lanes:
    return where(d != ZERO, ONE / d, ZERO)


@kernel
def cut(value: Lanes, highest: f32) -> Lanes:
    """0 .. highest; NaN becomes the highest."""
    return larger(smaller(value, highest), ZERO)


@kernel
def extreme(x: Rows) -> Lanes:
    """The first of the elements of largest magnitude, +0 where all are zero."""
    high, low = highest(x), lowest(x)
    found = where(high > -low, high, low)
    if not np.all(high != -low):
        found = where(high == -low, first_of(x, high) + ZERO, found)
    return found


@kernel
def bounds(x: Rows) -> tuple[Lanes, Lanes]:
    """The lowest element, the first of several equal ones, and the highest."""
    high, low = highest(x), lowest(x)
    if not np.all(low != ZERO):
        low = where(low == ZERO, first_of(x, np.abs(low)), low)
    return low, where(high == low, low, high)


@kernel
def round_symmetric(x: Rows, nmax: f32, block: Rows, at: int, high_at: int) -> Lanes:
    """d = extreme / -nmax; levels 0 .. 2 * nmax - 1 to byte `at`, their fifth bits to `high_at`, if there.

    1 / d overflows when every element is denormal; C then casts an infinity to an integer, which
    is undefined.  Here such a level is the nearest that exists (and the highest for 0 * infinity).
    """
    d = extreme(x) / -nmax
    inverse = apart(reciprocal(d))
    for b in range(count(x)):
        factor = of_block(inverse, b)
        low = cut(run_of(x, b, 0, 16) * factor + (nmax + HALF), nmax + nmax - ONE)
        high = cut(run_of(x, b, 16, 16) * factor + (nmax + HALF), nmax + nmax - ONE)
        put_levels(block, b, at, high_at, as_int(low), as_int(high))
    return d


@kernel
def round_affine(x: Rows, nmax: f32, block: Rows, at: int, high_at: int) -> tuple[Lanes, Lanes]:
    """d = (highest - lowest) / nmax and m = lowest, and levels 0 .. nmax.  Denormals as above."""
    m, top = bounds(x)
    d = (top - m) / nmax
    inverse, minimum = apart(reciprocal(d)), apart(m)
    for b in range(count(x)):
        factor, less = of_block(inverse, b), of_block(minimum, b)
        low = cut((run_of(x, b, 0, 16) - less) * factor + HALF, nmax)
        high = cut((run_of(x, b, 16, 16) - less) * factor + HALF, nmax)
        put_levels(block, b, at, high_at, as_int(low), as_int(high))
    return d, m


@kernel
def put_levels(block: Rows, b: int, at: int, high_at: int, low: Lanes, high: Lanes) -> None:
    """Bits 0-3 of elements l and 16 + l to byte `at` + l, bit 4 of element l to bit l from `high_at` on."""
    put_run(block, b, at, (low & 15) | ((high & 15) << 4))
    if high_at != NONE:
        put_bits(block, b, high_at, low > 15)
        put_bits(block, b, high_at + 2, high > 15)


@kernel
def weigh(x: Rows, weights: Rows, row_mean: Rows) -> Rows:
    """importance * sqrt(mean square of the row + x**2)."""
    w = np.empty((32, x.shape[1]), np.float32)
    mean = load(row_mean, 0)
    for i in range(32):
        xi = load(x, i)
        store(w, i, load(weights, i) * np.sqrt(mean + xi * xi))
    return w


@kernel
def symmetric_weighted(x: Rows, weights: Rows, row_mean: Rows, nmax: f32, levels: Rows) -> Lanes:
    """d and levels 0 .. 2 * nmax - 1 of least weighted error."""
    d, inverse = symmetric_search(x, 0, 32, weigh(x, weights, row_mean), nmax, levels, True)
    symmetric_levels(x, 0, 32, inverse, nmax, levels)
    return d


@kernel
def affine_weighted(x: Rows, weights: Rows, row_mean: Rows, nmax: f32, levels: Rows) -> tuple[Lanes, Lanes]:
    """d, m and levels 0 .. nmax of least weighted error."""
    w = weigh(x, weights, row_mean)
    d, minimum, inverse, low = affine_search(x, 0, 32, w, nmax, f32(-0.9), f32(0.05), 36, False, levels)
    affine_levels(x, 0, 32, inverse, low, nmax, levels)
    return d, -minimum


@kernel
def store_nibbles(levels: Rows, at: int, block: Rows) -> None:
    """Bits 0-3 of elements l and 16 + l into byte `at` + l."""
    for i in range(16):
        low, high = as_int(load(levels, i)), as_int(load(levels, 16 + i))
        store(block, at + i, (low & 15) | ((high & 15) << 4))


@kernel
def store_fifth_bits(levels: Rows, at: int, block: Rows) -> None:
    """Bit 4 of element l into bit l of the 32-bit number at byte `at`."""
    for k in range(4):
        bits = as_int(load(levels, 8 * k)) >> 4
        for i in range(1, 8):
            bits = bits | ((as_int(load(levels, 8 * k + i)) >> 4) << i)
        store(block, at + k, bits)


@kernel
def run_nibbles(block: Rows, at: int) -> tuple[Lanes, Lanes]:
    """Bits 0-3 of elements 0 .. 15 and of elements 16 .. 31."""
    qs = load_run(block, at, 16)
    return qs & 15, qs >> 4


@kernel
def run_fifth_bits(block: Rows, at: int) -> tuple[Lanes, Lanes]:
    """16 * bit 4 of elements 0 .. 15 and of elements 16 .. 31."""
    shifts = count_up(16)
    low = load_run(block, at, 1) | (load_run(block, at + 1, 1) << 8)
    high = load_run(block, at + 2, 1) | (load_run(block, at + 3, 1) << 8)
    return ((low >> shifts) & 1) << 4, ((high >> shifts) & 1) << 4
