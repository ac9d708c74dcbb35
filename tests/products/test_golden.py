"""Every recorded pair of rows: within 4 units in the last place of the sum of absolute terms of ggml's C."""

from __future__ import annotations

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
