"""A pool of threads: slabs of rows for whoever comes first, and tasks with futures.

Helpers are started when there is work for them, sleep between calls, and are kept.  The calling thread
works as its helpers do: it starts at once, and a helper that comes too late finds nothing left to do, so
that little work costs little.  A sleeping helper begins 15 µs after it is called; letting it look for work
without sleeping would save 5 µs, and cost the calling thread 70 µs of waiting for Python's global lock.

No lock is shared by threads that work at different things, and none outlives a fork: a child's pools have
no helper at first, whatever the parent's threads were doing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from threading import Lock, Thread, current_thread
from time import perf_counter
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from kquant._given import count_of
from kquant.errors import OptionError
from kquant.parallel.region import Region

__all__ = ["Pool", "available_threads", "default_pool", "pool_of", "thread_count"]

LEAST_CAPACITY = 32
"""Threads of the pool of a process, on a machine with fewer cores, that may work for a call that asks."""
FIRST_DELAY = 15e-6
"""Seconds from a call to the helper's first instruction, before that has been measured."""
STEP = 1.1
"""How fast what is known of delays follows their median: a few long ones count little."""
FORGETTING = 0.98
"""What is left of it whenever no helper is called because of it, so that in the end one is called again."""

_R = TypeVar("_R")


def available_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: int | None) -> int:
    """So many; None: one per core.  Raises `OptionError` for less than one, and for no whole number."""
    return available_threads() if threads is None else count_of("threads", threads)


