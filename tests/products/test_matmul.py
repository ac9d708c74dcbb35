"""Matrix products with packed rows: shapes as NumPy's, values as the unpacked product's, errors."""

from __future__ import annotations

import re
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import kquant
from kquant import KQuantError, NonFiniteError, QuantizedTensor, ShapeError, UnsupportedTypeError
from kquant.formats import format_of
from kquant.kernels import product_loops
from kquant.kernels.language.tiles import empty_tile
from kquant.kernels.layout import ROWS
from kquant.products import _engine, _loops
from kquant.products._loops import activations_of
from kquant.products.dots import vec_dot, vec_dot_type
from kquant.products.matrices import matmul
from kquant.types import TensorType

K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
LEGACY = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
TABLES = ("IQ4_NL", "MXFP4")
FLOATS = ("F16", "BF16", "F32")
SHAPES = [
    ((3, 5, 256), (256,)),
    ((3, 5, 256), (256, 4)),
    ((3, 5, 256), (3, 256, 4)),
    ((3, 5, 256), (2, 1, 256, 4)),
    ((5, 256), (7, 256, 4)),
    ((5, 256), (256,)),
    ((256,), (256,)),
    ((256,), (256, 4)),
    ((5, 256), (256, 0)),
    ((0, 256), (256, 4)),
    ((5, 0), (0, 4)),
    ((1, 5, 256), (3, 256, 1)),
]


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def packed(type: str, *shape: int) -> QuantizedTensor:
    return QuantizedTensor.from_numpy(normal(*shape), type)


