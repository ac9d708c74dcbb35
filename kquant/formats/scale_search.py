"""The searches for scales that several formats share.

Each works on one group of `n` elements, rows `at` .. `at + n` of `x`, in every lane; `w` holds the
n weights of the group.  Results are float32 lanes; levels are float32 rows that hold integers.

Sources: `make_qkx2_quants`, `make_qkx3_quants`, `make_qx_quants` and `make_qp_quants` in
https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c
"""

from __future__ import annotations

import numpy as np

from kquant.kernels.language.lanes import (
    ROUNDING_RANGE,
    Lanes,
    Rows,
    as_float,
    as_int,
    larger,
    load,
    nearest_int,
    round_even,
    smaller,
    store,
    where,
    zeros,
)
from kquant.kernels.language.mark import kernel

f32 = np.float32
ZERO = f32(0.0)
ONE = f32(1.0)
HALF = f32(0.5)
TENTH = f32(0.1)
NAN = f32(np.nan)
GROUP_MAX_EPS = f32(1e-15)
"""A group whose largest magnitude lies below this counts as zero."""


@kernel
def clamp(level: Lanes, lowest: Lanes, highest: Lanes) -> Lanes:
    """For what `round_even` and `nearest_int` return: neither NaN nor -0, which would need `smaller`."""
    return np.maximum(np.minimum(level, highest), lowest)


# ---------------------------------------------------------------- x = scale * level + low


@kernel
def affine_trial(
    x: Rows, at: int, n: int, w: Rows, inverse: Lanes, low: Lanes, nmax: f32, outside: bool, levels: Rows
) -> tuple[Lanes, Lanes, Lanes]:
    """Levels for one trial, and the sums of w * level, w * level**2 and w * level * x."""
    lowest, highest = zeros(x), zeros(x) + nmax
    sum_l = zeros(x)
    sum_l2 = zeros(x)
    sum_xl = zeros(x)
    for i in range(n):
        xi = load(x, at + i)
        value = inverse * (xi - low)
        if outside:
            value = nearest_int(value)
        level = clamp(round_even(value), lowest, highest)
        store(levels, i, level)
        wl = load(w, i) * level
        sum_l = sum_l + wl
        sum_l2 = sum_l2 + wl * level
        sum_xl = sum_xl + wl * xi
    return sum_l, sum_l2, sum_xl


@kernel
def affine_error(
    x: Rows, at: int, n: int, w: Rows, levels: Rows, scale: Lanes, low: Lanes, absolute: bool
) -> Lanes:
    """The weighted sum of absolute or squared differences."""
    error = zeros(x)
    for i in range(n):
        difference = scale * load(levels, i) + low - load(x, at + i)
        difference = np.abs(difference) if absolute else difference * difference
        error = error + load(w, i) * difference
    return error


@kernel
def is_outside_rounding_range(inverse: Lanes, low: Lanes, lowest: Lanes, highest: Lanes) -> bool:
    """Whether any level of the trial lies where `round_even` is not ggml's `nearest_int`.

    inverse * (x - low) is monotone in x, so the extremes of x tell.
    """
    below, above = np.abs(inverse * (lowest - low)), np.abs(inverse * (highest - low))
    return not np.all((below < ROUNDING_RANGE) & (above < ROUNDING_RANGE))


