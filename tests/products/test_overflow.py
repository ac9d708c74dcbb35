"""Finite operands give finite products, or an error."""

from __future__ import annotations

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
    with pytest.raises(OutOfRangeError, match=r"at index \(0, 0\) is beyond Q8_[01], whose blocks "):
        kquant.matmul(rows(1, type_name), np.full(256, 1e8, np.float32))


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