def tolerance(w: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What rounding the activations to 8 bits can do: half a step for each, and float32's own rounding."""
    step = np.abs(x).max(axis=0 if x.ndim == 1 else -2, keepdims=True, initial=0) / 127
    return np.asarray(np.matmul(np.abs(w), np.broadcast_to(0.51 * step, x.shape)) + 1e-3, np.float32)


@pytest.mark.parametrize(("w_shape", "x_shape"), SHAPES)
@pytest.mark.parametrize("type", ["Q4_K", "Q8_0", "F16"])
def test_shapes_are_numpys(type: str, w_shape: tuple[int, ...], x_shape: tuple[int, ...]) -> None:
    w, x = packed(type, *w_shape), normal(*x_shape, seed=1)
    unpacked = w.numpy()
    result, wanted = w @ x, np.matmul(unpacked, x)
    assert result.shape == wanted.shape
    assert result.dtype == np.float32
    assert (np.abs(result - wanted) <= tolerance(unpacked, x)).all()


@pytest.mark.parametrize("type", K_QUANTS + LEGACY + TABLES + FLOATS)
def test_equals_the_unpacked_product_within_the_activations_error(type: str) -> None:
    w, x = packed(type, 9, 512), normal(512, 5, seed=1)
    unpacked = w.numpy()
    for execution in ("numba", "numpy"):
        result = matmul(w, x, execution=execution)
        assert (np.abs(result - unpacked @ x) <= tolerance(unpacked, x)).all()


def test_written_as_numpy_users_write_it() -> None:
    w, x = packed("Q6_K", 9, 512), normal(3, 4, 512, seed=1)
    np.testing.assert_array_equal(x @ w.T, matmul(w, x.swapaxes(-1, -2)).swapaxes(-1, -2))
    np.testing.assert_array_equal(x[0, 0] @ w.T, w @ x[0, 0])
    np.testing.assert_array_equal(x @ w[2:5].T, (x @ w.T)[..., 2:5])
    stack = packed("Q6_K", 3, 9, 512)
    assert (x @ stack.mT).shape == (3, 4, 9)
    assert w.T.shape == (512, 9)
    assert w.T.T is w
    assert w.T.mT is w
    np.testing.assert_array_equal(np.asarray(w.T), w.numpy().T)
    assert repr(w.T) == f"{w!r}.T"
    assert repr(stack.mT) == f"{stack!r}.mT"


def test_sums_over_rows_unpack() -> None:
    w, x = packed("Q8_0", 6, 64), normal(6, 2, seed=1)
    np.testing.assert_allclose(x.T @ w, x.T @ w.numpy(), rtol=1e-5)
    np.testing.assert_allclose(w.T @ x, w.numpy().T @ x, rtol=1e-5)


def test_other_operators_are_still_numpys() -> None:
    w = packed("Q8_0", 2, 32)
    np.testing.assert_array_equal(normal(2, 32) - w, normal(2, 32) - w.numpy())
    np.testing.assert_array_equal(np.abs(w), np.abs(w.numpy()))
    np.testing.assert_array_equal(np.add.reduce(w.T), np.add.reduce(w.numpy().T))
    np.testing.assert_array_equal(np.matmul(w, np.ones(32)), w @ np.ones(32))


def test_rows_are_sliced_without_copying() -> None:
    w = packed("Q4_K", 8, 256)
    assert np.shares_memory(w[2:4].data, w.data)
    np.testing.assert_array_equal(w[::3] @ np.ones(256), (w @ np.ones(256))[::3])
    w, x = packed("Q4_K", 99, 256), normal(256, 3)
    np.testing.assert_array_equal(w[::-2] @ x, (w @ x)[::-2])


@settings(max_examples=25, deadline=None)
@given(
    type=st.sampled_from(K_QUANTS + LEGACY + TABLES),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    threads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_independent_of_threads_and_of_what_is_computed_beside_it(
    type: str, rows: int, columns: int, threads: int, seed: int
) -> None:
    w, x = packed(type, rows, 256), normal(256, columns, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_engine, "_expected", lambda tasks: None)
        whole = matmul(w, x, threads)
    assert matmul(w, x, execution="numpy").tobytes() == whole.tobytes()
    rng = np.random.default_rng(seed)
    for r, c in zip(rng.integers(rows, size=5), rng.integers(columns, size=5), strict=True):
        assert matmul(w[r], x[:, c], 1).tobytes() == whole[r, c].tobytes()
        assert matmul(w[r:], x[:, c], 1)[0] == whole[r, c]
        assert matmul(w[: r + 1], x[:, : c + 1], 1)[r, c] == whole[r, c]


def test_independent_of_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many rows that threads take turns."""
    monkeypatch.setattr(_engine, "_expected", lambda tasks: None)
    w, x = packed("Q8_0", 700, 1024), normal(1024, 20, seed=1)
    whole = matmul(w, x, 2)
    assert matmul(w, x, 1).tobytes() == whole.tobytes()
    np.testing.assert_array_equal(matmul(w[600:], x, 2), whole[600:])


@pytest.mark.parametrize("type", ["Q3_K", "Q4_1"])
@pytest.mark.parametrize("columns", [1, 5])
def test_the_loops_over_tiles_as_they_stand(type: str, columns: int) -> None:
    codec, partner = format_of(TensorType[type]), vec_dot_type(type)
    dot, size = _loops.block_dot(codec), codec.type.type_size
    loops = (
        product_loops.multiply_tiles(dot, size, 5, 1)
        if columns > 1
        else product_loops.multiply_column(dot, size)
    )
    w, x = packed(type, 20, 512), normal(columns, 512, seed=1)
    given = activations_of(kquant.quantize(x, partner), partner).columns
    tiles = [empty_tile(ROWS, dot) for _ in range(256 // codec.type.block_size)]
    acc, out = np.zeros((columns, ROWS), np.float32), np.empty((columns, 20), np.float32)
    loops(w.data, given, tiles, acc, True, out)
    np.testing.assert_array_equal(out, x @ w.T)


@pytest.mark.parametrize("blocks", [1, 2, 3, 8])
@pytest.mark.parametrize("type", ["Q3_K", "Q6_K"])
def test_the_loop_over_consecutive_blocks_as_it_stands(type: str, blocks: int) -> None:
    codec, partner = format_of(TensorType[type]), vec_dot_type(type)
    w, x = packed(type, 20, 256 * blocks), normal(256 * blocks, seed=1)
    column = activations_of(kquant.quantize(x[None], partner), partner).columns[:, 0]
    lanes = [column[np.arange(first, first + ROWS) % blocks] for first in range(0, ROWS * blocks, ROWS)]
    terms, acc = np.empty((blocks, ROWS), np.float32), np.zeros((1, ROWS), np.float32)
    words, out = terms.view(np.uint8).reshape(ROWS, -1), np.empty((1, 20), np.float32)
    loops = product_loops.multiply_consecutive(_loops.block_dot(codec), codec.type.type_size)
    loops(w.data, [None], lanes, terms, words, acc, True, out)
    np.testing.assert_array_equal(out[0], w @ x)


@pytest.mark.parametrize("cached_bytes", [0, _loops.CACHED_BYTES])
@pytest.mark.parametrize("type", K_QUANTS)
def test_every_number_of_super_blocks(type: str, cached_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen consecutive super-blocks begin anywhere in a row; prefetched from memory or not."""
    monkeypatch.setattr(_loops, "CACHED_BYTES", cached_bytes)
    for blocks in (1, 2, 3, 5, 8, 13, 16, 22, 33):
        for rows in (1, 16, 17, 50):
            w, x = packed(type, rows, 256 * blocks), normal(256 * blocks, seed=1)
            wanted = matmul(w, x, execution="numpy")
            np.testing.assert_array_equal(matmul(w, x), wanted)
            np.testing.assert_array_equal(matmul(w[::-2], x), wanted[::-2])


def test_every_row_length() -> None:
    for blocks in (1, 2, 7, 8, 9, 18):
        w, x = packed("Q5_1", 17, 32 * blocks), normal(32 * blocks, 3, seed=1)
        np.testing.assert_array_equal(matmul(w, x), matmul(w, x, execution="numpy"))
        assert (np.abs(w @ x - w.numpy() @ x) <= tolerance(w.numpy(), x)).all()


@settings(max_examples=40, deadline=None)
@given(
    type=st.sampled_from(K_QUANTS + LEGACY + TABLES), power=st.integers(-6, 6), seed=st.integers(0, 2**32 - 1)
)
def test_linear_in_the_scale(type: str, power: int, seed: int) -> None:
    """A power of two goes through every float operation unchanged."""
    w, x = packed(type, 4, 256), normal(256, 2, seed=seed)
    scale = np.float32(2.0**power)
    if type in K_QUANTS:
        np.testing.assert_array_equal(w @ (x * scale), (w @ x) * scale)
    else:
        np.testing.assert_allclose(w @ (x * scale), (w @ x) * scale, rtol=1e-3, atol=float(1e-2 * scale))


@pytest.mark.parametrize("type", K_QUANTS + LEGACY + TABLES + FLOATS)
def test_zero_rows_and_columns(type: str) -> None:
    values, x = normal(3, 256), normal(256, 3, seed=1)
    values[1], x[:, 2] = 0, 0
    result = QuantizedTensor.from_numpy(values, type) @ x
    assert not result[1].any()
    assert not result[:, 2].any()
    assert result[0, :2].all()


@pytest.mark.parametrize("execution", ["numba", "numpy"])
@pytest.mark.parametrize("type", FLOATS)
def test_dot_products_of_numbers(type: str, execution: Any) -> None:
    w, a = kquant.quantize(normal(2, 1, 70), type), kquant.quantize(normal(3, 70, seed=1), type)
    result = vec_dot(w, type, a, type, execution=execution)
    wanted = kquant.dequantize(w, type).astype(float) @ kquant.dequantize(a, type).astype(float).T
    np.testing.assert_allclose(result, wanted[:, 0], rtol=1e-5)


def test_dot_products_broadcast() -> None:
    w, a = packed("Q5_K", 4, 3, 512), kquant.quantize(normal(2, 1, 1, 512), "Q8_K")
    result = vec_dot(w.data, "Q5_K", a, "Q8_K")
    assert result.shape == (2, 4, 3)
    assert result[1, 2, 0] == vec_dot(w.data[2, 0], "Q5_K", a[1, 0, 0], "Q8_K")
    for i in np.ndindex(result.shape):
        assert result[i] == vec_dot(w.data[i[1:]], "Q5_K", a[i[0], 0, 0], "Q8_K")
    pairs = vec_dot(w.data[..., None, :], "Q5_K", kquant.quantize(normal(4, 1, 5, 512), "Q8_K"), "Q8_K")
    assert pairs.shape == (4, 3, 5)
    assert vec_dot(w.data[:0], "Q5_K", a, "Q8_K").shape == (2, 0, 3)
    assert not vec_dot(w.data[..., :0], "Q5_K", a[..., :0], "Q8_K").any()


BYTES = np.zeros((3, 144), np.uint8)
ERRORS: list[tuple[Any, type[KQuantError], str]] = [
    (
        lambda: vec_dot(BYTES, "Q4_K", BYTES, "Q8_0"),
        UnsupportedTypeError,
        "Q4_K: expected activations in Q8_K, got Q8_0",
    ),
    (lambda: vec_dot_type("Q8_K"), UnsupportedTypeError, "Q8_K: a type for activations"),
    (lambda: vec_dot_type("IQ1_S"), UnsupportedTypeError, "kquant has no codec"),
    (
        lambda: vec_dot(BYTES, "Q4_K", np.zeros(584, np.uint8), "Q8_K"),
        ShapeError,
        "Q4_K · Q8_K: expected rows of one length, got 256 and 512 elements",
    ),
    (
        lambda: vec_dot(BYTES, "Q4_K", np.zeros((2, 292), np.uint8), "Q8_K"),
        ShapeError,
        "Q4_K · Q8_K: expected axes that broadcast, got (3,) and (2,)",
    ),
    (
        lambda: vec_dot(BYTES[:, 1:], "Q4_K", BYTES, "Q8_K"),
        ShapeError,
        "expected rows of a multiple of 144 bytes",
    ),
    (
        lambda: vec_dot(BYTES.astype(float), "Q4_K", BYTES, "Q8_K"),
        ShapeError,
        "expected packed rows of uint8",
    ),
    (lambda: packed("Q4_K", 3, 256) @ np.ones(255), ShapeError, "got (3, 256) of Q4_K @ (255,)"),
    (lambda: packed("Q4_K", 3, 256) @ np.float32(1), ShapeError, "got (3, 256) of Q4_K @ ()"),
    (
        lambda: packed("Q4_K", 2, 3, 256) @ np.ones((3, 256, 1)),
        ShapeError,
        "got (2, 3, 256) of Q4_K @ (3, 256, 1)",
    ),
    (lambda: np.ones(255) @ packed("Q4_K", 3, 256).T, ShapeError, "@ (255,)"),
    (lambda: packed("Q4_K", 3, 256) @ np.ones(256, complex), UnsupportedTypeError, "got dtype complex128"),
    (lambda: packed("Q4_K", 3, 256) @ np.full(256, np.nan), NonFiniteError, "got nan"),
    (
        lambda: np.ones((4, 255)) @ packed("Q4_K", 3, 256).T,
        ShapeError,
        "(..., n, k) @ (..., k, m), got (4, 255) @ (256, 3) of Q4_K, transposed",
    ),
    (
        lambda: np.ones((2, 4, 255)) @ packed("Q4_K", 2, 3, 256).mT,
        ShapeError,
        "got (2, 4, 255) @ (2, 256, 3) of Q4_K, transposed",
    ),
    (lambda: np.ones((4, 256)) @ packed("Q4_K", 3, 256), ShapeError, "got (4, 256) @ (3, 256)"),
    (lambda: [[1.0] * 256] @ packed("Q4_K", 3, 256), ShapeError, "got (1, 256) @ (3, 256)"),
    (lambda: packed("Q4_K", 3, 256).T @ np.ones((4, 2)), ShapeError, "got (256, 3) @ (4, 2)"),
    (lambda: packed("Q4_K", 3, 256) @ [[1.0], [1.0, 2.0]], ShapeError, "nested lists of one length"),
    (lambda: packed("Q4_K", 3, 256) @ cast(Any, None), UnsupportedTypeError, "got NoneType"),
    (
        lambda: matmul(cast(QuantizedTensor, np.ones((3, 256))), np.ones(256)),
        UnsupportedTypeError,
        "in a QuantizedTensor, got ndarray",
    ),
    (lambda: packed("Q4_K", 2, 3, 256).T, ShapeError, "expected a matrix; `mT`"),
    (lambda: packed("Q4_K", 256).mT, ShapeError, "expected at least two axes"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call: Any, error: type[KQuantError], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()
