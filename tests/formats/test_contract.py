"""What holds for every format alike: shapes, memory layouts, threads, rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.arrays import codec
from kquant.kernels import execute
from kquant.kernels.execute import Execution
from kquant.types import TensorType
from support import golden
from support.compare import assert_same_bytes, assert_same_floats

ALL = ("F32", *golden.TYPES)

every_type = pytest.mark.parametrize("type_name", ALL)


def weights_like(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Heavy-tailed floats with a scale of its own for each column."""
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.standard_normal(shape[-1:]) * 0.5)
    x: NDArray[np.float64] = rng.standard_t(4, shape) * scales * 0.02
    return x.astype(np.float32)


def importance(n: int) -> NDArray[np.float32]:
    return np.exp(np.random.default_rng(9).standard_normal(n)).astype(np.float32)


# ---------------------------------------------------------------- shapes


@every_type
@pytest.mark.parametrize(
    "shape", [(512,), (0, 256), (3, 0, 256), (1, 256), (5, 256), (2, 3, 256), (2, 1, 3, 512)]
)
def test_shapes(type_name: str, shape: tuple[int, ...]) -> None:
    t = TensorType[type_name]
    x = weights_like(*shape)
    packed = codec.quantize(x, type_name)
    assert (packed.dtype, packed.shape) == (np.dtype(np.uint8), (*shape[:-1], t.row_bytes(shape[-1])))
    values = codec.dequantize(packed, type_name)
    assert (values.dtype, values.shape) == (np.dtype(np.float32), shape)


@every_type
def test_rows_of_no_elements(type_name: str) -> None:
    assert codec.quantize(np.zeros((3, 0), np.float32), type_name).shape == (3, 0)
    assert codec.dequantize(np.zeros((3, 0), np.uint8), type_name).shape == (3, 0)


@every_type
def test_a_list_of_rows_is_an_array(type_name: str) -> None:
    x = weights_like(2, 256)
    packed = codec.quantize(x, type_name)
    assert_same_bytes(codec.quantize(x.astype(float).tolist(), type_name), packed, type_name)


@every_type
def test_types_by_name_and_by_number_and_as_themselves(type_name: str) -> None:
    t = TensorType[type_name]
    x = weights_like(2, 256)
    packed = codec.quantize(x, t)
    for same in (type_name, type_name.lower(), t.id):
        assert_same_bytes(codec.quantize(x, same), packed, type_name)
        assert_same_floats(codec.dequantize(packed, same), codec.dequantize(packed, t))


# ---------------------------------------------------------------- memory


def fortran(x: NDArray[Any]) -> NDArray[Any]:
    return np.asfortranarray(x)


def strided(x: NDArray[Any]) -> NDArray[Any]:
    """Every third element of every second row of something larger."""
    larger = np.zeros((2 * x.shape[0], 3 * x.shape[1]), x.dtype)
    larger[::2, 1::3] = x
    return larger[::2, 1::3]


def reversed_(x: NDArray[Any]) -> NDArray[Any]:
    return x[::-1, ::-1].copy()[::-1, ::-1]


def broadcast(x: NDArray[Any]) -> NDArray[Any]:
    """Every row is the first one, without memory of its own."""
    return np.broadcast_to(x[:1], x.shape)


def unaligned(x: NDArray[Any]) -> NDArray[Any]:
    memory = np.zeros(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def read_only(x: NDArray[Any]) -> NDArray[Any]:
    y = x.copy()
    y.flags.writeable = False
    return y


layouts = pytest.mark.parametrize("layout", [fortran, strided, reversed_, broadcast, unaligned, read_only])


@every_type
@layouts
def test_memory_layouts(type_name: str, layout: Any) -> None:
    x = layout(weights_like(6, 512))
    packed = codec.quantize(np.array(x, order="C"), type_name)
    assert_same_bytes(codec.quantize(x, type_name), packed, type_name)
    y = layout(packed)
    values = codec.dequantize(np.array(y, order="C"), type_name)
    assert_same_floats(codec.dequantize(y, type_name), values)


@every_type
def test_memory_maps(type_name: str, tmp_path: Path) -> None:
    x = weights_like(4, 512)
    packed = codec.quantize(x, type_name)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "packed.npy", packed)
    assert_same_bytes(codec.quantize(np.load(tmp_path / "x.npy", "r"), type_name), packed, type_name)
    mapped = codec.dequantize(np.load(tmp_path / "packed.npy", "r"), type_name)
    assert_same_floats(mapped, codec.dequantize(packed, type_name))


@every_type
@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
def test_float_types_are_converted_to_float32_first(type_name: str, dtype: str) -> None:
    x = weights_like(3, 512).astype(dtype)
    want = codec.quantize(x.astype(np.float32), type_name)
    assert_same_bytes(codec.quantize(x, type_name), want, type_name, dtype)