class Pool(Executor):
    """Threads that kquant's functions share, given as `pool=`.

    Without one they share a pool that the process makes on first use, with a thread for each core.  A
    program that does several things at a time divides its cores by giving each a pool of its own.
    Results never depend on the pool.

    A pool is also a `concurrent.futures.Executor`.  It may be used by several threads at a time, and after
    a fork: the child's copy has threads of its own.

    Args:
        threads: Threads that work for a call at most, the calling one among them; None for one per core.

    Raises:
        OptionError: `threads` is less than 1, or, when it is used, the pool is closed.

    >>> import numpy as np, kquant
    >>> with kquant.Pool(threads=2) as pool:
    ...     packed = kquant.quantize(np.ones((64, 256), np.float32), "Q4_K", pool=pool)
    ...     pool.threads, packed.shape
    (2, (64, 144))
    """

    threads: int
    """Threads that work for a call at most."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = self._capacity = thread_count(threads)
        self._crew = _Crew()
        self._closed = False
        self._delay = FIRST_DELAY
        _pools.add(self)

    def __repr__(self) -> str:
        return f"Pool(threads={self.threads}{', closed' if self._closed else ''})"

    def check_open(self) -> None:
        """Raises `OptionError` if the pool is closed."""
        if self._closed:
            raise OptionError("pool: expected an open one, got one that is closed")

    # ------------------------------------------------------------ slabs

    def run(
        self,
        slab: Callable[[int, int], None],
        n: int,
        step: int = 1,
        *,
        most: int | None = None,
        threads: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Call `slab(first, last)` until all of range(n) is done, on several threads.

        A slab is a share of what is left, so that all threads end at about the same time.

        Args:
            slab: Does a part of the work.
            n: How much there is.
            step: The least that a slab has, but for the last.
            most: The most that a slab has; None for `step`, so that all have one size.
            threads: At most so many; None for all of the pool.  Raises `OptionError` for less than one.
            seconds: How long one thread would take, if that is known.  No helper is called for what would
                be done before it is of use.

        The first slab that raises an error ends the work; of several errors that of the first slab is
        raised.
        """
        self.check_open()
        if threads is not None:
            thread_count(threads)
        most = step if most is None else max(step, most)
        n_threads = min(threads or self.threads, self._capacity, -(-n // step))
        if n_threads > 1 and seconds is not None and seconds < 2 * self._delay:
            self._delay *= FORGETTING
            n_threads = 1
        if n_threads <= 1:
            for first in range(0, n, most):
                slab(first, min(first + most, n))
            return
        region = Region(slab, n, step, most, n_threads)
        help_, crew = partial(self._help, region, perf_counter()), self._crew
        for _ in range(n_threads - 1):
            crew.call(help_, n_threads - 1)
        try:
            region.work()
        finally:
            region.stop()
            region.wait_for(n_threads - 1 - crew.recall(help_, n_threads - 1))
        region.raise_error()

    def _help(self, region: Region, called: float) -> None:
        """What a helper does; how late it is counts for the next calls."""
        self._delay *= STEP if perf_counter() - called > self._delay else 1 / STEP
        region.help()

    # ------------------------------------------------------------ the interface of concurrent.futures

    def submit(self, function: Callable[..., _R], /, *args: Any, **kwargs: Any) -> Future[_R]:
        """Have a helper call a function; see `concurrent.futures.Executor.submit`."""
        self.check_open()
        promise = _Promise(partial(function, *args, **kwargs))
        self._crew.call(promise, self.threads, needed=True)
        return promise.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads, after what was submitted before; see `concurrent.futures.Executor.shutdown`."""
        self._closed = True
        if cancel_futures:
            self._crew.cancel()
        self._crew.dismiss(wait=wait)

    def close(self) -> None:
        """End the threads.  Leaving a `with` block does so, too."""
        self.shutdown()

    def __del__(self) -> None:
        if hasattr(self, "_crew"):  # it has none if `threads` was refused
            self._crew.dismiss(wait=False)


class _Promise:
    """A call whose result goes to a future."""

    __slots__ = ("_call", "future")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self.future = call, Future[Any]()

    def __call__(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._call()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


# ---------------------------------------------------------------- helpers


class _Task(Protocol):
    def __call__(self) -> None: ...


class _Crew:
    """The helpers of a pool, and what they are to do next.

    Deques are appended to and popped by several threads at a time without a lock.
    """

    def __init__(self) -> None:
        self._tasks: deque[_Task | None] = deque()
        """None tells a helper to end."""
        self._asleep: deque[Lock] = deque()
        """What the helpers that sleep, or are about to, wait for."""
        self._threads: list[Thread] = []
        self._starting = Lock()

    def call(self, task: _Task, limit: int, *, needed: bool = False) -> None:
        """Have a helper do a task as soon as one is free; start another if there are fewer than `limit`.

        needed: raise an error if there is no helper and none can be started.
        """
        self._tasks.append(task)
        try:
            self._asleep.pop().release()
        except IndexError:
            self._start(limit, needed)

    def _start(self, limit: int, needed: bool) -> None:
        with self._starting:
            if len(self._threads) >= limit:
                return
            thread = Thread(target=self._work, name=f"kquant-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # too many threads, or the interpreter ends
                if needed and not self._threads:
                    raise
                return
            self._threads.append(thread)

    def recall(self, task: _Task, n_calls: int) -> int:
        """Take back a task that was called for so many times; how often no helper had begun with it."""
        n = 0
        with suppress(ValueError):
            while n < n_calls:
                self._tasks.remove(task)
                n += 1
        return n

    def cancel(self) -> None:
        """Cancel the futures that no helper has begun with."""
        for task in list(self._tasks):
            if isinstance(task, _Promise):
                task.future.cancel()

    def dismiss(self, *, wait: bool) -> None:
        """End the helpers."""
        with self._starting:
            threads, self._threads = self._threads, []
        self._tasks.extend([None] * len(threads))
        while self._asleep:
            self._asleep.pop().release()
        for thread in threads if wait else []:
            if thread is not current_thread():
                thread.join()

    def _work(self) -> None:
        """What a helper does all its life."""
        wake = Lock()
        wake.acquire()
        while True:
            try:
                task = self._tasks.popleft()
            except IndexError:
                self._sleep(wake)
                continue
            if task is None:
                return
            task()
            del task  # what it holds may be large

    def _sleep(self, wake: Lock) -> None:
        self._asleep.append(wake)
        if self._tasks:  # one was appended after the last look, by a thread that may not have seen this lock
            try:
                self._asleep.remove(wake)
            except ValueError:  # it did, and releases it
                wake.acquire()
            return
        wake.acquire()


# ---------------------------------------------------------------- processes

_pools: WeakSet[Pool] = WeakSet()
_default: dict[str, Pool] = {}


def default_pool() -> Pool:
    """The pool of this process, made on first use."""
    found = _default.get("")
    if found is None:
        made = Pool()
        made._capacity = max(LEAST_CAPACITY, made.threads)
        found = _default.setdefault("", made)
    return found


def pool_of(given: Pool | None) -> Pool:
    """The pool that a caller gives, or that of the process.

    Raises `OptionError` if it is closed, and for what is no pool.
    """
    if given is None:
        return default_pool()
    if not isinstance(given, Pool):
        raise OptionError(f"pool: expected a kquant.Pool, got {type(given).__name__}")
    given.check_open()
    return given


def _renew() -> None:
    """In a child, which has none of its parent's threads, and where their locks may be held for ever."""
    for pool in list(_pools):
        pool._crew = _Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
