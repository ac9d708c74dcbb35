"""Every dtype that float32 holds is taken wherever floats are; others are refused with a word of advice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import kquant
from kquant.errors import KQuantError, UnsupportedTypeError
from kquant.imatrix.reading import Imatrix

DTYPES = [
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e4m3b11fnuz,
    ml_dtypes.int4,
    np.float16,
    np.float64,
    np.longdouble,
    np.int8,
    np.uint16,
    np.int64,
    np.bool_,
]
W = kquant.QuantizedTensor.from_numpy(np.eye(4, 256, dtype=np.float32), "Q8_0")

DOORS: dict[str, Callable[[Any], Any]] = {
    "quantize": lambda x: kquant.quantize(x, "Q4_K"),
    "quantize to a number": lambda x: kquant.quantize(x, "BF16"),
    "imatrix": lambda x: kquant.quantize(np.ones((2, 256), np.float32), "Q4_K", np.abs(x[0])),
    "from_numpy": lambda x: kquant.QuantizedTensor.from_numpy(x, "Q8_0").data,
    "matmul": lambda x: kquant.matmul(W, x[0]),
    "w @ x": lambda x: W @ x[0],
    "x @ w.T": lambda x: x @ W.T,
    "Imatrix": lambda x: Imatrix({"w": np.abs(x)})["w"],
}
doors = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


@doors
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_what_float32_holds(door: Callable[[Any], Any], dtype: Any) -> None:
    x = np.arange(512).reshape(2, 256) % 7 - 3
    given = (np.abs(x) if np.dtype(dtype).kind in "ub" else x).astype(dtype)
    got, want = door(given), door(given.astype(np.float32))
    assert got.dtype == want.dtype
    assert np.array_equal(got, want)
    strided = np.repeat(given, 2, axis=1)[:, ::2]
    assert np.array_equal(door(strided), want)


class OnlyArray:
    """As a tensor of another library, which NumPy reads by `__array__`."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.x


class OnlyDlpack:
    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __dlpack__(self, **options: Any) -> Any:
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class Unreadable:
    """As a bfloat16 tensor of PyTorch."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError("Got unsupported ScalarType BFloat16")


@pytest.mark.parametrize("wrap", [OnlyArray, OnlyDlpack])
def test_tensors_of_other_libraries(wrap: Any) -> None:
    x = np.arange(512, dtype=np.float32).reshape(2, 256)
    assert np.array_equal(kquant.quantize(wrap(x), "Q4_K"), kquant.quantize(x, "Q4_K"))
    assert np.array_equal(kquant.matmul(W, wrap(x[0])), kquant.matmul(W, x[0]))
    weights = kquant.quantize(x, "Q4_K", np.arange(256))
    assert np.array_equal(kquant.quantize(x, "Q4_K", wrap(np.arange(256))), weights)


def test_a_packed_tensor_is_an_array_of_its_values() -> None:
    assert np.array_equal(kquant.quantize(W, "Q8_0"), kquant.quantize(W.numpy(), "Q8_0"))


def test_a_tensor_that_numpy_cannot_read() -> None:
    message = (
        r"expected an array of floats, got a \S+\.Unreadable that NumPy cannot read \(Got unsupported "
        r"ScalarType BFloat16\); of a PyTorch tensor pass x\.detach\(\)\.float\(\)\.cpu\(\)\.numpy\(\)$"
    )
    for call, what in (
        (lambda: kquant.quantize(Unreadable(), "Q4_K"), ""),
        (lambda: kquant.matmul(W, Unreadable()), "activations: "),
        (lambda: kquant.quantize(np.ones((1, 256)), "Q4_K", Unreadable()), "imatrix: "),
        (lambda: Imatrix({"w": Unreadable()}, path="m.dat"), "m.dat: w: "),
    ):
        with pytest.raises(UnsupportedTypeError, match=f"^{what}{message}"):
            call()


@doors
@pytest.mark.parametrize("dtype", ["c8", "S4", "V4"])
def test_other_dtypes(door: Callable[[Any], Any], dtype: str) -> None:
    class Rows(np.ndarray):
        """Whose magnitudes need no numbers."""

        def __array_ufunc__(self, ufunc: Any, method: Any, *inputs: Any, **options: Any) -> Any:
            if ufunc is np.absolute:
                return self
            return super().__array_ufunc__(ufunc, method, *inputs, **options)

    x = np.zeros((2, 256), dtype).view(Rows)
    advice = r"expected an array of floats, got dtype .*; pass x\.astype\(np\.float32\)$"
    with pytest.raises(UnsupportedTypeError, match=advice):
        door(x)
    assert issubclass(UnsupportedTypeError, KQuantError)
