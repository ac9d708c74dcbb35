"""Slabs on several threads: each once, by whoever comes first; errors; processes that were forked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import wait

import numpy as np
import pytest

import kquant
from kquant import NonFiniteError, OptionError
from kquant.parallel.slabs import _helpers, in_slabs

FORKED = """
import os, sys
import numpy as np, kquant
x = np.ones((4096, 256), np.float32)
before = kquant.quantize(x, "Q8_0", threads=2)
child = os.fork()
if not child:
    os._exit(0 if np.array_equal(kquant.quantize(x, "Q8_0", threads=2), before) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("threads", [1, 2, 3, 50, None])
@pytest.mark.parametrize("n_rows", [0, 1, 7, 8, 100])
def test_each_slab_once(threads: int | None, n_rows: int) -> None:
    done: list[tuple[int, int]] = []
    in_slabs(lambda first, last: done.append((first, last)), n_rows, 7, threads)
    assert sorted(done) == [(first, min(first + 7, n_rows)) for first in range(0, n_rows, 7)]


def test_several_threads_work_at_a_time() -> None:
    both, who = threading.Barrier(2, timeout=60), set()

    def slab(first: int, last: int) -> None:
        both.wait()
        who.add(threading.get_ident())

    in_slabs(slab, 2, 1, 2)
    assert len(who) == 2
    assert threading.get_ident() in who


def test_helpers_that_are_busy_are_not_waited_for() -> None:
    release, done = threading.Event(), []
    pool = _helpers(os.getpid())
    busy = [pool.submit(release.wait, 60) for _ in range(pool._max_workers)]
    in_slabs(lambda first, last: done.append(first), 10, 1, 4)
    release.set()
    wait(busy)
    assert done == list(range(10))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_error_of_the_first_rows(threads: int) -> None:
    """Whoever raises it; rows that no one has begun with are left alone."""
    begun = []

    def slab(first: int, last: int) -> None:
        begun.append(first)
        if first >= 3:
            raise ValueError(first)

    with pytest.raises(ValueError, match=r"^3$"):
        in_slabs(slab, 1000, 1, threads)
    assert len(begun) < 1000


def test_the_first_of_several_values_that_are_not_finite() -> None:
    x = np.zeros((4096, 256), np.float32)
    x[1000:, 3] = np.nan
    for _ in range(5):
        with pytest.raises(NonFiniteError, match=r"index \(1000, 3\)"):
            kquant.quantize(x, "Q8_0", threads=4)


def test_no_thread() -> None:
    with pytest.raises(OptionError, match="threads: expected at least 1, got 0"):
        in_slabs(lambda first, last: None, 1, 1, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_helpers_of_its_own() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, timeout=120)
