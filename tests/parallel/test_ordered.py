"""Results in the order of the jobs, a few of which are under way at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kquant import Pool
from kquant.parallel.ordered import in_order


def test_jobs_are_made_when_they_are_needed() -> None:
    made: list[int] = []

    def jobs() -> Iterator[int]:
        for i in range(1000):
            made.append(i)
            yield i

    with Pool(2) as pool:
        results = in_order(pool, lambda i: i * i, jobs(), window=5)
        assert [next(results) for _ in range(3)] == [(0, 0), (1, 1), (2, 4)]
        assert len(made) == 7
        results.close()
        assert len(made) == 7


def test_an_error_comes_in_its_place_and_nothing_is_under_way_then() -> None:
    running: list[int] = []
    both = threading.Barrier(2, timeout=60)

    def job(i: int) -> int:
        running.append(i)
        if i in (1, 2):
            both.wait()
        try:
            return 6 // (i - 1)
        finally:
            running.remove(i)

    with ThreadPoolExecutor(2) as executor:
        results = in_order(executor, job, range(100), window=4)
        assert next(results) == (0, -6)
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert not running


def test_an_executor_that_is_closed_meanwhile() -> None:
    with Pool(1) as pool:
        results = in_order(pool, abs, range(100), window=3)
        next(results)
        pool.shutdown(wait=False)
        with pytest.raises(ValueError, match="got one that is closed"):
            list(results)
