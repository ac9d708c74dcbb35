"""What Q3_K and Q6_K share: one signed scale for each sub-block of 16, x = d * sc * (q - nmax)."""

from __future__ import annotations

import numpy as np

from kquant.formats.scale_search import ONE, ZERO, clamp
from kquant.kernels.language.lanes import Lanes, Rows, larger, load, nearest_quotient, store, where, zeros
from kquant.kernels.language.mark import kernel

__all__ = ["largest_scale", "requantize"]


@kernel
def largest_scale(scales: Rows) -> tuple[Lanes, Lanes]:
    """The first of the 16 scales of largest magnitude, and that magnitude."""
    extreme = zeros(scales)
    magnitude = zeros(scales)
    for j in range(16):
        scale = load(scales, j)
        extreme = where(np.abs(scale) > magnitude, scale, extreme)
        magnitude = larger(np.abs(scale), magnitude)
    return extreme, magnitude


@kernel
def requantize(x: Rows, j: int, nmax: np.float32, step: Lanes, levels: Rows) -> None:
    """The final levels 0 .. 2 * nmax - 1 of sub-block j, in rows 16 j .. of `levels`.

    A sub-block whose rounded scale is zero keeps the levels of the search.
    """
    lowest, highest = zeros(x) - nmax, zeros(x) + (nmax - ONE)
    dead = step == ZERO
    all_alive = np.all(~dead)
    for i in range(16 * j, 16 * j + 16):
        level = clamp(nearest_quotient(load(x, i), step), lowest, highest) + nmax
        store(levels, i, level if all_alive else where(dead, load(levels, i), level))