@kernel
def affine_search(
    x: Rows,
    at: int,
    n: int,
    w: Rows,
    nmax: f32,
    rmin: f32,
    rdelta: f32,
    nstep: int,
    absolute: bool,
    levels: Rows,
) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    """Scale and minimum of least weighted error; then what `affine_levels` needs for their levels.

    The best minimum so far takes part in the next trial; nstep + 1 trials follow the first guess.
    """
    xi, sum_w = load(x, at), load(w, 0)
    lowest, highest, sum_x = xi, xi, sum_w * xi
    for i in range(1, n):
        xi, wi = load(x, at + i), load(w, i)
        lowest, highest = smaller(xi, lowest), larger(xi, highest)
        sum_w, sum_x = sum_w + wi, sum_x + wi * xi
    low = where(lowest > ZERO, ZERO, lowest)
    flat = highest == low
    first_low = low

    inverse = where(flat, ZERO, nmax / (highest - low))
    scale = where(flat, ZERO, ONE / inverse)
    affine_trial(
        x, at, n, w, inverse, low, nmax, is_outside_rounding_range(inverse, low, lowest, highest), levels
    )
    best = affine_error(x, at, n, w, levels, scale, low, absolute)
    best = where(flat, ZERO, best)
    best_inverse, best_low = inverse, low

    for step in range(nstep + 1):
        inverse = (rmin + rdelta * f32(step) + nmax) / where(flat, ONE, highest - low)
        outside = is_outside_rounding_range(inverse, low, lowest, highest)
        sum_l, sum_l2, sum_xl = affine_trial(x, at, n, w, inverse, low, nmax, outside, levels)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        clipped = new_low > ZERO
        new_scale = where(clipped, sum_xl / sum_l2, new_scale)
        new_low = where(clipped, ZERO, new_low)
        error = affine_error(x, at, n, w, levels, new_scale, new_low, absolute)
        better = (determinant > ZERO) & (error < best)
        best = where(better, error, best)
        best_inverse, best_low = where(better, inverse, best_inverse), where(better, low, best_low)
        scale, low = where(better, new_scale, scale), where(better, new_low, low)
    return where(flat, ZERO, scale), -where(flat, first_low, low), best_inverse, best_low


@kernel
def affine_levels(x: Rows, at: int, n: int, inverse: Lanes, low: Lanes, nmax: f32, levels: Rows) -> None:
    """The levels of a trial, once more."""
    for i in range(n):
        store(levels, i, clamp(nearest_int(inverse * (load(x, at + i) - low)), ZERO, nmax))


# ---------------------------------------------------------------- x = scale * level, level >= 0


@kernel
def wrap8(level: Lanes) -> Lanes:
    """ggml keeps these levels in a byte; a negative one comes back as 256 less its size."""
    return as_float(as_int(level) & 255)


@kernel
def positive_search(x: Rows, n: int, w: Rows, nmax: f32, levels: Rows) -> Lanes:
    """Scale and levels 0 .. nmax for the scales or minima of a super-block."""
    highest = zeros(x)
    for i in range(n):
        highest = larger(highest, load(x, i))
    empty = highest < GROUP_MAX_EPS
    divisor = where(empty, ONE, highest)

    inverse = nmax / divisor
    scale = ONE / inverse
    best = zeros(x)
    for i in range(n):
        xi = load(x, i)
        difference = xi - scale * wrap8(nearest_int(inverse * xi))
        best = best + load(w, i) * difference * difference
    for step in range(-4, 5):
        if step == 0:
            continue
        trial = (TENTH * f32(step) + nmax) / divisor
        scale = ONE / trial
        error = zeros(x)
        for i in range(n):
            xi = load(x, i)
            difference = xi - scale * smaller(nearest_int(trial * xi), nmax)
            error = error + load(w, i) * difference * difference
        better = error < best
        best, inverse = where(better, error, best), where(better, trial, inverse)

    sum_lx = zeros(x)
    sum_l2 = zeros(x)
    for i in range(n):
        xi, wi = load(x, i), load(w, i)
        level = smaller(nearest_int(inverse * xi), nmax)
        store(levels, i, wrap8(level))
        sum_lx = sum_lx + wi * xi * level
        sum_l2 = sum_l2 + wi * level * level
    for _ in range(5):
        changed = empty & ~empty
        for i in range(n):
            xi, wi, level = load(x, i), load(w, i), load(levels, i)
            lx = sum_lx - wi * xi * level
            l2 = sum_l2 - wi * level * level
            new = smaller(nearest_int(xi * l2 / lx), nmax)
            new_lx = lx + wi * xi * new
            new_l2 = l2 + wi * new * new
            better = (lx > ZERO) & (l2 > ZERO) & (new != level)
            better = better & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
            store(levels, i, where(better, wrap8(new), level))
            sum_lx, sum_l2 = where(better, new_lx, sum_lx), where(better, new_l2, sum_l2)
            changed = changed | better
        if np.all(~changed):
            break
    for i in range(n):
        store(levels, i, where(empty, ZERO, load(levels, i)))
    return where(~empty & (sum_l2 > ZERO), sum_lx / sum_l2, ZERO)


