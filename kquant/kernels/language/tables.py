"""The part of the kernel language for levels that are numbers of a table's entries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kquant.kernels.language.lanes import Lanes

__all__ = ["Table", "lookup"]


@dataclass(frozen=True)
class Table:
    """Two, four, eight or sixteen constants of a kernel: all integers, or all floats.

    >>> Table((-1.0, 0.0, 1.0, 2.0)).values[3]
    2.0
    """

    values: tuple[float, ...]


def lookup(numbers: Lanes, table: Table) -> Lanes:
    """The entries with these numbers, each of which is below the number of entries.

    int32 lanes or runs give float32 if the table holds floats, else int32; bytes give bytes.
    """
    if isinstance(table.values[0], float):
        return np.array(table.values, np.float32)[numbers]
    return np.array(table.values, numbers.dtype)[numbers]
