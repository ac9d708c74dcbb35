"""Packed activations as the compiled products read them: blocks of all columns, or strips of one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kquant.formats import room
from kquant.kernels.execute import Bytes, aligned_empty
from kquant.kernels.jit import group_size
from kquant.kernels.products import (
    CENTER,
    CENTERS,
    DIGITS,
    EVEN_AND_ODD,
    FACTORS,
    MIDDLE,
    PAIRS,
    ROWS,
    SUPER_BLOCK,
    Columns,
)
from kquant.types import TensorType

__all__ = ["Activations", "Strips", "activations_of"]

RUN = 32
"""Activations of one super-block that lie side by side in a group's."""


class Strips(NamedTuple):
    """What sixteen super-blocks side by side are multiplied with, wherever in a row the first of them is.

    Groups of one or two neighbours repeat after one row, or after two; strips after sixteen rows or sooner.
    """

    groups: Bytes
    """(groups, bytes): of each group the activations, 32 of one super-block after 32 of the other, and the
    negative sums of 16.

    So many that behind each where a strip may begin the others of this strip follow.
    """
    lanes: Bytes
    """(strips, bytes): of each lane the sums of activations, their digits, the factors."""


@dataclass(frozen=True)
class Activations:
    """Columns of packed activations."""

    columns: Columns
    """(blocks, columns)."""
    are_true: bool
    """Whether super-blocks say the sums of their own activations; compiled products rely on that."""

    @cached_property
    def strips(self) -> Strips:
        """Of a single column of super-blocks, for this CPU."""
        return _strips(self.columns[:, 0], group_size())


def activations_of(packed: Bytes, partner: TensorType, *, trusted: bool = False) -> Activations:
    """Those of uint8 (columns, row_bytes); trusted: kquant has packed them."""
    fields = room(partner).unpack(packed)
    n, size = len(packed), partner.block_size
    q = fields["q"].reshape(n, -1, size)
    columns = aligned_empty((q.shape[1], n), _layout(size))
    columns["q"] = q.swapaxes(0, 1)
    columns["factors"] = 0
    for i, key in enumerate(key for key in ("d", "s") if key in fields):
        columns["factors"][..., i] = fields[key].reshape(n, -1).T
    if "bsums" in fields:
        columns["sums"] = fields["bsums"].reshape(n, -1, size // 32, 2).swapaxes(0, 1)
    else:
        columns["sums"] = _sums_of_16(columns["q"])
    if size != SUPER_BLOCK:
        return Activations(columns, True)
    _put_sums(columns)
    return Activations(columns, trusted or bool((columns["sums"] == _sums_of_16(columns["q"])).all()))


@cache
def _layout(size: int) -> np.dtype[np.void]:
    """A block of a column."""
    fields: list[Any] = [("q", "i1", size), ("sums", "<i2", (size // 32, 2)), ("factors", "<f4", FACTORS)]
    if size == SUPER_BLOCK:
        fields[2:2] = [("high", "i1", DIGITS), ("low", "i1", DIGITS)]
        fields += [("centers", "<i4", CENTERS)]
    return np.dtype(fields)


def _sums_of_16(q: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(..., pairs, 2), of (..., elements)."""
    ones = np.ones(16, np.float32)  # whole numbers, which float32 sums faster
    sums: npt.NDArray[Any] = q.reshape(*q.shape[:-1], -1, 2, 16).astype(np.float32) @ ones
    return sums


def _put_sums(columns: Columns) -> None:
    """What is made of sums of 16 and of 32 elements: two digits, `128 * high + low`, and centers."""
    sums = columns["sums"].reshape(*columns.shape, -1).astype(np.int32)
    both = np.concatenate([sums, sums[..., ::2] + sums[..., 1::2]], -1)
    columns["high"], columns["low"] = both >> 7, both & 127
    columns["centers"][..., :-1] = -CENTER * sums
    columns["centers"][..., -1] = -MIDDLE * sums.sum(-1)


_DIGITS = ("i1", (DIGITS // 4, ROWS, 4))
OF_LANES = np.dtype(
    [
        ("sums", "<i2", (PAIRS, ROWS, 2)),
        ("high", *_DIGITS),
        ("low", *_DIGITS),
        ("factors", "<f4", (FACTORS, ROWS)),
    ]
)


def _strips(column: Columns, size: int) -> Strips:
    of_group, of_lane = _blocks_of_strips(len(column), size)
    groups, lanes = aligned_empty((len(of_group),), _group(size)), aligned_empty((len(of_lane),), OF_LANES)
    groups["q"] = column["q"][of_group].reshape(-1, size, SUPER_BLOCK // RUN, RUN).swapaxes(1, 2)
    groups["negative"] = -column["sums"].reshape(len(column), -1)[:, EVEN_AND_ODD][of_group]
    for key in ("sums", "factors"):
        lanes[key] = column[key][of_lane].swapaxes(1, 2)
    for key in ("high", "low"):
        lanes[key] = column[key][of_lane].reshape(-1, ROWS, DIGITS // 4, 4).swapaxes(1, 2)
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
