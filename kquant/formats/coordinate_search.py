"""The search of Q3_K without importance weights: one level at a time.

Source: `make_q3_quants` in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c
"""

from __future__ import annotations

import numpy as np

from kquant.formats.scale_search import GROUP_MAX_EPS, ONE, ZERO, clamp, largest_magnitude
from kquant.kernels.jit import kernel
from kquant.kernels.lanes import (
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

f32 = np.float32
ALMOST_HALF = f32(0.499)
NORMAL = f32(1e-30)
"""Products above this are far from underflow, where rounding moves a quotient by more than 1e-6."""


@kernel
def move(
    level: Lanes,
    part_lx: Lanes,
    part_l2: Lanes,
    sum_lx: Lanes,
    sum_l2: Lanes,
    moved: Lanes,
    x: Lanes,
    lx: Lanes,
    l2: Lanes,
    nmax: f32,
) -> tuple[Lanes, Lanes, Lanes, Lanes, Lanes, Lanes]:
    """One level of `coordinate_search` and its parts of the sums: as they were, or moved.

    lx, l2: the sums without these parts.
    """
    new = clamp(nearest_int(x * l2 / lx), -nmax, nmax - ONE)
    w = x * x
    new_part_lx, new_part_l2 = w * x * new, w * new * new
    new_lx, new_l2 = lx + new_part_lx, l2 + new_part_l2
    better = (lx > ZERO) & (new != level) & (new_l2 > ZERO)
    better = better & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
    return (
        where(better, new, level),
        where(better, new_part_lx, part_lx),
        where(better, new_part_l2, part_l2),
        where(better, new_lx, sum_lx),
        where(better, new_l2, sum_l2),
        where(better, ONE, moved),
    )


@kernel
def sweep(
    sum_lx: Lanes,
    sum_l2: Lanes,
    active: Lanes,
    levels: Rows,
    parts_lx: Rows,
    parts_l2: Rows,
    x: Rows,
    nmax: f32,
) -> tuple[Lanes, Lanes, Lanes]:
    """Every level of `coordinate_search` once, in the active lanes; returns the sums, and where one moved."""
    lowest, highest = zeros(x) - nmax, zeros(x) + (nmax - ONE)
    moved = zeros(x)
    for i in range(x.shape[0]):
        xi, level, part_lx, part_l2 = load(x, i), load(levels, i), load(parts_lx, i), load(parts_l2, i)
        lx, l2 = sum_lx - part_lx, sum_l2 - part_l2
        # x * l2 / lx, clamped, surely rounds to the same level: known without the division
        target = clamp(xi * l2, lowest * lx, highest * lx)
        near = np.abs(target - level * lx) + NORMAL < ALMOST_HALF * lx
        unsure = (active != ZERO) & ~near
        if np.all(~unsure):
            continue
        state = (level, part_lx, part_l2, sum_lx, sum_l2, moved)
        level, part_lx, part_l2, sum_lx, sum_l2, moved = update(unsure, move, state, (xi, lx, l2), nmax)
        store(levels, i, level)
        store(parts_lx, i, part_lx)
        store(parts_l2, i, part_l2)
    return sum_lx, sum_l2, moved


@kernel
def coordinate_search(x: Rows, nmax: f32, levels: Rows, room: Rows) -> Lanes:
    """Scale by moving one level at a time while that lowers the error weighted with x**2.

    x: the rows of the group; room: twice as many.
    """
    n = x.shape[0]
    parts_lx, parts_l2 = room[:n], room[n:]
    extreme, magnitude = largest_magnitude(x, 0, n)
    empty = magnitude < GROUP_MAX_EPS
    inverse = -nmax / where(empty, ONE, extreme)
    lowest, highest = zeros(x) - nmax, zeros(x) + (nmax - ONE)
    sum_lx = zeros(x)
    sum_l2 = zeros(x)
    for i in range(n):
        xi = load(x, i)
        wi = xi * xi
        level = clamp(round_even(inverse * xi), lowest, highest)
        part_lx, part_l2 = wi * xi * level, wi * level * level
        sum_lx, sum_l2 = sum_lx + part_lx, sum_l2 + part_l2
        store(levels, i, level)
        store(parts_lx, i, part_lx)
        store(parts_l2, i, part_l2)
    # A positive extreme makes every level's sign the opposite of x's, so that no lx is ever positive:
    # ggml moves levels for the negative ones alone.  What did not move in a whole sweep never will.
    active = where(~empty & (extreme < ZERO), ONE, ZERO)
    for _ in range(5):
        if np.all(active == ZERO):
            break
        state, rows = (sum_lx, sum_l2, active), (levels, parts_lx, parts_l2)
        sum_lx, sum_l2, active = update_rows(active != ZERO, sweep, state, rows, (x,), nmax)
    there = where(empty, ZERO, ONE)
    for i in range(n):
        store(levels, i, (load(levels, i) + nmax) * there)
    return where(~empty & (sum_l2 > ZERO), sum_lx / sum_l2, ZERO)