@every_type
def test_the_input_is_left_alone(type_name: str) -> None:
    x, w = weights_like(3, 256), importance(256)
    packed = codec.quantize(x, type_name, w)
    assert np.array_equal(x, weights_like(3, 256))
    assert np.array_equal(w, importance(256))
    before = packed.copy()
    values = codec.dequantize(packed, type_name)
    values[...] = 0
    assert np.array_equal(packed, before)


@every_type
def test_the_result_is_the_callers_to_keep(type_name: str) -> None:
    x = weights_like(3, 256)
    packed = codec.quantize(x, type_name)
    assert packed.flags.c_contiguous
    assert packed.flags.writeable
    assert not np.shares_memory(packed, x)
    values = codec.dequantize(packed, type_name)
    assert values.flags.c_contiguous
    assert values.flags.writeable
    assert not np.shares_memory(values, packed)


@every_type
@pytest.mark.parametrize("n_per_row", [256, 768])
def test_large_results_may_pass_the_cache(
    type_name: str, n_per_row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they do on some processors."""
    x = weights_like(67, n_per_row)
    packed = codec.quantize(x, type_name)
    values = codec.dequantize(packed, type_name)
    monkeypatch.setattr(codec, "LARGE", 0)
    monkeypatch.setattr(execute, "passes_cache", lambda: True)
    assert_same_bytes(codec.quantize(x, type_name), packed, type_name)
    assert_same_floats(codec.dequantize(packed, type_name), values)


@pytest.mark.parametrize("type_name", golden.FLOATS)
def test_only_whole_lines_pass_the_cache(type_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = weights_like(300, 4099)  # on several threads, whose slabs begin anywhere
    packed = codec.quantize(x, type_name)
    values = codec.dequantize(packed, type_name)
    monkeypatch.setattr(codec, "LARGE", 0)
    monkeypatch.setattr(execute, "passes_cache", lambda: True)
    assert_same_bytes(codec.quantize(x, type_name, threads=3), packed, type_name)
    assert_same_floats(codec.dequantize(packed, type_name, threads=3), values)


# ---------------------------------------------------------------- rows and threads


@every_type
def test_the_number_of_threads_does_not_matter(type_name: str) -> None:
    x, w = weights_like(67, 8192), importance(8192)  # enough for several threads
    packed = codec.quantize(x, type_name, w, threads=1)
    values = codec.dequantize(packed, type_name, threads=1)
    for threads in (None, 2, 3, 8):
        assert_same_bytes(codec.quantize(x, type_name, w, threads=threads), packed, type_name)
        assert_same_floats(codec.dequantize(packed, type_name, threads=threads), values)


@pytest.mark.slow
@every_type
@pytest.mark.parametrize("execution", ["numba", "numpy"])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_do_not_know_each_other(type_name: str, execution: Execution, weighted: bool) -> None:
    """Also not through the lanes: each row may share them with any other."""
    x = weights_like(19 if execution == "numba" else 5, 512)
    x[1], x[2, :256], x[3, 32:64] = 0, 0.5, 1e4
    w = importance(512) if weighted else None
    options: Any = {"execution": execution, "check": False}  # in Q8_1 one sum is infinite
    together = codec.quantize(x, type_name, w, **options)
    alone = np.stack([codec.quantize(row, type_name, w, **options) for row in x])
    assert_same_bytes(alone, together, type_name)
    order = np.random.default_rng(5).permutation(len(x))
    assert_same_bytes(codec.quantize(x[order], type_name, w, **options), together[order], type_name)


@pytest.mark.parametrize("type_name", golden.WEIGHTED)
def test_importance_weights_of_any_layout(type_name: str) -> None:
    x, w = weights_like(3, 512), importance(512)
    want = codec.quantize(x, type_name, w)
    for same in (w.astype(np.float64), w.astype(">f4"), np.repeat(w, 2)[::2], read_only(w), w.tolist()):
        assert_same_bytes(codec.quantize(x, type_name, same), want, type_name)


@pytest.mark.parametrize("type_name", ["F32", *golden.FLOATS, "Q8_0", *golden.FP4, *golden.ROW_ONLY])
def test_importance_weights_that_do_not_matter(type_name: str) -> None:
    x = weights_like(3, 512)
    assert_same_bytes(codec.quantize(x, type_name, importance(512)), codec.quantize(x, type_name), type_name)


@pytest.mark.parametrize("type_name", golden.WEIGHTED)
def test_importance_weights_that_matter(type_name: str) -> None:
    x = weights_like(3, 512)
    assert not np.array_equal(codec.quantize(x, type_name, importance(512)), codec.quantize(x, type_name))


# ---------------------------------------------------------------- both executions


@every_type
def test_the_executions_agree(type_name: str) -> None:
    x, w = weights_like(37, 512), importance(512)
    for weights in (None, w):
        packed = codec.quantize(x, type_name, weights, execution="numba")
        assert_same_bytes(codec.quantize(x, type_name, weights, execution="numpy"), packed, type_name)
    values = codec.dequantize(packed, type_name, execution="numba")
    assert_same_floats(codec.dequantize(packed, type_name, execution="numpy"), values)
