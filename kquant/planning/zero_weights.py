"""Weights that become zeros because all their importance weights are zero.

llama-imatrix stores zeros for an expert that no token reached, and for columns whose activations were
always zero.  A search that weighs every error with zero finds the scale zero, as in ggml.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np

from kquant.planning.plan_types import PlanRow, Zeroed
from kquant.types import TensorType

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["zero_notes", "zeroed_by"]

ERASED: Final = {
    TensorType.Q2_K: 256,
    TensorType.Q3_K: 16,
    TensorType.Q4_K: 256,
    TensorType.Q5_K: 256,
    TensorType.Q6_K: 16,
    TensorType.Q4_0: 32,
    TensorType.Q5_0: 32,
    TensorType.IQ4_NL: 32,
}
"""How many neighbours become zeros if all their importance weights are zero: what has a scale of its own.

The other types have none, ignore importance weights, or keep values that have no weight.
"""

NAMED: Final = 8
"""Experts of a tensor that a note lists."""


def zeroed_by(weights: NDArray[np.float32], new_type: TensorType) -> tuple[Zeroed, ...]:
    """The matrices that lose columns, for weights of shape (n_matrices, n_per_row).

    >>> zeroed_by(np.array([[1] * 64, [0] * 64, [0] * 32 + [1] * 32], np.float32), TensorType.Q4_0)
    (Zeroed(matrix=1, columns=64), Zeroed(matrix=2, columns=32))
    """
    size = ERASED.get(new_type)
    if size is None or weights.shape[-1] % size or weights.all():
        return ()
    erased = ~weights.reshape(len(weights), -1, size).any(axis=-1)
    counts = erased.sum(axis=-1) * size
    return tuple(Zeroed(int(i), int(counts[i])) for i in np.flatnonzero(counts))


def zero_notes(rows: Iterable[PlanRow]) -> Iterator[str]:
    """A sentence for each tensor and number of columns that become zeros."""
    for row in rows:
        n_per_row = row.shape[-1]
        for columns, group in groupby(sorted(row.zeroed, key=lambda z: -z.columns), lambda z: z.columns):
            matrices = [z.matrix for z in group]
            experts = "" if len(row.shape) < 3 else f", {_experts(matrices)},"
            several = len(matrices) > 1
            if columns == n_per_row:
                fate = "are zero: they become zeros" if several else "are zero: it becomes zeros"
                yield f"imatrix: all weights of {row.name}{experts} {fate}"
            else:
                whose = " of each" if several else ""
                yield (
                    f"imatrix: the weights of {columns} of {n_per_row} columns of {row.name}{experts} are "
                    f"zero: these columns{whose} become zeros"
                )


def _experts(matrices: list[int]) -> str:
    """Numbers as a sentence has them.

    >>> _experts([1]), _experts([1, 4, 7])
    ('expert 1', 'experts 1, 4 and 7')
    """
    named = [str(m) for m in matrices[:NAMED]]
    if more := len(matrices) - len(named):
        named.append(f"{more} more")
    *first, last = named
    return f"experts {', '.join(first)} and {last}" if first else f"expert {last}"
