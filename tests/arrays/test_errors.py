"""Every refusal of `quantize` and `dequantize`: which error, and that it says expected, got and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.arrays import codec
from kquant.errors import (
    KQuantError,
    NonFiniteError,
    OptionError,
    ShapeError,
    UnknownTypeError,
    UnsupportedTypeError,
)
from kquant.types import TensorType
from support import golden

ROWS = np.zeros((3, 512), np.float32)
ALL = ("F32", *golden.TYPES)
BLOCKS = [t for t in ALL if TensorType[t].block_size > 1]
both = pytest.mark.parametrize("execution", ["numba", "numpy"])


def with_value(shape: tuple[int, ...], at: tuple[int, ...], value: float, dtype: str = "f4") -> Any:
    x = np.zeros(shape, dtype)
    x[at] = value
    return x


# ---------------------------------------------------------------- types

DOORS: dict[str, Callable[[Any], Any]] = {
    "quantize": lambda t: codec.quantize(ROWS, t),
    "dequantize": lambda t: codec.dequantize(np.zeros((1, 0), np.uint8), t),
    "validate": lambda t: codec.validate(np.zeros((1, 0), np.uint8), t),
}
doors = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


@doors
def test_no_such_type(door: Callable[[Any], Any]) -> None:
    with pytest.raises(UnknownTypeError, match=r"^unknown tensor type 'Q9_K'; known: F32, F16, Q4_0, "):
        door("Q9_K")
    with pytest.raises(UnknownTypeError, match=r"^unknown tensor type id 999; ggml defines 0 to \d+$"):
        door(999)


@pytest.mark.parametrize("door", ["quantize", "dequantize"])
@pytest.mark.parametrize("type_name", ["IQ2_XXS", "IQ4_XS", "TQ1_0", "NVFP4", "I32", "F64", "REMOVED_4"])
def test_a_type_without_codec(door: str, type_name: str) -> None:
    assert not codec.has_codec(type_name)
    with pytest.raises(UnsupportedTypeError, match=rf"^{type_name}: .*no codec"):
        DOORS[door](type_name)


def test_a_removed_type_cannot_be_validated() -> None:
    with pytest.raises(UnsupportedTypeError, match=r"^Q4_2 \(id 4\): ggml has removed this type$"):
        DOORS["validate"]("REMOVED_4")


def test_has_codec() -> None:
    assert {t.name for t in TensorType if codec.has_codec(t)} == set(ALL)
    with pytest.raises(UnknownTypeError, match="Q9_K"):
        codec.has_codec("Q9_K")


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize("type_name", BLOCKS)
@pytest.mark.parametrize("shape", [(255,), (2, 257), (0, 31), (2, 3, 1)], ids=str)
def test_row_lengths(type_name: str, shape: tuple[int, ...]) -> None:
    block = TensorType[type_name].block_size
    message = rf"^{type_name}: expected a row length that is a multiple of {block}, got {shape[-1]}$"
    with pytest.raises(ShapeError, match=message):
        codec.quantize(np.zeros(shape, np.float32), type_name)


@pytest.mark.parametrize("type_name", ALL)
def test_a_single_number_is_no_row(type_name: str) -> None:
    with pytest.raises(ShapeError, match=rf"^{type_name}: expected rows of floats, got a single number$"):
        codec.quantize(np.float32(1), type_name)
    with pytest.raises(ShapeError, match=rf"^{type_name}: expected rows .* got a single byte$"):
        codec.dequantize(np.uint8(1), type_name)


@pytest.mark.parametrize("type_name", ALL)
@pytest.mark.parametrize("extra", [-1, 1])
def test_byte_counts(type_name: str, extra: int) -> None:
    size = TensorType[type_name].type_size
    message = rf"^{type_name}: expected rows of a multiple of {size} bytes, got {2 * size + extra} bytes$"
    with pytest.raises(ShapeError, match=message):
        codec.dequantize(np.zeros((3, 2 * size + extra), np.uint8), type_name)


@pytest.mark.parametrize("dtype", ["i1", "u2", "f4", "O", "S1", "?"])
def test_packed_rows_are_bytes(dtype: str) -> None:
    with pytest.raises(ShapeError, match=r"^Q8_0: expected packed rows of uint8, got dtype "):
        codec.dequantize(np.zeros((2, 34), dtype), "Q8_0")


@pytest.mark.parametrize("dtype", ["c8", "O", "S4", "U4", "M8[s]", "V4", "f4,f4"])
def test_values_are_numbers(dtype: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"^expected an array of floats, got dtype "):
        codec.quantize(np.zeros((2, 256), dtype), "Q4_K")


def test_ragged_rows_are_no_array() -> None:
    with pytest.raises(ShapeError, match=r"^expected nested lists of one length, got lists that NumPy cann"):
        codec.quantize([[1.0, 2.0], [3.0]], "F16")


@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), ("abc", "str"), (object(), "object")])
def test_what_is_no_array_is_named(value: Any, kind: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=rf"^expected an array of floats, got {kind}$"):
        codec.quantize(value, "F16")


# ---------------------------------------------------------------- values


@both
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("type_name", ALL)
def test_values_are_finite(type_name: str, value: float, execution: Any) -> None:
    x = with_value((2, 3, 512), (1, 2, 300), value)
    message = rf"^{type_name}: expected finite float32 values, got {value} at index \(1, 2, 300\)$"
    with pytest.raises(NonFiniteError, match=message):
        codec.quantize(x, type_name, execution=execution)


@both
@pytest.mark.parametrize("position", [0, 1, 255, 256, 511, 512 * 299 + 511])
@pytest.mark.parametrize("type_name", ["Q4_K", "Q8_0", "F16"])
def test_the_first_bad_value_is_found_wherever_it_is(type_name: str, position: int, execution: Any) -> None:
    x = np.zeros((300, 512), np.float32)
    x.reshape(-1)[position:] = np.nan
    row, column = divmod(position, 512)
    with pytest.raises(NonFiniteError, match=rf"got nan at index \({row}, {column}\)$"):
        codec.quantize(x, type_name, threads=1, execution=execution)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("type_name", ["Q4_K", "Q8_0", "F16"])
def test_the_first_bad_value_is_found_whichever_thread_meets_it(type_name: str, threads: int) -> None:
    rows = 1600
    x = np.zeros((rows, 512), np.float32)
    x[rows // 2 :, 5] = np.inf
    with pytest.raises(NonFiniteError, match=rf"got inf at index \({rows // 2}, 5\)$"):
        codec.quantize(x, type_name, threads=threads)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 130])
@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16"])
def test_the_last_number_of_any_length_is_looked_at(type_name: str, n: int) -> None:
    x = with_value((n,), (n - 1,), np.inf)
    with pytest.raises(NonFiniteError, match=rf"got inf at index \({n - 1},\)$"):
        codec.quantize(x, type_name)


@both
@pytest.mark.parametrize("type_name", ALL)
def test_what_float32_cannot_hold(type_name: str, execution: Any) -> None:
    """1e300 is a float64; as a float32 it would be infinite."""
    x = with_value((2, 256), (1, 7), 1e300, "f8")
    with pytest.raises(
        NonFiniteError, match=r"^\w+: expected finite float32 values, got 1e\+300 at index \(1, 7\)$"
    ):
        codec.quantize(x, type_name, execution=execution)


def test_nothing_is_lost_on_the_way_to_float32() -> None:
    """A value that float32 rounds to zero or to a subnormal is accepted."""
    x = np.full((1, 256), 1e-300)
    assert not codec.dequantize(codec.quantize(x, "Q4_K"), "Q4_K").any()


# ---------------------------------------------------------------- importance weights


@pytest.mark.parametrize("shape", [(511,), (1024,), (1, 512), (3, 512), (0,), ()], ids=str)
def test_importance_has_one_weight_per_column(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"^imatrix: expected one weight for each of 512 columns, got "):
        codec.quantize(ROWS, "Q4_K", np.ones(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("type_name", ["Q4_K", "Q8_0", "F16"])
def test_importance_is_finite(type_name: str, value: float) -> None:
    weights = with_value((512,), (17,), value, "f8")
    with pytest.raises(
        NonFiniteError, match=r"^imatrix: expected finite weights, got (nan|inf) for column 17$"
    ):
        codec.quantize(ROWS, type_name, weights)


def test_importance_is_made_of_numbers() -> None:
    with pytest.raises(
        UnsupportedTypeError, match=r"^imatrix: expected an array of floats, got dtype complex64; pass "
    ):
        codec.quantize(ROWS, "Q4_K", np.ones(512, np.complex64))


# ---------------------------------------------------------------- how to run


@pytest.mark.parametrize("threads", [0, -1])
def test_threads(threads: int) -> None:
    for call in (
        lambda: codec.quantize(ROWS, "Q8_0", threads=threads),
        lambda: codec.dequantize(np.zeros((3, 34), np.uint8), "Q8_0", threads=threads),
    ):
        with pytest.raises(OptionError, match=rf"^threads: expected at least 1, got {threads}$"):
            call()


@pytest.mark.parametrize("threads", ["2", 1.5])
def test_threads_are_counted(threads: Any) -> None:
    message = rf"^threads: expected a whole number, got {threads!r}$"
    with pytest.raises(OptionError, match=message):
        codec.quantize(ROWS, "Q4_K", threads=threads)
    with pytest.raises(OptionError, match=message):
        codec.dequantize(np.zeros((3, 144), np.uint8), "Q4_K", threads=threads)


def test_pools() -> None:
    """Also where there is nothing to do."""
    closed = kquant.Pool(1)
    closed.close()
    wrong: list[tuple[Any, str]] = [
        (closed, "an open one, got one that is closed"),
        (2, "a kquant.Pool, got int"),
    ]
    for pool, message in wrong:
        for n in (0, 3):
            with pytest.raises(OptionError, match=f"^pool: expected {message}$"):
                codec.quantize(ROWS[:n], "Q4_K", pool=pool)
            with pytest.raises(OptionError, match=f"^pool: expected {message}$"):
                codec.dequantize(np.zeros((n, 144), np.uint8), "Q4_K", pool=pool)


def test_execution() -> None:
    with pytest.raises(OptionError, match=r"^execution: expected 'numba' or 'numpy', got 'fortran'$"):
        codec.quantize(ROWS, "Q8_0", execution="fortran")  # type: ignore[arg-type]


def test_execution_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KQUANT_EXECUTION", "cobol")
    with pytest.raises(OptionError, match="'cobol'"):
        codec.dequantize(np.zeros((3, 34), np.uint8), "Q8_0")
    monkeypatch.setenv("KQUANT_EXECUTION", "numpy")
    assert codec.quantize(ROWS, "Q8_0").shape == (3, 544)


def test_the_public_door_is_the_codec() -> None:
    assert kquant.quantize is codec.quantize
    assert kquant.dequantize is codec.dequantize


def test_every_error_is_kquants_own() -> None:
    for error in (NonFiniteError, OptionError, ShapeError, UnknownTypeError, UnsupportedTypeError):
        assert issubclass(error, KQuantError)
