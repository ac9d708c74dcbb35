"""A column laid out for consecutive super-blocks, by compiled code and by the kernel as it stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kquant.kernels import consecutive
from kquant.kernels.consecutive import Consecutive, consecutive_of, lay_out
from kquant.kernels.layout import ROWS, group_of_blocks, lanes_of_column

Q = np.random.default_rng(0).integers(-128, 128, (33, 256)).astype(np.int8)
D = np.random.default_rng(1).standard_normal(33).astype(np.float32)


def fields_of(found: Consecutive, size: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Groups and lanes as records."""
    return found.groups.view(group_of_blocks(size))[:, 0], found.lanes.view(lanes_of_column())[:, 0]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("blocks", [1, 2, 3, 16, 33])
@pytest.mark.parametrize("compiled", [True, False])
def test_groups_and_lanes(blocks: int, size: int, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sixteen consecutive super-blocks find their activations, in groups and in lanes."""
    monkeypatch.setattr(consecutive, "group_size", lambda: size)
    if not compiled:
        monkeypatch.setattr(consecutive, "layout", lambda: lay_out)
    q, d = Q[:blocks], D[:blocks]
    groups, lanes = fields_of(consecutive_of(q, d), size)
    period = len(groups) - ROWS // size + 1
    g, sums = 0, q.reshape(blocks, 16, 16).sum(2, np.int32)
    for tile in range(blocks):
        here = np.arange(tile * ROWS, (tile + 1) * ROWS) % blocks
        mine = groups[g : g + ROWS // size]
        np.testing.assert_array_equal(mine["q"].swapaxes(1, 2).reshape(ROWS, 256), q[here])
        of_both = np.concatenate([sums[here, ::2], sums[here, 1::2]], 1)
        np.testing.assert_array_equal(mine["negative"].reshape(ROWS, 16), -of_both)
        in_lane = here.reshape(-1, size).T.reshape(-1)
        lane = lanes[tile % len(lanes)]
        np.testing.assert_array_equal(lane["sums"].swapaxes(0, 1).reshape(ROWS, 16), sums[in_lane])
        high, low = (lane[key].swapaxes(0, 1).reshape(ROWS, 24).astype(int) for key in ("high", "low"))
        of_32 = sums[in_lane, ::2] + sums[in_lane, 1::2]
        np.testing.assert_array_equal(128 * high + low, np.concatenate([sums[in_lane], of_32], 1))
        np.testing.assert_array_equal(lane["factors"][0], d[in_lane])
        g = (g + ROWS // size) % period