# ---------------------------------------------------------------- x = scale * level, -nmax <= level < nmax


@kernel
def largest_magnitude(x: Rows, at: int, n: int) -> tuple[Lanes, Lanes]:
    """The first element of largest magnitude, and that magnitude."""
    extreme = zeros(x)
    magnitude = zeros(x)
    for i in range(n):
        xi = load(x, at + i)
        ax = np.abs(xi)
        extreme, magnitude = where(ax > magnitude, xi, extreme), np.fmax(ax, magnitude)
    return extreme, magnitude


@kernel
def all_finite(x: Rows) -> bool:
    """Whether no element is NaN or infinite, in any lane."""
    total = zeros(x)
    for i in range(x.shape[0]):
        total = total + ZERO * load(x, i)
    return bool(np.all(total == ZERO))


@kernel
def symmetric_sums(
    x: Rows, at: int, n: int, w: Rows, wx: Rows, step: int, inverse: Lanes, nmax: f32, finite: bool
) -> tuple[Lanes, Lanes]:
    """The sums of w * x * level and w * level**2 of one trial."""
    lowest, highest = zeros(x) - nmax, zeros(x) + (nmax - ONE)
    sum_lx = zeros(x)
    sum_l2 = zeros(x)
    for i in range(n):
        value = inverse * load(x, at + i)
        if not finite:  # the level of NaN is 0
            value = nearest_int(value)
        level = np.minimum(round_even(value), highest)
        if step > 4:  # else no x reaches beyond -(nmax + 0.4)
            level = np.maximum(level, lowest)
        sum_lx = sum_lx + load(wx, i) * level
        sum_l2 = sum_l2 + load(w, i) * level * level
    return sum_lx, sum_l2


@kernel
def symmetric_search(
    x: Rows, at: int, n: int, w: Rows, nmax: f32, wx: Rows, finite: bool
) -> tuple[Lanes, Lanes]:
    """Scale of least weighted error, and the inverse that `symmetric_levels` needs for its levels.

    wx: n rows of scratch for w * x.  finite: whether every x is; scales whose sums overflowed are not.
    """
    extreme, magnitude = largest_magnitude(x, at, n)
    empty = magnitude < GROUP_MAX_EPS
    extreme = where(empty, ONE, extreme)
    for i in range(n):
        store(wx, i, load(w, i) * load(x, at + i))

    inverse = -nmax / extreme
    sum_lx, sum_l2 = symmetric_sums(x, at, n, w, wx, 0, inverse, nmax, finite)
    scale = where(sum_l2 != ZERO, sum_lx / sum_l2, ZERO)
    best = scale * sum_lx
    for step in range(-9, 10):
        if step == 0:
            continue
        trial = -(nmax + TENTH * f32(step)) / extreme
        sum_lx, sum_l2 = symmetric_sums(x, at, n, w, wx, step, trial, nmax, finite)
        better = (sum_l2 > ZERO) & (sum_lx * sum_lx > best * sum_l2)
        scale = where(better, sum_lx / sum_l2, scale)
        best = where(better, scale * sum_lx, best)
        inverse = where(better, trial, inverse)
    inverse = where(inverse == ZERO, NAN, inverse)  # of an infinite extreme: not empty, every level is 0
    return where(empty, ZERO, scale), where(empty, ZERO, inverse)


@kernel
def symmetric_levels(x: Rows, at: int, n: int, inverse: Lanes, nmax: f32, levels: Rows) -> None:
    """The levels of a trial plus nmax; 0 for a group that is zero (its inverse is)."""
    for i in range(n):
        level = clamp(nearest_int(inverse * load(x, at + i)), -nmax, nmax - ONE)
        store(levels, i, where(inverse == ZERO, ZERO, level + nmax))
