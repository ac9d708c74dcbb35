"""Results of many jobs in their order, computed by any executor a few jobs ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, wait
from typing import TypeVar

__all__ = ["QUEUED", "in_order"]

QUEUED = 4
"""Jobs under way for each thread: enough that none waits, few enough to bound memory."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def in_order(
    executor: Executor, function: Callable[[_T], _R], jobs: Iterable[_T], window: int
) -> Generator[tuple[_T, _R], None, None]:
    """Each job with the function's result for it; `window` jobs are under way at a time.

    Jobs are made when they are needed.  When the generator ends or is closed, nothing is under way any
    more.  An error of a job is raised in its place.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from kquant.parallel.ordered import in_order
    >>> with ThreadPoolExecutor(2) as executor:
    ...     list(in_order(executor, abs, [-3, 1, -2], window=4))
    [(-3, 3), (1, 1), (-2, 2)]
    """
    pending: deque[tuple[_T, Future[_R]]] = deque()

    def first() -> tuple[_T, _R]:
        job, future = pending[0]
        result = future.result()  # an interruption leaves it among those that are waited for
        pending.popleft()
        return job, result

    try:
        for job in jobs:
            pending.append((job, executor.submit(function, job)))
            if len(pending) >= window:
                yield first()
        while pending:
            yield first()
    finally:
        wait([future for _, future in pending if not future.cancel()])
