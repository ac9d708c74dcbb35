"""Functions that NumPy lacks."""

from __future__ import annotations

import math

import numpy as np

from kquant.runtime.functions import erf


def test_the_error_function_is_rounded_as_the_exact_one() -> None:
    small = np.logspace(-40, 0, 400)
    exact = np.concatenate([np.linspace(-6, 6, 4001), small, -small, [0.46875, -0.46875, 4, np.inf, -np.inf]])
    x = exact.astype(np.float32)
    expected = np.array([math.erf(value) for value in x.tolist()], np.float32)
    np.testing.assert_array_equal(erf(x), expected)
    assert np.signbit(erf(np.array([-0.0], np.float32)))[0]
    assert np.isnan(erf(np.array([np.nan], np.float32)))[0]
    assert erf(x.reshape(-1, 2)).shape == (len(x) // 2, 2)
