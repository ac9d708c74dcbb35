"""Finite operands give finite products, or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.errors import NonFiniteError, OutOfRangeError

both = pytest.mark.parametrize("execution", ["numba", "numpy"])


def rows(value: float, type_name: str) -> kquant.QuantizedTensor:
    """Three rows; the second holds the value."""
    x = np.ones((3, 256), np.float32)
    x[1] = value
    return kquant.QuantizedTensor.from_numpy(x, type_name)


@both
@pytest.mark.parametrize(
    ("type_name", "value"), [("Q4_K", 1e6), ("Q6_K", 1e6), ("BF16", 1e30), ("F32", 1e30)]
)
def test_products_beyond_float32(type_name: str, value: float, execution: Any) -> None:
    w = rows(value, type_name)
    x = np.full((256, 2), 1e36, np.float32)
    x[:, 0] = 1
    partner = "Q8_K" if type_name.endswith("_K") else type_name
    with np.errstate(over="ignore"):
        assert np.isfinite(kquant.matmul(w, x[:, 0], execution=execution)).all()
        with pytest.raises(
            OutOfRangeError, match=r"^matmul: the sum of products at index \(1, 1\) is beyond float32$"
        ):
            kquant.matmul(w[:2], x, execution=execution)
    packed = kquant.quantize(x[:, 1], partner)
    with pytest.raises(
        OutOfRangeError, match=r"^vec_dot: the sum of products at index \(1,\) is beyond float32$"
    ):
        kquant.vec_dot(w.data[:2], type_name, packed, partner, execution=execution)


@pytest.mark.parametrize("type_name", ["Q4_0", "Q4_1"])
def test_activations_that_cannot_be_packed(type_name: str) -> None:
    beyond = "is beyond Q8_[01], whose blocks "
    with pytest.raises(OutOfRangeError, match=rf"^activations: 1e\+08 at index \(0,\) {beyond}"):
        kquant.matmul(rows(1, type_name), np.full(256, 1e8, np.float32))


PLACES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "w @ x": (lambda w, x: w @ x, r"\(7, 1\)"),
    "x.T @ w.T": (lambda w, x: x.T @ w.T, r"\(1, 7\)"),
    "one column": (lambda w, x: w @ x[:, 1], r"\(7,\)"),
    "a stack": (lambda w, x: w @ np.stack([np.ones_like(x), x]), r"\(1, 7, 1\)"),
    "a stack of rows": (lambda w, x: np.stack([np.ones_like(x), x]).mT @ w.mT, r"\(1, 1, 7\)"),
    "packed": (lambda w, x: w @ kquant.PackedActivations(x), r"\(7, 1\)"),
}


@both
@pytest.mark.parametrize(("product", "place"), PLACES.values(), ids=PLACES)
def test_the_place_is_that_in_the_array_that_was_given(
    product: Callable[[Any, Any], Any], place: str, execution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KQUANT_EXECUTION", execution)
    x = np.ones((256, 2), np.float32)
    x[7, 1] = 1e30
    with pytest.raises(OutOfRangeError, match=f"at index {place} is beyond Q8_0"):
        product(rows(1, "Q8_0"), x)
    x[7, 1] = np.nan
    with pytest.raises(NonFiniteError, match=f"got nan at index {place}$"):
        product(rows(1, "Q8_0"), x)


@pytest.mark.parametrize("type_name", ["Q4_K", "Q8_0", "F16", "F32"])
def test_activations_beyond_float32(type_name: str) -> None:
    """The number that was given is named, and no type lets it become infinite."""
    w, x = rows(1, type_name), np.ones((256, 2))
    x[7, 1] = 1e39
    message = r"^activations: expected values that float32 can hold, got 1e\+39 at index \({}\)$"
    with pytest.raises(NonFiniteError, match=message.format("7, 1")):
        kquant.matmul(w, x)
    with pytest.raises(NonFiniteError, match=message.format("1, 7")):
        x.T @ w.T
    with pytest.raises(NonFiniteError, match=message.format("7, 1")):
        kquant.PackedActivations(x)


@pytest.mark.filterwarnings("error")
def test_sums_of_numbers_beyond_float32_say_where() -> None:
    x = np.ones((256, 2), np.float32)
    x[:, 1] = 3e38
    with pytest.raises(OutOfRangeError, match=r"index \(0, 1\) is beyond float32$"):
        kquant.matmul(rows(100, "F16"), x)
    with pytest.raises(OutOfRangeError, match=r"index \(1, 0\) is beyond float32$"):
        x.T @ rows(100, "F16").T


def test_with_types_of_numbers_infinity_goes_through() -> None:
    x = np.ones((256, 2))
    x[7, 1] = np.inf
    assert np.isinf(kquant.matmul(rows(1, "F16"), x)).tolist() == [[False, True]] * 3


def test_what_is_not_finite_goes_through() -> None:
    """Packed rows may hold anything: ggml multiplies them."""
    w = rows(1, "Q8_0")
    w.data[1, :2] = [0x00, 0x7E]
    products = kquant.matmul(w, np.ones(256, np.float32))
    assert np.isnan(products).tolist() == [False, True, False]
    a = kquant.quantize(np.ones(256, np.float32), "Q8_0")
    assert np.isnan(kquant.vec_dot(w.data, "Q8_0", a, "Q8_0")).tolist() == [False, True, False]
    with pytest.raises(NonFiniteError):
        kquant.matmul(w, np.full(256, np.nan, np.float32))
