"""Every structure that Python lays out and compiled code reads, once, as a dtype.

The lowering takes its offsets from here (`at`), Python fills the fields by name.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

__all__ = [
    "BLOCK",
    "CENTER",
    "MIDDLE",
    "ROWS",
    "RUN",
    "SUPER_BLOCK",
    "at",
    "block_of_column",
    "group_of_blocks",
    "lanes_of_column",
    "tile",
]

ROWS = 16
"""Rows that compiled products work on at a time."""
BLOCK, SUPER_BLOCK = 32, 256
"""Elements."""
RUN = 32
"""Activations of one super-block that lie side by side in a group's."""
CENTER, MIDDLE = 32, 127
"""`centers` are the sums of 16 activations times -CENTER, and that of all times -MIDDLE."""

_DIGITS = SUPER_BLOCK // 16 + SUPER_BLOCK // 32
"""Of the sums of a super-block's activations: 16 of 16 elements each, then 8 of 32."""


def at(record: np.dtype[Any], field: str) -> int:
    """The byte offset of a field."""
    assert record.fields is not None
    return int(record.fields[field][1])


@cache
def tile(block_size: int) -> np.dtype[np.void]:
    """One block of each of sixteen rows, unpacked; registers side by side, each with a lane for each row.

    `products`, the sums of 16 levels times activations, lie in the place of the levels where there is one
    column only.
    """
    fields = {
        "factors": ("<f4", (2, ROWS)),
        "pairs": ("<i2", (8, ROWS, 2)),
        "minima": ("u1", (4, ROWS, 4)),
        "scales": ("<i4", (16, ROWS)),
        "levels": ("u1", (block_size // 4, ROWS, 4)),
    }
    packed = np.dtype([(name, *kind) for name, kind in fields.items()])
    names = [*fields, "products"]
    formats: list[Any] = [*fields.values(), ("<i4", (block_size // 16, ROWS))]
    offsets = [*(at(packed, name) for name in fields), at(packed, "levels")]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": packed.itemsize})


@cache
def block_of_column(block_size: int) -> np.dtype[np.void]:
    """One block of activations of one of many columns.

    q: the levels; factors: d and, of Q8_1, s.  In blocks of 32 `negative`: minus the sum of the levels.  In
    super-blocks `sums` of 16 elements each; `high` and `low`, the digits to the base 128 of the sums of 16
    and of 32 elements; `centers`, see `CENTER`.
    """
    fields: list[Any] = [("q", "i1", block_size), ("negative", "<i4"), ("factors", "<f4", 2)]
    if block_size == SUPER_BLOCK:
        fields[1:2] = [("sums", "<i2", (8, 2)), ("high", "i1", _DIGITS), ("low", "i1", _DIGITS)]
        fields += [("centers", "<i4", 17)]
    return np.dtype(fields)


@cache
def group_of_blocks(size: int) -> np.dtype[np.void]:
    """What one or two consecutive super-blocks are multiplied with: 32 activations of each in turn.

    `negative`: minus the sums of 16 elements, first those of the even 16.
    """
    return np.dtype([("q", "i1", (SUPER_BLOCK // RUN, size, RUN)), ("negative", "<i2", (size, 16))])


@cache
def lanes_of_column() -> np.dtype[np.void]:
    """What sixteen consecutive super-blocks are multiplied with, a lane for each: see `block_of_column`."""
    digits = ("i1", (_DIGITS // 4, ROWS, 4))
    return np.dtype(
        [
            ("sums", "<i2", (8, ROWS, 2)),
            ("high", *digits),
            ("low", *digits),
            ("factors", "<f4", (2, ROWS)),
        ]
    )
