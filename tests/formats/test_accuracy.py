"""What quantizing costs: errors per type, their order, and what survives a second time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.arrays import codec
from kquant.types import TensorType
from support import golden

RELATIVE_ERRORS = {
    "Q2_K": 0.297,
    "Q3_K": 0.152,
    "Q4_0": 0.087,
    "Q4_1": 0.079,
    "Q4_K": 0.072,
    "Q5_0": 0.0435,
    "Q5_1": 0.0385,
    "Q5_K": 0.0365,
    "Q6_K": 0.018,
    "Q8_1": 0.0055,
    "Q8_0": 0.0055,
    "Q8_K": 0.0071,
    "IQ4_NL": 0.08,
    "MXFP4": 0.15,
    "BF16": 0.0017,
    "F16": 0.00022,
    "F32": 0.0,
}
"""Root mean square error of normal weights, relative to theirs: upper bounds."""

EXACT_TWICE = ("F32", "F16", "BF16", "Q4_0", "Q5_0", "Q8_0")
"""Types whose own values are quantized to the same bytes: the extreme of each block is one of them."""


def normal_weights() -> NDArray[np.float32]:
    return (np.random.default_rng(11).standard_normal((64, 1024)) * 0.02).astype(np.float32)


def relative_error(type_name: str, weights: NDArray[np.float32] | None = None) -> float:
    x = normal_weights()
    y = codec.dequantize(codec.quantize(x, type_name, weights), type_name)
    column = np.ones(x.shape[1]) if weights is None else weights
    return float(np.sqrt((column * (y - x) ** 2).sum() / (column * x**2).sum()))


def test_every_type_has_a_bound() -> None:
    assert set(RELATIVE_ERRORS) == {t.name for t in TensorType if codec.has_codec(t)}


@pytest.mark.parametrize("type_name", RELATIVE_ERRORS)
def test_errors_of_normal_weights(type_name: str) -> None:
    assert relative_error(type_name) <= RELATIVE_ERRORS[type_name]


@pytest.mark.parametrize(
    "family",
    [
        ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "BF16", "F16", "F32"),
        ("Q4_0", "Q5_0", "Q8_0"),
        ("Q4_1", "Q5_1", "Q8_1"),
    ],
)
def test_more_bits_mean_smaller_errors(family: tuple[str, ...]) -> None:
    bits = [TensorType[t].bits_per_element for t in family]
    errors = [relative_error(t) for t in family]
    assert bits[:6] == sorted(bits[:6])
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("type_name", golden.WEIGHTED)
def test_importance_weights_lower_the_weighted_error(type_name: str) -> None:
    weights = np.exp(np.random.default_rng(4).standard_normal(1024) * 2).astype(np.float32)
    x = normal_weights()
    errors = []
    for given in (None, weights):
        y = codec.dequantize(codec.quantize(x, type_name, given), type_name)
        errors.append(float((weights * (y - x) ** 2).sum()))
    assert errors[1] < errors[0]


@pytest.mark.parametrize("type_name", EXACT_TWICE)
def test_quantizing_twice_changes_nothing(type_name: str) -> None:
    packed = codec.quantize(normal_weights(), type_name)
    again = codec.quantize(codec.dequantize(packed, type_name), type_name)
    assert np.array_equal(codec.dequantize(again, type_name), codec.dequantize(packed, type_name))


@pytest.mark.parametrize("type_name", RELATIVE_ERRORS)
def test_zeros_stay_zeros(type_name: str) -> None:
    zeros = np.zeros((2, 512), np.float32)
    for x in (zeros, -zeros):
        assert not codec.dequantize(codec.quantize(x, type_name), type_name).any()


@pytest.mark.parametrize("type_name", RELATIVE_ERRORS)
def test_an_outlier_costs_no_other_block(type_name: str) -> None:
    t = TensorType[type_name]
    x = normal_weights()
    packed = codec.quantize(x, type_name).reshape(len(x), -1, t.type_size)
    outlier = x.copy()
    outlier[:, 0] = 100
    changed = (codec.quantize(outlier, type_name).reshape(packed.shape) != packed).any(axis=(0, 2))
    assert changed.tolist() == [True] + [False] * (changed.size - 1)
