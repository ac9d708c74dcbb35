"""`ErrorSums` against NumPy, and where sums are zero."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kquant.analysis.sums import ErrorSums

RANDOM = np.random.default_rng(0)
A = RANDOM.standard_normal(1000).astype(np.float32)
B = (A + 0.1 * RANDOM.standard_normal(1000)).astype(np.float32)


def test_figures_are_numpys() -> None:
    sums, a, b = ErrorSums.of(A, B), A.astype(float), B.astype(float)
    assert sums.rmse == pytest.approx(np.sqrt(np.mean((a - b) ** 2)))
    assert sums.relative_rmse == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))
    assert sums.max_error == np.abs(a - b).max()
    assert sums.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_sums_add_up() -> None:
    parts = ErrorSums.of(A[:300], B[:300]) + ErrorSums.of(A[300:], B[300:])
    whole = ErrorSums.of(A, B)
    assert parts.elements == 1000
    assert parts.max_error == whole.max_error
    assert parts.to_dict() == pytest.approx(whole.to_dict())


def test_scaled_sums_have_the_same_figures() -> None:
    sums = ErrorSums.of(A, B)
    assert sums.scaled(123_456).to_dict() == pytest.approx(sums.to_dict() | {"elements": 123_456})
    assert ErrorSums().scaled(5) == ErrorSums()


def test_exact() -> None:
    exact = ErrorSums.of(A, B).exact
    assert (exact.rmse, exact.max_error, exact.cosine) == (0, 0, 1)
    assert exact == ErrorSums.of(A, A)


def test_nothing_and_zeros() -> None:
    zeros, ones = np.zeros(4), np.ones(4)
    none = ErrorSums.of(zeros[:0], zeros[:0])
    assert none == ErrorSums()
    assert (none.rmse, none.relative_rmse, none.cosine) == (0, 0, 1)
    same = ErrorSums.of(zeros, zeros)
    assert (same.relative_rmse, same.cosine) == (0, 1)
    appeared = ErrorSums.of(zeros, ones)
    assert (appeared.rmse, appeared.relative_rmse, appeared.cosine) == (1, math.inf, 0)
    vanished = ErrorSums.of(ones, zeros)
    assert (vanished.relative_rmse, vanished.cosine) == (1, 0)


def test_integers_do_not_overflow() -> None:
    a, b = np.array([-128, 127], np.int8), np.array([127, -128], np.int8)
    assert ErrorSums.of(a, b).max_error == 255
    wide = ErrorSums.of(np.array([2**62]), np.array([-(2**62)]))
    assert (wide.max_error, wide.cosine) == (2.0**63, -1)


def test_cosines_stay_cosines() -> None:
    for scale in (1e-150, 1, 1e150):
        assert ErrorSums.of(A * np.float64(scale), A * np.float64(scale)).cosine <= 1


def test_infinite_values_raise_no_warning() -> None:
    assert math.isnan(ErrorSums.of(np.array([np.inf]), np.array([np.inf])).squared_error)


FIGURES = ("rmse", "relative_rmse", "max_error", "cosine")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 500, 999])
def test_what_is_no_number_has_no_figures(value: float, at: int) -> None:
    b = B.copy()
    b[at] = value
    sums = ErrorSums.of(A, b)
    for found in (sums, sums + ErrorSums.of(A, B), ErrorSums.of(A, B) + sums, sums.scaled(7)):
        assert not found.figures_known
        assert found.rank == math.inf
        assert all(math.isnan(getattr(found, figure)) for figure in FIGURES)
        assert found.to_dict() == {"elements": found.elements} | dict.fromkeys(FIGURES)
    assert sums.exact.figures_known
    assert ErrorSums.without_counterpart(A).exact == sums.exact
    assert not ErrorSums.without_counterpart(A).figures_known


def test_an_infinite_figure_is_none_in_json() -> None:
    appeared = ErrorSums.of(np.zeros(4), np.ones(4))
    assert appeared.figures_known
    assert appeared.to_dict() == {
        "elements": 4,
        "rmse": 1.0,
        "relative_rmse": None,
        "max_error": 1.0,
        "cosine": 0.0,
    }
