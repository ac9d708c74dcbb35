"""One column of packed super-blocks as compiled products of consecutive super-blocks read it.

Sixteen consecutive super-blocks of weights are multiplied with as many of the column, wherever in a row the
first of them is.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kquant.kernels.compile import compiled, group_size
from kquant.kernels.execute import Bytes, aligned_empty
from kquant.kernels.language.lanes import Rows
from kquant.kernels.language.mark import kernel
from kquant.kernels.layout import ROWS, RUN, SUPER_BLOCK, group_of_blocks, lanes_of_column

__all__ = ["Consecutive", "consecutive_of", "layout"]

SUMS = SUPER_BLOCK // 16 + SUPER_BLOCK // 32
"""Of 16 elements each, then of 32."""


class Consecutive(NamedTuple):
    """Groups of one or two super-blocks repeat after one row, or after two; tiles after sixteen or sooner."""

    groups: Bytes
    """(groups, bytes), see `layout.group_of_blocks`: so many that behind each group where sixteen consecutive
    super-blocks may begin the others of them follow.
    """
    lanes: Bytes
    """(tiles, bytes), see `layout.lanes_of_column`."""


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

    of_group (groups, size), of_lane (tiles, 16): which of the blocks are there.
    """
    found = np.empty((len(q), SUMS), np.int32)
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
            for j in range(SUMS):
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
    return compiled(lay_out, SIGNATURE, "q8_k-consecutive")


def consecutive_of(q: npt.NDArray[np.int8], d: npt.NDArray[np.float32]) -> Consecutive:
    """For this CPU, of q (blocks, 256) and d (blocks,)."""
    size = group_size()
    of_group, of_lane = _blocks_in_turn(len(q), size)
    groups, lanes = (
        aligned_empty((len(of_group),), group_of_blocks(size)),
        aligned_empty((len(of_lane),), lanes_of_column()),
    )
    fields = [groups["q"], groups["negative"], *(lanes[key] for key in ("sums", "high", "low", "factors"))]
    layout()(q, np.ascontiguousarray(d, np.float32), of_group, of_lane, *fields)
    return Consecutive(_bytes(groups), _bytes(lanes))


@lru_cache(64)
def _blocks_in_turn(n: int, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which of n blocks of a row are in each group (groups, size), and in each lane (tiles, 16)."""
    in_tile, period = ROWS // size, math.lcm(n, size) // size
    period *= -(-in_tile // period)  # no tile passes its end twice
    of_group = np.arange((period + in_tile - 1) * size).reshape(-1, size) % n
    of_lane = np.arange(math.lcm(n, ROWS)).reshape(-1, in_tile, size).swapaxes(1, 2).reshape(-1, ROWS) % n
    return of_group, of_lane


def _bytes(records: npt.NDArray[Any]) -> Bytes:
    return records.view(np.uint8).reshape(len(records), -1)
