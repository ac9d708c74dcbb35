"""How the values of a tensor are distributed, before and after quantization."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kquant.analysis.slabs import Slab, in_order, slabs
from kquant.gguf import GGUFFile, TensorInfo
from kquant.types import TensorType

__all__ = ["REACH", "Counts", "Histogram", "histogram"]

BINS = 81
"""Odd, so that zero is in the middle of a bin."""
REACH = 4.0
"""The bins end at so many times the root mean square: what lies outside is rare, and counted."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many values of a tensor are in each bin."""

    type: TensorType
    bins: tuple[int, ...]
    outside: int
    """Values beyond the first and the last bin."""

    def to_dict(self) -> dict[str, Any]:
        """The counts in JSON's types."""
        return {"type": self.type.name, "bins": list(self.bins), "outside": self.outside}


@dataclass(frozen=True, slots=True)
class Histogram:
    """The values of one tensor; the same bins for both files."""

    name: str
    shape: tuple[int, ...]
    """NumPy order: the row length comes last."""
    limit: float
    """The bins are of equal width, from -limit to limit."""
    largest: float
    """The largest absolute value: of the source, if there is one."""
    after: Counts
    """In the file."""
    before: Counts | None
    """In the source, if there is one that holds the tensor."""

    @property
    def edges(self) -> tuple[float, ...]:
        """Where bins begin, and where the last one ends."""
        n = len(self.after.bins)
        return tuple(self.limit * (2 * i / n - 1) for i in range(n + 1))

    def to_dict(self) -> dict[str, Any]:
        """The histogram in JSON's types."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "limit": self.limit,
            "largest": self.largest,
            "after": self.after.to_dict(),
            "before": self.before.to_dict() if self.before else None,
        }


def histogram(
    model: GGUFFile,
    name: str,
    source: GGUFFile | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Histogram:
    """Count the values of a tensor, and of its namesake in `source`.

    Reads each tensor in slabs, once to find its largest value and once to count, so memory is
    limited.  `progress` is called with the bytes that are done, and their total.

    Raises `InvalidDataError` for NaN and infinity, `UnsupportedTypeError` for a type without a codec.
    """
    after = model, model.tensors[name]
    before = (source, source.tensors[name]) if source else None
    first = before or after
    tracker = _Tracker(progress, sum(info.nbytes for _, info in filter(None, (first, after, before))))

    squares, largest = 0.0, 0.0
    for found_squares, found_largest in tracker.run(_reach, *first, threads):
        squares, largest = squares + found_squares, max(largest, found_largest)
    rms = math.sqrt(squares / max(first[1].n_elements, 1))
    # a little beyond the largest value, which belongs to the last bin; any limit will do if all are zero
    limit = min(REACH * rms, largest * (1 + 1e-6)) or 1.0

    def counts(model: GGUFFile, info: TensorInfo) -> Counts:
        total = np.zeros(BINS + 2, np.int64)
        for found in tracker.run(lambda x: _count(x, limit), model, info, threads):
            total += found
        return Counts(info.type, tuple(total[1:-1].tolist()), int(total[0] + total[-1]))

    return Histogram(
        name=name,
        shape=after[1].shape,
        limit=limit,
        largest=largest,
        after=counts(*after),
        before=counts(*before) if before else None,
    )


class _Tracker:
    """Applies a function to the values of a tensor, slab by slab, and reports progress."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def run(
        self,
        function: Callable[[npt.NDArray[np.float64]], Any],
        model: GGUFFile,
        info: TensorInfo,
        threads: int | None,
    ) -> Iterator[Any]:
        def job(slab: Slab) -> tuple[int, Any]:
            return slab.nbytes, function(slab.values().astype(np.float64))

        with closing(in_order(job, slabs(model, info), threads)) as results:
            for nbytes, found in results:
                self._done += nbytes
                if self._progress:
                    self._progress(self._done, self._total)
                yield found


def _reach(x: npt.NDArray[np.float64]) -> tuple[float, float]:
    return float(np.einsum("i,i->", x, x)), float(np.abs(x).max())


def _count(x: npt.NDArray[np.float64], limit: float) -> npt.NDArray[np.int64]:
    """int64 (BINS + 2,): the values below all bins, in each of them, above."""
    at = np.floor((x + limit) * (BINS / (2 * limit))) + 1
    return np.bincount(np.clip(at, 0, BINS + 1).astype(np.intp), minlength=BINS + 2)
