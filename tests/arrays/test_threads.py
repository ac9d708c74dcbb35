"""Arrays that several threads pack and unpack: the same bytes, the first error, any pool, any `out`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import kquant
from kquant import NonFiniteError, OptionError, ShapeError, UnsupportedTypeError

X = np.random.default_rng(0).standard_normal((4096, 256), np.float32)


@pytest.mark.parametrize("type", ["Q8_0", "F16"])
def test_the_same_on_any_threads(type: str) -> None:
    packed = kquant.quantize(X, type, threads=1)
    values = kquant.dequantize(packed, type, threads=1)
    with kquant.Pool(3) as pool:
        for how in ({"threads": 2}, {"threads": 5}, {"pool": pool}, {"pool": pool, "threads": 2}):
            np.testing.assert_array_equal(kquant.quantize(X, type, **how), packed)
            np.testing.assert_array_equal(kquant.dequantize(packed, type, **how), values)


def test_the_first_of_several_values_that_are_not_finite() -> None:
    x = np.zeros((4096, 256), np.float32)
    x[1000:, 3] = np.nan
    for _ in range(5):
        with pytest.raises(NonFiniteError, match=r"index \(1000, 3\)"):
            kquant.quantize(x, "Q8_0", threads=4)


LAYOUTS = ("plain", "every other row", "columns", "from the end")


def laid_out(layout: str, like: NDArray[Any]) -> NDArray[Any]:
    """An array of this layout, of another's shape and dtype."""
    n, m = like.shape
    if layout == "columns":
        return np.empty((m, n), like.dtype).T
    memory = np.empty((2 * n, m), like.dtype)
    return {"plain": memory[:n], "every other row": memory[::2], "from the end": memory[:n, ::-1]}[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_go_where_the_caller_wants_them(layout: str) -> None:
    packed = kquant.quantize(X[:32], "Q4_0")
    out = laid_out(layout, packed)
    assert kquant.quantize(X[:32], "Q4_0", out=out) is out
    np.testing.assert_array_equal(out, packed)
    values = kquant.dequantize(packed, "Q4_0")
    out = laid_out(layout, values)
    assert kquant.dequantize(packed, "Q4_0", out=out) is out
    np.testing.assert_array_equal(out, values)


def test_a_result_may_replace_its_source() -> None:
    x = X[:8].copy()
    packed = kquant.quantize(x, "F32")
    wanted = kquant.dequantize(packed, "F32")
    kquant.dequantize(packed, "F32", out=packed.view(np.float32)[::-1])
    np.testing.assert_array_equal(packed.view(np.float32)[::-1], wanted)
    packed = kquant.quantize(x, "F32")
    kquant.quantize(x, "F32", out=x.view(np.uint8))
    np.testing.assert_array_equal(x.view(np.uint8), packed)


READ_ONLY = np.zeros((2, 34), np.uint8)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (
            np.zeros((2, 33), np.uint8),
            ShapeError,
            r"^out: expected the result's shape \(2, 34\), got \(2, 33\)$",
        ),
        (np.zeros((2, 34), np.int8), UnsupportedTypeError, "^out: expected an array of uint8 .* got int8$"),
        (READ_ONLY, UnsupportedTypeError, "got uint8, read-only$"),
        ([[0] * 34] * 2, UnsupportedTypeError, "got list$"),
    ],
)
def test_arrays_that_no_result_can_go_to(out: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kquant.quantize(np.zeros((2, 32), np.float32), "Q8_0", out=out)


def test_no_thread() -> None:
    with pytest.raises(OptionError, match=r"^threads: expected at least 1, got 0$"):
        kquant.quantize(X, "Q8_0", threads=0)
