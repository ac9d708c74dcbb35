"""Finite values that a type cannot hold are named, with the type's limit and their place."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.arrays import codec
from kquant.errors import InvalidDataError, NonFiniteError, OutOfRangeError
from kquant.formats import format_of
from kquant.types import TensorType
from support import golden

LIMITS = {
    "F16": (1e5, "which ends at 65504; Q8_0, BF16 or F32 can hold it"),
    "BF16": (3.4e38, "which ends at 3.38953e+38; F32 can hold it"),
    "Q8_0": (1e7, "whose blocks end at about 8.385e+06 (d is fp16); BF16 or F32 can hold it"),
    "Q4_0": (-1e6, "whose blocks end at about 5.24e+05 (d is fp16); Q8_0, BF16 or F32 can hold it"),
    "Q5_0": (2e6, "whose blocks end at about 1.048e+06 (d is fp16); Q8_0, BF16 or F32 can hold it"),
    "Q4_1": (1e6, "whose blocks span about 9.826e+05 (d is fp16); Q8_0, BF16 or F32 can hold it"),
    "Q5_1": (-1e5, "whose blocks begin at about -6.55e+04 (m is fp16); Q8_0, BF16 or F32 can hold it"),
    "Q8_1": (7e4, "whose blocks have sums up to 65504 (s is fp16); Q8_0, BF16 or F32 can hold it"),
    "Q2_K": (4e6, "whose blocks span about 2.948e+06 (d is fp16); Q8_0, BF16 or F32 can hold it"),
    "Q3_K": (1e7, "whose blocks end at about 8.385e+06 (d is fp16); BF16 or F32 can hold it"),
    "Q4_K": (1e30, "whose blocks span about 6.19e+07 (d is fp16); BF16 or F32 can hold it"),
    "Q5_K": (1e10, "whose blocks span about 1.279e+08 (d is fp16); BF16 or F32 can hold it"),
    "Q6_K": (1e9, "whose blocks end at about 2.683e+08 (d is fp16); BF16 or F32 can hold it"),
}
both = pytest.mark.parametrize("execution", ["numba", "numpy"])


@both
@pytest.mark.parametrize("type_name", LIMITS)
def test_the_first_value_beyond_a_type(type_name: str, execution: Any) -> None:
    value, limit = LIMITS[type_name]
    x = np.zeros((2, 3, 512), np.float32)
    x[1, 1, 300], x[1, 2, 5] = value, value
    sentence = re.escape(f"{value:.5g} at index (1, 1, 300) is beyond {type_name}, {limit}")
    with pytest.raises(OutOfRangeError, match=f"^{sentence}$"):
        codec.quantize(x, type_name, execution=execution)
    unchecked = codec.quantize(x, type_name, execution=execution, check=False)
    with pytest.raises(InvalidDataError):
        kquant.validate(unchecked, type_name)
    rows = np.empty_like(unchecked).reshape(6, -1)
    format_of(TensorType[type_name]).quantize_rows(x.reshape(6, -1), None, rows, execution)
    assert np.array_equal(rows, unchecked.reshape(6, -1))


@pytest.mark.parametrize("type_name", golden.K_QUANTS + golden.LEGACY)
@pytest.mark.parametrize("value", [1e20, 3e38])
@pytest.mark.parametrize("weights", [None, np.ones(256)], ids=["plain", "weighted"])
def test_values_whose_squares_overflow_do_not_vanish(type_name: str, value: float, weights: Any) -> None:
    """ggml writes zeros for some of them."""
    x = np.zeros((3, 256), np.float32)
    x[1, 7] = value
    with pytest.raises(OutOfRangeError, match=rf" at index \(1, 7\) is beyond {type_name}, "):
        codec.quantize(x, type_name, weights)
    x[1] = value
    with pytest.raises(OutOfRangeError, match=rf" at index \(1, 0\) is beyond {type_name}, "):
        kquant.QuantizedTensor.from_numpy(x, type_name, weights)


@both
def test_weights_whose_products_overflow_are_the_cause(execution: Any) -> None:
    """The values are not too large."""
    x = ((np.arange(256) * 37 % 256 - 128) / 32).astype(np.float32)[None]
    message = (
        r"^-?4 at index \(0, \d+\) and importance weights up to 1e\+36: their products are beyond float32"
    )
    with pytest.raises(OutOfRangeError, match=message):
        codec.quantize(x, "Q3_K", (np.arange(256) * 53 % 97 + 1) / 97 * 1e36, execution=execution)


@both
@pytest.mark.parametrize(
    ("type_name", "largest"),
    [("F16", 65519.996), ("BF16", 3.3961e38), ("Q8_0", 65519 * 127.0), ("Q4_0", 65519 * 8.0)],
)
def test_the_largest_values_are_held(type_name: str, largest: float, execution: Any) -> None:
    """Exactly up to where ggml's bytes become infinite; large values cost nothing but a second look."""
    x = np.zeros((4, 64), np.float32)
    x[2, 40], x[3, 3] = largest, -largest
    packed = codec.quantize(x, type_name, execution=execution)
    assert np.isfinite(codec.dequantize(packed, type_name)).all()
    assert np.array_equal(packed, codec.quantize(x, type_name, execution=execution, check=False))
    x[2, 40] = largest * 1.01 if type_name != "BF16" else 3.4e38
    with pytest.raises(OutOfRangeError, match=r"at index \(2, 40\)"):
        codec.quantize(x, type_name, execution=execution)


@pytest.mark.parametrize("threads", [1, 2])
def test_nan_comes_before_what_is_too_large(threads: int) -> None:
    """In the same rows: what is wrong with the source matters more."""
    x = np.zeros((2, 512), np.float32)
    x[0, 1], x[1, 0] = 1e30, np.nan
    with pytest.raises(NonFiniteError, match=r"got nan at index \(1, 0\)$"):
        codec.quantize(x, "Q4_K", threads=threads)


def test_f32_and_activations_for_k_quants_hold_all() -> None:
    x = np.full((1, 256), -3.4e38, np.float32)
    for type_name in ("F32", "Q8_K"):
        kquant.validate(kquant.quantize(x, type_name), type_name)
