"""Looking up: the same entries under NumPy and compiled by Numba, whatever the processor has for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.kernels.compile import compiled, lane_count
from kquant.kernels.language.lanes import Rows, load, load_run, store, store_run
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import load_bytes, short_at
from kquant.kernels.language.products import block_from
from kquant.kernels.language.tables import Table, lookup
from kquant.kernels.layout import ROWS

pytestmark = pytest.mark.usefixtures("compiled_here")

LANES = lane_count()
ENTRIES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FLOATS = {n: Table(tuple(float(entry) / 8 for entry in ENTRIES[:n])) for n in (2, 4, 8, 16)}
INTEGERS = {n: Table(ENTRIES[:n]) for n in (2, 4, 8, 16)}
BYTES = {n: Table(tuple(entry + 128 for entry in ENTRIES[:n])) for n in (2, 4, 8, 16)}
sizes = pytest.mark.parametrize("n", FLOATS)


def numbers(n: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(n).integers(0, n, shape, np.uint8)


def both(driver: Any, signature: str, source: NDArray[Any], *outs: NDArray[Any]) -> list[NDArray[Any]]:
    """What the compiled driver writes, after a comparison with what NumPy does."""
    by_numpy, by_numba = [out.copy() for out in outs], [out.copy() for out in outs]
    driver(source, *by_numpy)
    compiled(driver, signature, driver.__name__)(source, *by_numba)
    for numpy, numba in zip(by_numpy, by_numba, strict=True):
        assert np.array_equal(numpy, numba)
    return by_numba


@sizes
def test_lanes(n: int) -> None:
    floats, integers = FLOATS[n], INTEGERS[n]

    @kernel
    def lanes(x: Rows, y: Rows, z: Rows) -> None:
        for i in range(x.shape[0]):
            store(y, i, lookup(load(x, i), floats))
            store(z, i, lookup(load(x, i), integers))

    x = numbers(n, 9, LANES)
    outs = np.full(x.shape, 77, np.float32), np.full(x.shape, 77, np.int32)
    y, z = both(lanes, "R(uint8, 2), float32[:, ::1], int32[:, ::1]", x, *outs)
    assert np.array_equal(y, np.array(floats.values, np.float32)[x])
    assert np.array_equal(z, np.array(integers.values, np.int32)[x])


@sizes
def test_runs(n: int) -> None:
    """Of one element, of half a register, and of more than one."""
    floats, integers = FLOATS[n], INTEGERS[n]

    @kernel
    def runs(x: Rows, y: Rows, z: Rows) -> None:
        store_run(y, 0, lookup(load_run(x, 0, 1), floats))
        store_run(y, 1, lookup(load_run(x, 1, 8), floats))
        store_run(y, 9, lookup(load_run(x, 9, 32), floats))
        store_run(z, 0, lookup(load_run(x, 0, 16), integers))

    x = numbers(n, 41)
    outs = np.full(41, 77, np.float32), np.full(16, 77, np.int32)
    y, z = both(runs, "R(uint8, 1), float32[::1], int32[::1]", x, *outs)
    assert np.array_equal(y, np.array(floats.values, np.float32)[x])
    assert np.array_equal(z, np.array(integers.values, np.int32)[x[:16]])


@sizes
def test_bytes_of_products(n: int) -> None:
    """Four pairs of the 16 bytes of each row, one in each quarter of what a register holds."""
    table = BYTES[n]

    @kernel
    def pairs(w: Rows, out: Rows) -> None:
        found = lookup(load_bytes(block_from(w, 0, 0, ROWS), 0, 16) & 15, table)
        store_run(out, 0, short_at(found, 0))
        store_run(out, 16, short_at(found, 6))
        store_run(out, 32, short_at(found, 8))
        store_run(out, 48, short_at(found, 14))

    w = numbers(n, ROWS, 16)
    (out,) = both(pairs, "R(uint8, 2), int32[::1]", w, np.full(4 * ROWS, 77, np.int32))
    want = np.array(table.values, np.uint8)[w].view("<u2")[:, [0, 3, 4, 7]]
    assert np.array_equal(out.reshape(4, ROWS), want.T)


HOST = llvm.get_host_cpu_features()
WITHOUT_AVX512 = ",".join(f"{'-' if name.startswith('avx512') else '+'}{name}" for name in HOST if HOST[name])
PATHS = {
    "portable": {"KQUANT_PORTABLE": "1"},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": WITHOUT_AVX512},
}


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_the_paths_of_other_processors(path: str) -> None:
    """The tests above, in a process whose kernels are compiled for another processor."""
    if path == "AVX2" and not HOST.get("avx2"):
        pytest.skip("this processor has no AVX2")
    chosen = "test_lanes or test_runs or test_bytes_of_products"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, __file__]
    root = Path(__file__).parents[2]
    subprocess.run(command, check=True, env={**os.environ, **PATHS[path]}, cwd=root, timeout=600)
