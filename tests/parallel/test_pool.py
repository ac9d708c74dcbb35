"""Slabs and tasks on the threads of a pool: each once, by whoever comes first; errors; the end."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from typing import Any

import pytest

from kquant import OptionError, Pool
from kquant.parallel.pool import available_threads, default_pool


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(4) as made:
        yield made


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("kquant-")]


# ---------------------------------------------------------------- slabs


@pytest.mark.parametrize("threads", [1, 2, 3, 50, None])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 100])
def test_each_slab_once(pool: Pool, threads: int | None, n: int) -> None:
    done: list[tuple[int, int]] = []
    pool.run(lambda first, last: done.append((first, last)), n, 7, threads=threads)
    assert sorted(done) == [(first, min(first + 7, n)) for first in range(0, n, 7)]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("n", [1, 9, 1000])
def test_slabs_of_many_sizes_make_the_whole(pool: Pool, threads: int, n: int) -> None:
    done: list[tuple[int, int]] = []
    pool.run(lambda first, last: done.append((first, last)), n, 3, most=200, threads=threads)
    done.sort()
    assert [i for first, last in done for i in range(first, last)] == list(range(n))
    assert all(last - first >= 3 or last == n for first, last in done)
    assert all(last - first <= 200 for first, last in done)


def test_several_threads_work_at_a_time(pool: Pool) -> None:
    both, who = threading.Barrier(2, timeout=60), set()

    def slab(first: int, last: int) -> None:
        both.wait()
        who.add(threading.get_ident())

    for _ in range(50):
        who.clear()
        pool.run(slab, 2, threads=2)
        assert len(who) == 2
        assert threading.get_ident() in who
    assert len(helpers()) < 40, "helpers are kept"


def test_helpers_that_are_busy_are_not_waited_for(pool: Pool) -> None:
    release, done = threading.Event(), []
    busy = [pool.submit(release.wait, 60) for _ in range(4)]
    pool.run(lambda first, last: done.append(first), 10)
    assert done == list(range(10))
    release.set()
    assert all(future.result(60) for future in busy)


def test_work_that_is_done_before_a_helper_comes_is_left_to_the_caller(pool: Pool) -> None:
    who: set[int] = set()
    pool.run(lambda first, last: who.add(threading.get_ident()), 1000, seconds=1e-9)
    assert who == {threading.get_ident()}


def test_a_helper_is_called_again_after_it_was_late_once(pool: Pool) -> None:
    """Else one bad moment would leave all later work to one thread."""
    pool._delay = 1.0
    who: set[int] = set()

    def slab(first: int, last: int) -> None:
        who.add(threading.get_ident())
        time.sleep(0.001)

    for _ in range(1000):
        pool.run(slab, 2, seconds=0.002)
        if len(who) == 2:
            return
    pytest.fail("no helper was called")


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_error_of_the_first_rows(pool: Pool, threads: int) -> None:
    """Whoever raises it; rows that no one has begun with are left alone."""
    begun = []

    def slab(first: int, last: int) -> None:
        begun.append(first)
        if first >= 3:
            raise ValueError(first)

    with pytest.raises(ValueError, match=r"^3$"):
        pool.run(slab, 1000, threads=threads)
    assert len(begun) < 1000


def test_many_callers_at_a_time(pool: Pool) -> None:
    """Each gets all of its own slabs done, and within: a slab may have slabs."""

    def caller(sums: list[int]) -> None:
        inner: list[int] = []
        for _ in range(30):
            inner.clear()
            pool.run(lambda a, b: pool.run(lambda c, d: inner.append(c), 5), 10)
            sums.append(len(inner))

    results: list[list[int]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=caller, args=(sums,), daemon=True) for sums in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [[50] * 30] * 4


@pytest.mark.parametrize("threads", [0, -1])
def test_no_thread(threads: int) -> None:
    with pytest.raises(OptionError, match=f"^threads: expected at least 1, got {threads}$"):
        Pool(threads)
    with Pool(1) as pool, pytest.raises(OptionError, match=f"^threads: expected at least 1, got {threads}$"):
        pool.run(lambda first, last: None, 1, threads=threads)


def test_threads() -> None:
    assert Pool().threads == available_threads()
    assert repr(Pool(3)) == "Pool(threads=3)"
    assert default_pool() is default_pool()
    assert default_pool().threads == available_threads()


# ---------------------------------------------------------------- tasks


def test_an_executor(pool: Pool) -> None:
    assert isinstance(pool, Executor)
    assert list(pool.map(pow, [2, 3, 4], [5, 2, 1])) == [32, 9, 4]
    future = pool.submit(divmod, 7, 0)
    with pytest.raises(ZeroDivisionError):
        future.result(60)


def test_no_more_threads_than_there_are_tasks() -> None:
    before = len(helpers())
    with Pool(10_000) as pool:
        assert list(pool.map(abs, [-1, -2, -3])) == [1, 2, 3]
        assert len(helpers()) <= before + 3


def test_as_many_tasks_at_a_time_as_there_are_threads() -> None:
    with Pool(3) as pool:
        together = threading.Barrier(3, timeout=60)
        wait([pool.submit(together.wait) for _ in range(6)], timeout=60)
        assert not together.broken


def test_what_a_task_held_is_released(pool: Pool) -> None:
    class Thing:
        pass

    thing, gone = Thing(), threading.Event()
    weakref.finalize(thing, gone.set)
    pool.submit(lambda it: None, thing).result(60)
    del thing
    gc.collect()
    assert gone.wait(60)


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize("threads", ["2", 1.5])
def test_threads_are_a_whole_number(threads: Any) -> None:
    with pytest.raises(OptionError, match=f"^threads: expected a whole number, got {threads!r}$"):
        Pool(threads)


def test_closing_ends_the_threads() -> None:
    before = set(helpers())
    pool = Pool(3)
    done = [pool.submit(time.sleep, 0.01) for _ in range(6)]
    assert len(set(helpers()) - before) == 3
    pool.close()
    assert all(future.done() for future in done)
    assert not set(helpers()) - before
    assert repr(pool) == "Pool(threads=3, closed)"
    pool.close()
    for use in (lambda: pool.submit(abs, 1), lambda: pool.run(lambda first, last: None, 1)):
        with pytest.raises(OptionError, match=r"^pool: expected an open one, got one that is closed$"):
            use()


def test_closing_cancels_what_nobody_has_begun_with() -> None:
    release = threading.Event()
    pool = Pool(1)
    first, second = pool.submit(release.wait, 60), pool.submit(abs, -1)
    while not first.running():
        time.sleep(0.001)
    pool.shutdown(wait=False, cancel_futures=True)
    assert second.cancelled()
    release.set()
    assert first.result(60)


def test_a_pool_that_is_forgotten_ends_its_threads() -> None:
    before = set(helpers())
    pool = Pool(2)
    pool.submit(abs, 1).result(60)
    (helper,) = set(helpers()) - before
    del pool
    gc.collect()
    helper.join(60)
    assert not helper.is_alive()


def test_where_no_thread_can_be_started(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calling thread does all slabs; a task that nobody can do is an error."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done: list[int] = []
    pool.run(lambda first, last: done.append(first), 5)
    assert done == list(range(5))
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.submit(abs, 1)


def test_futures_of_a_cancelled_task(pool: Pool) -> None:
    release = threading.Event()
    busy = [pool.submit(release.wait, 60) for _ in range(4)]
    late: Future[int] = pool.submit(abs, -1)
    assert late.cancel()
    release.set()
    wait(busy, timeout=60)
    assert pool.submit(abs, -2).result(60) == 2
