"""One column of packed super-blocks as compiled products read it: strips.

Sixteen super-blocks of weights side by side, a strip, are multiplied with as many of the column, wherever in
a row the first of them is.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kquant.kernels.compile import compiled, group_size
from kquant.kernels.execute import Bytes, aligned_empty
from kquant.kernels.language.lanes import Rows
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.products import DIGITS, FACTORS, PAIRS, ROWS, SUPER_BLOCK

__all__ = ["Strips", "layout", "strips_of"]

RUN = 32
"""Activations of one super-block that lie side by side in a group's."""
_DIGITS = ("i1", (DIGITS // 4, ROWS, 4))
OF_LANES = np.dtype(
    [
        ("sums", "<i2", (PAIRS, ROWS, 2)),
        ("high", *_DIGITS),
        ("low", *_DIGITS),
        ("factors", "<f4", (FACTORS, ROWS)),
    ]
)


class Strips(NamedTuple):
    """Groups of one or two neighbours repeat after one row, or after two; strips after sixteen or sooner."""

    groups: Bytes
    """(groups, bytes): of each group the activations, 32 of one super-block after 32 of the other, and the
    negative sums of 16, first those of the even 16.

    So many that behind each where a strip may begin the others of this strip follow.
    """
    lanes: Bytes
    """(strips, bytes): of each lane the sums of activations, their digits, the factors."""


@kernel
def lay_out(
    q: Rows,
    d: Rows,
    of_group: Rows,
    of_lane: Rows,
    runs: Rows,
    negative: Rows,
    sums: Rows,
    high: Rows,
    low: Rows,
    factors: Rows,
) -> None:
    """Fills the fields of groups and lanes from q (blocks, 256) and d (blocks,).

    of_group (groups, size), of_lane (strips, 16): which of the blocks are there.
    """
    found = np.empty((len(q), DIGITS), np.int32)
    for b in range(len(q)):
        for j in range(16):
            total = 0
            for i in range(16 * j, 16 * j + 16):
                total += int(q[b, i])
            found[b, j] = total
        for j in range(8):
            found[b, 16 + j] = found[b, 2 * j] + found[b, 2 * j + 1]
    for g in range(len(of_group)):
        for k in range(of_group.shape[1]):
            b = of_group[g, k]
            for r in range(SUPER_BLOCK // RUN):
                for i in range(RUN):
                    runs[g, r, k, i] = q[b, RUN * r + i]
            for j in range(8):
                negative[g, k, j] = -found[b, 2 * j]
                negative[g, k, 8 + j] = -found[b, 2 * j + 1]
    for t in range(len(of_lane)):
        for lane in range(ROWS):
            b = of_lane[t, lane]
            for j in range(16):
                sums[t, j // 2, lane, j % 2] = found[b, j]
            for j in range(DIGITS):
                high[t, j // 4, lane, j % 4] = found[b, j] >> 7
                low[t, j // 4, lane, j % 4] = found[b, j] & 127
            factors[t, 0, lane] = d[b]


SIGNATURE = (
    "Array(int8, 2, 'A', readonly=True), R(float32, 1), R(int64, 2), R(int64, 2), Array(int8, 4, 'A'), "
    "Array(int16, 3, 'A'), Array(int16, 4, 'A'), Array(int8, 4, 'A'), Array(int8, 4, 'A'), "
    "Array(float32, 3, 'A')"
)


def layout() -> Any:
    """The compiled `lay_out`."""
    return compiled(lay_out, SIGNATURE, "q8_k-strips")


def strips_of(q: npt.NDArray[np.int8], d: npt.NDArray[np.float32]) -> Strips:
    """For this CPU, of q (blocks, 256) and d (blocks,)."""
    size = group_size()
    of_group, of_lane = _blocks_of_strips(len(q), size)
    groups, lanes = aligned_empty((len(of_group),), _group(size)), aligned_empty((len(of_lane),), OF_LANES)
    fields = [groups["q"], groups["negative"], *(lanes[key] for key in ("sums", "high", "low", "factors"))]
    layout()(q, np.ascontiguousarray(d, np.float32), of_group, of_lane, *fields)
    return Strips(_bytes(groups), _bytes(lanes))


@lru_cache(64)
def _blocks_of_strips(n: int, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which of n blocks of a row are in each group (groups, size), and in each lane (strips, 16)."""
    in_strip, period = ROWS // size, math.lcm(n, size) // size
    period *= -(-in_strip // period)  # no strip passes its end twice
    of_group = np.arange((period + in_strip - 1) * size).reshape(-1, size) % n
    of_lane = np.arange(math.lcm(n, ROWS)).reshape(-1, in_strip, size).swapaxes(1, 2).reshape(-1, ROWS) % n
    return of_group, of_lane


@cache
def _group(size: int) -> np.dtype[np.void]:
    """What a group of so many super-blocks is multiplied with."""
    return np.dtype([("q", "i1", (SUPER_BLOCK // RUN, size, RUN)), ("negative", "<i2", (size, 2 * PAIRS))])


def _bytes(records: npt.NDArray[Any]) -> Bytes:
    return records.view(np.uint8).reshape(len(records), -1)
