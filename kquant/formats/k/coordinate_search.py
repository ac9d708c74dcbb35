"""The search of Q3_K without importance weights: one level at a time.

Source: `make_q3_quants` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c
"""

from __future__ import annotations

import numpy as np

from kquant.formats.scale_search import GROUP_MAX_EPS, ONE, ZERO, clamp, largest_magnitude
from kquant.kernels.language.lanes import (
    Lanes,
    Rows,
    load,
    nearest_int,
    round_even,
    store,
    update,
    update_rows,
    where,
    zeros,
)
from kquant.kernels.language.mark import kernel

f32 = np.float32
ALMOST_HALF = f32(0.499)
NORMAL = f32(1e-30)
"""Products above this are far from underflow, where rounding moves a quotient by more than 1e-6."""


@kernel
def move(
    level: Lanes, sum_lx: Lanes, sum_l2: Lanes, moved: Lanes, x: Lanes, lx: Lanes, l2: Lanes, nmax: f32
) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    """One level and the sums: as they were, or moved.

    lx, l2: the sums without this level's part.
    """
    new = clamp(nearest_int(x * l2 / lx), -nmax, nmax - ONE)
    w = x * x
    new_lx, new_l2 = lx + w * x * new, l2 + w * new * new
    better = (lx > ZERO) & (new != level) & (new_l2 > ZERO)
    better = better & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
    return (
        where(better, new, level),
        where(better, new_lx, sum_lx),
        where(better, new_l2, sum_l2),
        where(better, ONE, moved),
    )


@kernel
def sweep(
    sum_lx: Lanes, sum_l2: Lanes, active: Lanes, levels: Rows, x: Rows, nmax: f32
) -> tuple[Lanes, Lanes, Lanes]:
    """Every level once; returns the sums, and where one moved."""
    moved = zeros(x)
    for i in range(x.shape[0]):
        xi, level = load(x, i), load(levels, i)
        w = xi * xi
        lx, l2 = sum_lx - w * xi * level, sum_l2 - w * level * level
        level, sum_lx, sum_l2, moved = move(level, sum_lx, sum_l2, moved, xi, lx, l2, nmax)
        store(levels, i, level)
    return sum_lx, sum_l2, moved


@kernel
def late_sweep(
    sum_lx: Lanes, sum_l2: Lanes, active: Lanes, levels: Rows, x: Rows, nmax: f32
) -> tuple[Lanes, Lanes, Lanes]:
    """The same where few lanes are active and few levels move: most are known to stay without a division."""
    lowest, highest = zeros(x) - nmax, zeros(x) + (nmax - ONE)
    moved = zeros(x)
    for i in range(x.shape[0]):
        xi, level = load(x, i), load(levels, i)
        w = xi * xi
        lx, l2 = sum_lx - w * xi * level, sum_l2 - w * level * level
        # x * l2 / lx, clamped, surely rounds to the same level
        target = clamp(xi * l2, lowest * lx, highest * lx)
        near = np.abs(target - level * lx) + NORMAL < ALMOST_HALF * lx
        unsure = (active != ZERO) & ~near
        if np.all(~unsure):
            continue
        state = level, sum_lx, sum_l2, moved
        level, sum_lx, sum_l2, moved = update(unsure, move, state, (xi, lx, l2), nmax)
        store(levels, i, level)
    return sum_lx, sum_l2, moved


@kernel
def coordinate_search(x: Rows, nmax: f32, levels: Rows) -> Lanes:
    """Scale of a group by moving one level at a time while that lowers the error weighted with x**2."""
    extreme, magnitude = largest_magnitude(x, 0, x.shape[0])
    empty = magnitude < GROUP_MAX_EPS
    inverse = -nmax / where(empty, ONE, extreme)
    lowest, highest = zeros(x) - nmax, zeros(x) + (nmax - ONE)
    sum_lx = zeros(x)
    sum_l2 = zeros(x)
    for i in range(x.shape[0]):
        xi = load(x, i)
        w = xi * xi
        level = clamp(round_even(inverse * xi), lowest, highest)
        sum_lx, sum_l2 = sum_lx + w * xi * level, sum_l2 + w * level * level
        store(levels, i, level)
    # A positive extreme makes every level's sign the opposite of x's, so that no lx is ever positive:
    # ggml moves levels for the negative ones alone.  What did not move in a whole sweep never will.
    active = where(~empty & (extreme < ZERO), ONE, ZERO)
    for _ in range(2):
        state = sum_lx, sum_l2, active
        sum_lx, sum_l2, active = update_rows(active != ZERO, sweep, state, (levels,), (x,), nmax)
    for _ in range(3):
        if np.all(active == ZERO):
            break
        state = sum_lx, sum_l2, active
        sum_lx, sum_l2, active = update_rows(active != ZERO, late_sweep, state, (levels,), (x,), nmax)
    there = where(empty, ZERO, ONE)
    for i in range(x.shape[0]):
        store(levels, i, (load(levels, i) + nmax) * there)
    return where(~empty & (sum_l2 > ZERO), sum_lx / sum_l2, ZERO)
