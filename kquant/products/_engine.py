"""Carries a list of products over the rows of each, once, in one pool of threads."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from time import perf_counter

from kquant.kernels.activations import Activations
from kquant.kernels.execute import Execution
from kquant.kernels.layout import ROWS
from kquant.parallel.pool import Pool, pool_of, thread_count
from kquant.products._loops import Job, are_packed, rows_of
from kquant.types import TensorType

__all__ = ["run"]

GRAIN = 60e-6
"""Seconds of work that a thread claims at least: several times what claiming it costs."""
UNPACKING = 4
"""What unpacking an element costs, in products."""
COPIED = 1 << 18
"""Bytes of rows that lie apart and are put side by side at a time."""
NUMPY_ROWS = 1024
"""Rows that NumPy multiplies at a time."""
DECODED = 1 << 18
"""Elements of rows of numbers that are decoded at a time.  BLAS may sum other numbers of rows differently,
so that this depends on the length of a row alone."""


def run(jobs: list[Job], execution: Execution, threads: int | None = None, pool: Pool | None = None) -> None:
    """Do all jobs, on so many threads at most; the results depend on neither threads nor pool.

    The rows of all jobs are one piece of work.  How long it will take is known from the last jobs of the
    kind; what is done before a helper would begin is left to the calling thread.
    """
    if threads is not None:
        thread_count(threads)
    workers = pool_of(pool)
    tasks = [_Task(job, execution) for job in jobs]
    if threads == 1 or (len(tasks) == 1 and tasks[0].n_units == 1):
        for task in tasks:
            task.multiply(0, task.n_units)
        return
    starts = [0, *accumulate(task.n_units for task in tasks)]
    n_units, seconds = starts[-1], _expected(tasks)

    def slab(first: int, last: int) -> None:
        i = bisect_right(starts, first) - 1
        while first < last:
            end = min(last, starts[i + 1])
            tasks[i].measured(first - starts[i], end - starts[i])
            first, i = end, i + 1

    step = max(1, int(GRAIN * n_units / seconds)) if seconds else 1
    workers.run(slab, n_units, step, most=n_units, threads=threads, seconds=seconds)


_Kind = tuple[TensorType, bool, Execution]

_pace: dict[_Kind, float] = {}
"""Seconds that a thread takes for a product of two elements, by what decides which kernel multiplies them."""


def _expected(tasks: list[_Task]) -> float | None:
    """Seconds that one thread would take, if there has been a job of each kind before."""
    total = 0.0
    for task in tasks:
        pace = _pace.get(task.kind)
        if pace is None:
            return None
        total += task.n_units * task.work * pace
    return total


class _Task:
    """A job in units of rows, the last of which takes the rows that are left."""

    __slots__ = ("_m", "_most", "_rows", "_unit", "kind", "n_units", "work")

    kind: _Kind
    n_units: int
    work: int
    """Products of elements in a unit."""
    _most: int
    """Units that are multiplied by one call."""

    def __init__(self, job: Job, execution: Execution) -> None:
        tensor_type, w = job.format.type, job.w
        n, m = job.out.shape
        k = w.shape[1] // tensor_type.type_size * tensor_type.block_size
        unit, most = ROWS, m
        if not isinstance(job.activations, Activations):
            unit, most = max(DECODED // k // ROWS * ROWS, ROWS), 1
        elif execution == "numpy" or not job.activations.are_true:
            unit, most = NUMPY_ROWS, 1
        elif not are_packed(w):
            most = max(COPIED // (ROWS * w.shape[1]), 1)
        self._m, self._unit, self._most, self._rows = m, unit, most, rows_of(job, execution)
        self.n_units = m // unit or 1
        self.work = unit * k * (n + UNPACKING)
        self.kind = (tensor_type, n == 1, execution)

    def measured(self, first: int, last: int) -> None:
        """The same as `multiply`, and the pace is remembered."""
        start = perf_counter()
        self.multiply(first, last)
        pace = (perf_counter() - start) / ((last - first) * self.work)
        before = _pace.get(self.kind, pace)
        # in a small part of a job it is for the most part the cost of the call that is measured
        _pace[self.kind] = before + (last - first) / self.n_units * (pace - before)

    def multiply(self, first: int, last: int) -> None:
        """Some units."""
        for at in range(first, last, self._most):
            end = min(at + self._most, last)
            self._rows(at * self._unit, self._m if end == self.n_units else end * self._unit)
