"""Work that is cut into slabs of rows, on several threads.

The calling thread takes slabs as its helpers do, so that little work costs little.  Helpers are kept from
call to call; one that comes too late finds nothing left to do.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

from kquant.errors import OptionError

__all__ = ["available_threads", "in_slabs", "thread_count"]

MOST = 32
"""Helpers of all calls together, where there are not more cores."""


def available_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: int | None) -> int:
    """So many; None: one per core.  Raises `OptionError` for less than one."""
    if threads is not None and threads < 1:
        raise OptionError(f"threads: expected at least 1, got {threads}")
    return threads or available_threads()


def in_slabs(slab: Callable[[int, int], None], n_rows: int, step: int, threads: int | None) -> None:
    """Call `slab(first, last)` for `step` rows at a time, on so many threads at most; None: one per core.

    The first slab that raises an error ends the work; of several errors that of the first rows is raised.
    """
    most = thread_count(threads)
    todo = deque((first, min(first + step, n_rows)) for first in range(0, n_rows, step))
    errors: list[tuple[int, BaseException]] = []

    def work() -> None:
        while True:
            try:
                first, last = todo.popleft()
            except IndexError:
                return
            try:
                slab(first, last)
            except BaseException as error:
                todo.clear()
                errors.append((first, error))

    n_helpers = min(most, len(todo)) - 1
    started = [_helpers(os.getpid()).submit(work) for _ in range(n_helpers)]
    try:
        work()
    finally:
        todo.clear()
        working = [helper for helper in started if not helper.cancel()]
        if working:
            wait(working)
    if errors:
        raise min(errors, key=lambda found: found[0])[1]


@cache
def _helpers(process: int) -> ThreadPoolExecutor:
    """Those of this process: a child has none of its parent's threads."""
    return ThreadPoolExecutor(max(MOST, available_threads()), "kquant")
