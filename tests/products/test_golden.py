"""Every recorded pair of rows: within 4 units in the last place of the sum of absolute terms of ggml's C."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.kernels.execute import Execution
from kquant.products.dots import vec_dot, vec_dot_type
from support import golden

INDEX = golden.document("vec_dot/index.json")
EXECUTIONS: tuple[Execution, ...] = ("numba", "numpy")


def results(name: str, execution: Execution) -> NDArray[np.float32]:
    pairs = golden.arrays(f"vec_dot/{name}.npz")
    activation = INDEX[name]["activation"]
    return vec_dot(pairs["weights"], name, pairs["activations"], activation, execution=execution)


@pytest.mark.parametrize("name", INDEX)
def test_partner(name: str) -> None:
    assert vec_dot_type(name).name == INDEX[name]["activation"]


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("name", INDEX)
def test_within_4_ulp_of_generic_c(name: str, execution: Execution) -> None:
    pairs = golden.arrays(f"vec_dot/{name}.npz")
    unit = np.spacing(pairs["abs_sum_f64"].astype(np.float32)).astype(np.float64)
    difference = np.abs(results(name, execution).astype(np.float64) - pairs["c_generic"])
    assert (difference <= 4 * unit).all(), (difference / unit).max()


@pytest.mark.parametrize("name", INDEX)
def test_both_executions_agree_bit_for_bit(name: str) -> None:
    compiled, readable = (results(name, execution).view(np.uint32) for execution in EXECUTIONS)
    np.testing.assert_array_equal(compiled, readable)


HOST = llvm.get_host_cpu_features()


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_the_paths_of_other_processors_agree_bit_for_bit(isa: str) -> None:
    """In a process of its own: kernels are compiled one way or the other, once for all."""
    if isa == "avx2" and not HOST.get("avx2"):
        pytest.skip("this processor has no AVX2")
    code = """
import sys
import numpy as np
from products.test_golden import INDEX, results
from products.test_integers import test_largest_magnitudes_do_not_overflow
from products.test_integers import test_largest_magnitudes_do_not_overflow_in_tiles
from products.test_matmul import K_QUANTS, LEGACY, TABLES, normal, packed
from kquant.kernels.lowering.isa.choice import CHOICE
from kquant.products.matrices import matmul

assert CHOICE.name == sys.argv[1]
for name in INDEX:
    np.testing.assert_array_equal(results(name, "numba"), results(name, "numpy"))
for name in K_QUANTS + LEGACY + TABLES:
    w, x = packed(name, 20, 512), normal(512, 23)
    for columns in (x, x[:, 0]):
        np.testing.assert_array_equal(matmul(w, columns), matmul(w, columns, execution="numpy"))
    for execution in ("numba", "numpy"):
        test_largest_magnitudes_do_not_overflow(name, execution)
        test_largest_magnitudes_do_not_overflow_in_tiles(name, execution)
"""
    tests = Path(__file__).parents[1]
    folders = os.pathsep.join([str(tests.parent), str(tests)])
    environment = {**os.environ, "KQUANT_ISA": isa, "PYTHONPATH": folders}
    subprocess.run([sys.executable, "-c", code, isa], check=True, env=environment)
