"""A child that is forked works, whatever the threads of its parent are doing."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest

import kquant
from kquant.parallel.lazily import lazily

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

FORK = """
import os, select, sys, threading, time
import numpy as np, kquant

def child_does(work, seconds=60):
    "Forks; whether the child has done the work after so long."
    ended, end = os.pipe()
    child = os.fork()
    if not child:
        work()
        os.write(end, b"x")
        os._exit(0)
    os.close(end)
    if not select.select([ended], [], [], seconds)[0] or os.read(ended, 1) != b"x":
        os.kill(child, 9)
        return False
    os.waitpid(child, 0)
    os.close(ended)
    return True
"""
WHILE_MULTIPLYING = """
w = kquant.QuantizedTensor.from_numpy(np.ones((64, 512), np.float32), "Q4_0")
x = np.ones((512, 200), np.float32)
kquant.matmul(w, x)

def busy():
    while True:
        kquant.matmul(w, x, threads=2)

for _ in range(2):
    threading.Thread(target=busy, daemon=True).start()
for i in range(15):
    assert child_does(lambda: kquant.matmul(w, x, threads=2)), f"fork {i}: the child hangs"
os._exit(0)
"""
WHILE_COMPILING = """
x = np.ones((4, 256), np.float32)
kquant.quantize(x, "Q8_0")
compiling = threading.Thread(target=lambda: kquant.quantize(x, "Q4_0"), daemon=True)
compiling.start()
time.sleep(0.3)
print("compiling", compiling.is_alive())
assert child_does(lambda: kquant.quantize(x, "Q8_0")), "the child hangs, though its kernel is ready"
another = threading.Thread(target=lambda: kquant.quantize(x, "Q4_1"), daemon=True)
another.start()
time.sleep(0.3)
assert child_does(lambda: kquant.quantize(x, "Q5_0"), 120), "the child hangs: it compiles a kernel itself"
os._exit(0)
"""
POOLS = """
x = np.ones((4096, 256), np.float32)
mine = kquant.Pool(2)
before = kquant.quantize(x, "Q8_0", threads=2)
assert mine.submit(abs, -1).result(60) == 1

def work():
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kquant-")]
    for pool in (None, mine):
        assert np.array_equal(kquant.quantize(x, "Q8_0", threads=2, pool=pool), before)
    assert mine.submit(abs, -2).result(60) == 2
    mine.close()

assert child_does(work)
assert mine.submit(abs, -3).result(60) == 3
os._exit(0)
"""


def run(code: str, **environment: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK + code],
        check=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def test_while_threads_multiply() -> None:
    run(WHILE_MULTIPLYING)


@pytest.mark.slow
def test_while_a_thread_compiles() -> None:
    run(WHILE_COMPILING, KQUANT_CACHE_DIR="")


def test_pools_of_a_child_have_threads_of_their_own() -> None:
    run(POOLS)


def product() -> list[float]:
    w = kquant.QuantizedTensor.from_numpy(np.ones((64, 256), np.float32), "Q8_0")
    return [float(y) for y in kquant.matmul(w, np.ones(256, np.float32), threads=2)]


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_other_ways_to_start_a_process(method: str) -> None:
    with multiprocessing.get_context(method).Pool(1) as processes:
        assert processes.apply_async(product).get(120) == product()


def test_what_is_made_lazily_is_made_once_and_without_a_lock() -> None:
    made = []

    class Thing:
        @lazily
        def part(self) -> object:
            """Some part."""
            made.append(self)
            return object()

    one, other = Thing(), Thing()
    assert one.part is one.part
    assert one.part is not other.part
    assert made == [one, other]
    assert Thing.part.__doc__ == "Some part."
