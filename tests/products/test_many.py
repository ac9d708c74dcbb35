"""Activations that are packed once, several products at a time, chosen experts, results in given arrays."""

from __future__ import annotations

import operator
import re
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import kquant
from kquant import (
    KQuantError,
    NonFiniteError,
    OptionError,
    PackedActivations,
    QuantizedTensor,
    ShapeError,
    UnsupportedTypeError,
)
from kquant.formats import format_of
from kquant.kernels.execute import Search
from kquant.products import _engine
from kquant.products.matrices import matmul, matmul_many
from kquant.types import TensorType

TYPES = ("Q4_K", "Q6_K", "Q8_0", "Q4_1", "F16")


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def packed(type: str, *shape: int, seed: int = 0) -> QuantizedTensor:
    return QuantizedTensor.from_numpy(normal(*shape, seed=seed), type)


def same(found: Any, wanted: Any) -> None:
    """Shape, dtype and bits."""
    np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.fixture(params=["one call", "many slabs"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether helpers take parts of the work, as small as there are."""
    if request.param == "many slabs":
        monkeypatch.setattr(_engine, "_expected", lambda tasks: None)


# ---------------------------------------------------------------- activations


@pytest.mark.parametrize("shape", [(256,), (256, 1), (256, 5), (3, 256, 5), (2, 3, 256, 1)])
@pytest.mark.parametrize("type", TYPES)
def test_packed_activations_stand_for_the_array(type: str, shape: tuple[int, ...]) -> None:
    w, x = packed(type, 20, 256), normal(*shape, seed=1)
    given = PackedActivations(x)
    assert (given.shape, given.ndim) == (x.shape, x.ndim)
    for _ in range(2):
        same(matmul(w, given), w @ x)
        same(w @ given, w @ x)
        same(np.matmul(w, given), w @ x)  # type: ignore[call-overload]
        same(matmul(w, given, execution="numpy"), matmul(w, x, execution="numpy"))
        same(given.T @ w.T if x.ndim < 3 else given.mT @ w.T, (x.T if x.ndim < 3 else x.mT) @ w.T)


def test_they_are_packed_once_for_each_partner_type(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    quantize = Search.__call__

    def counted(self: Search, tensor_type: TensorType, *rest: Any, **options: Any) -> int:
        calls.append(tensor_type.name)
        return quantize(self, tensor_type, *rest, **options)

    weights = [packed(type, 20, 256) for type in ("Q4_K", "Q6_K", "Q2_K")]
    x = normal(256, 3, seed=1)
    given = PackedActivations(x)
    monkeypatch.setattr(Search, "__call__", counted)
    for w in weights:
        w @ given
    matmul_many(weights, given)
    matmul_many(weights, x)
    assert calls == ["Q8_K", "Q8_K"]
    assert repr(given) == "PackedActivations(shape=(256, 3), Q8_K)"
    assert repr(given.T) == "PackedActivations(shape=(256, 3), Q8_K).T"


def test_they_keep_what_the_array_held() -> None:
    x, w = normal(256, 3), packed("Q4_K", 20, 256)
    given, wanted = PackedActivations(x), w @ x
    x[:] = np.nan
    same(w @ given, wanted)


def test_any_layout_and_dtype() -> None:
    x, w = normal(512, 6, seed=1), packed("Q8_0", 20, 256)
    for some in (
        x[::2, ::-2],
        np.asfortranarray(x)[:256],
        x[:256].astype(np.float64),
        x[:256].astype(np.float16),
    ):
        same(w @ PackedActivations(some), w @ some)
    assert w @ PackedActivations([1] * 256) == pytest.approx(w @ np.ones(256))


def test_the_first_of_many_columns_that_is_not_finite() -> None:
    for n in (1, 2000):
        x = normal(256, n)
        x[17, n // 2] = np.inf
        given, message = PackedActivations(x), rf"Q8_K, got inf at index \(17, {n // 2}\)$"
        for _ in range(2):
            with pytest.raises(NonFiniteError, match=message):
                packed("Q4_K", 20, 256) @ given
        with pytest.raises(NonFiniteError, match=message):
            packed("Q4_K", 20, 256) @ x


def test_threads_share_them() -> None:
    w, x = [packed(type, 40, 512) for type in TYPES], normal(512, 3, seed=1)
    wanted = [one @ x for one in w]
    for _ in range(10):
        given, start = PackedActivations(x), threading.Barrier(4)
        found: list[list[Any]] = []

        def work(given: PackedActivations = given, start: threading.Barrier = start) -> None:
            start.wait(60)
            results = [one @ given for one in w]
            found.append(results)  # noqa: B023  joined below

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert len(found) == 4
        for results in found:
            for result, one in zip(results, wanted, strict=True):
                same(result, one)


# ---------------------------------------------------------------- several weights


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("shape", [(512,), (512, 7), (3, 512, 2)])
def test_several_weights_at_a_time(shape: tuple[int, ...]) -> None:
    """Of any types and numbers of rows."""
    weights = [packed(type, rows, 512) for type, rows in zip(TYPES, (100, 16, 5, 47, 1), strict=True)]
    weights += [packed("Q5_K", 512), packed("Q3_K", 0, 512), packed("Q5_0", 3, 20, 512)[1]]
    x = normal(*shape, seed=1)
    wanted = [matmul(w, x, 1) for w in weights]
    with kquant.Pool(3) as pool:
        for how in ({}, {"threads": 1}, {"threads": 2}, {"pool": pool}, {"pool": pool, "threads": 2}):
            for result, one in zip(matmul_many(weights, x, **how), wanted, strict=True):
                same(result, one)
    assert matmul_many([], x) == []


@pytest.mark.usefixtures("cut")
def test_numbers_have_the_same_bits_on_any_threads() -> None:
    for type in ("F16", "F32"):
        for columns in (1, 7):
            w, x = packed(type, 1000, 1024), normal(1024, columns, seed=1)
            wanted = matmul(w, x, 1)
            for threads in (2, 3):
                same(matmul(w, x, threads), wanted)


# ---------------------------------------------------------------- experts


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize(
    "ids", [3, [], [0], [7, 7, 2], [[1, 0], [6, 5]], np.array([2, 4], np.uint8)], ids=str
)
@pytest.mark.parametrize("type", ["Q4_K", "Q5_1", "F16"])
def test_chosen_experts(type: str, ids: Any) -> None:
    w = packed(type, 8, 33, 256)
    picked = w[np.asarray(ids, int)]
    for x in (normal(256), normal(256, 3), normal(2, 256, 1)):
        if np.shape(ids)[-1:] not in ((), (1,), (2,)) and x.ndim > 2:
            continue
        same(matmul(w, x, experts=ids), matmul(picked, x))
        same(matmul_many([w, w], x, experts=ids)[1], matmul(picked, x))
        given, out = PackedActivations(x), np.empty_like(matmul(picked, x))
        assert matmul(w, given, experts=ids, out=out) is out
        same(out, matmul(picked, x))


def test_experts_are_not_copied() -> None:
    w, x = packed("Q4_K", 8, 512, 1024), normal(1024, 4)
    matmul(w, x, experts=[1, 6])
    peaks = {}
    for how in ("indexed", "chosen"):
        tracemalloc.start()
        if how == "indexed":
            matmul(w[[1, 6]], x, 1)
        else:
            matmul(w, x, 1, experts=[1, 6])
        peaks[how] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    n_bytes = w[1].nbytes
    assert peaks["chosen"] < n_bytes / 2
    assert peaks["indexed"] > 2 * n_bytes


# ---------------------------------------------------------------- results in given arrays

OUT = ("plain", "transposed", "every other", "from the end")


def laid_out(layout: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array of this shape and layout."""
    if layout == "transposed":
        return np.full(shape[::-1], np.nan, np.float32).T
    if layout == "plain":
        return np.full(shape, np.nan, np.float32)
    step = 2 if layout == "every other" else -1
    memory = np.full([n * abs(step) for n in shape], np.nan, np.float32)
    index: Any = (..., *[slice(None, None, step) for _ in shape])
    return np.asarray(memory[index])


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("layout", OUT)
@pytest.mark.parametrize("type", ["Q4_K", "Q8_0", "BF16"])
def test_results_go_where_the_caller_wants_them(type: str, layout: str) -> None:
    for w_shape in ((256,), (5, 256), (50, 256), (3, 20, 256)):
        for x_shape in ((256,), (256, 1), (256, 6), (3, 256, 6)):
            w, x = packed(type, *w_shape), normal(*x_shape, seed=1)
            wanted = w @ x
            out = laid_out(layout, wanted.shape)
            assert matmul(w, x, out=out) is out
            same(out, wanted)
            (again,) = matmul_many([w], x, [out])
            assert again is out


@pytest.mark.parametrize("part", [np.s_[:], np.s_[::2], np.s_[::-1]])
@pytest.mark.parametrize("columns", [1, 4])
def test_weights_are_not_copied_for_a_result_whose_rows_lie_apart(part: slice, columns: int) -> None:
    """In pieces at most, where the rows of the weights lie apart."""
    w, x = packed("Q4_K", 4096, 1024)[part], PackedActivations(normal(1024, columns))
    out = np.empty((len(w), columns), np.float32)
    matmul(w, x, 1, out=out)
    tracemalloc.start()
    matmul(w, x, 1, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < out.nbytes + (1 << 19)
    assert w.nbytes >= 1 << 20


def test_a_result_may_replace_the_activations() -> None:
    """They are read before anything is written."""
    for type in ("Q8_0", "F32"):
        w, x = packed(type, 256, 256), normal(256, 3)
        wanted = w @ x
        assert matmul(w, x, out=x) is x
        same(x, wanted)


W = packed("Q4_K", 4, 3, 256)
X = normal(256, 2)
FROZEN = np.zeros((3, 2), np.float32)
FROZEN.flags.writeable = False
BOTH = np.zeros((3, 2), np.float32)
ERRORS: list[tuple[Any, type[KQuantError], str]] = [
    (lambda: PackedActivations(1.0), ShapeError, "expected shape (k,) or (..., k, n), got a single number"),
    (lambda: PackedActivations(PackedActivations(X)), UnsupportedTypeError, "got PackedActivations"),  # type: ignore[arg-type]
    (
        lambda: operator.matmul(W[0], PackedActivations(X).T),
        UnsupportedTypeError,
        "got TransposedActivations",
    ),
    (lambda: PackedActivations(X) @ W[0], UnsupportedTypeError, "expected on the right, as in w @ x"),
    (lambda: PackedActivations(["a"]), UnsupportedTypeError, "expected an array of floats, got dtype <U1"),
    (lambda: PackedActivations(np.ones((2, 3, 4))).T, ShapeError, "expected a matrix; `mT` transposes"),
    (lambda: PackedActivations(np.ones(3)).mT, ShapeError, "expected at least two axes"),
    (
        lambda: operator.matmul(PackedActivations(X).T, X),
        UnsupportedTypeError,
        "the transpose of a QuantizedTensor",
    ),
    (lambda: W[0] @ PackedActivations(X[1:]), ShapeError, "got (3, 256) of Q4_K @ (255, 2)"),
    (lambda: matmul(W[0], X, out=np.zeros((2, 3), np.float32)), ShapeError, "shape (3, 2), got (2, 3)"),
    (lambda: matmul(W[0], X, out=np.zeros((3, 2))), UnsupportedTypeError, "array of float32"),  # type: ignore[arg-type]
    (lambda: matmul(W[0], X, out=FROZEN), UnsupportedTypeError, "got float32, read-only"),
    (lambda: matmul(W[0], X, out=[]), UnsupportedTypeError, "got list"),  # type: ignore[arg-type]
    (
        lambda: matmul_many([W[0]] * 2, X, [BOTH]),
        ShapeError,
        "a list of 2 arrays, one for each weight, got 1",
    ),
    (lambda: matmul_many([W[0]] * 3, X, BOTH), ShapeError, "got one array"),  # type: ignore[arg-type]
    (
        lambda: matmul_many([W[0]] * 2, X, [BOTH, BOTH[::-1]]),
        OptionError,
        "that share no memory, got some at 0 and 1",
    ),
    (
        lambda: matmul(W, X, experts=4),
        OptionError,
        "experts: expected numbers from 0 to 3, got 4 at index ()",
    ),
    (lambda: matmul(W, X, experts=[[0, 1], [2, -1]]), OptionError, "from 0 to 3, got -1 at index (1, 1)"),
    (
        lambda: matmul(W, X, experts=[1.0]),
        UnsupportedTypeError,
        "experts: expected integers, got dtype float64",
    ),
    (lambda: matmul(W, X, experts=[True]), UnsupportedTypeError, "got dtype bool"),
    (
        lambda: matmul(W[0], X, experts=0),
        ShapeError,
        "expected weights of shape (n_expert, m, k) to choose from",
    ),
    (
        lambda: matmul(W, np.ones((3, 256, 2)), experts=[0, 1]),
        ShapeError,
        "got (2, 3, 256) of Q4_K @ (3, 256, 2)",
    ),
    (lambda: matmul(W, X, experts=[[0], [1, 2]]), ShapeError, "experts: expected nested lists of one length"),
    (lambda: matmul_many([W[0], X], X), UnsupportedTypeError, "in a QuantizedTensor, got ndarray"),  # type: ignore[list-item]
    (lambda: matmul_many([W[0], X], X), UnsupportedTypeError, "weight 1: matmul: expected packed"),  # type: ignore[list-item]
    (
        lambda: matmul_many([W[0]] * 2, X, [BOTH, BOTH[:1].copy()]),
        ShapeError,
        "weight 1: out: expected the result's",
    ),
    (lambda: matmul(W[0], X, 0), OptionError, "threads: expected at least 1, got 0"),
    (lambda: matmul(W[0], X, 1.5), OptionError, "threads: expected a whole number, got 1.5"),  # type: ignore[arg-type]
    (lambda: matmul(W[0], X, pool=2), OptionError, "pool: expected a kquant.Pool, got int"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call: Any, error: type[KQuantError], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize("threads", [1, None])
def test_a_closed_pool(threads: int | None) -> None:
    pool = kquant.Pool(2)
    pool.close()
    with pytest.raises(OptionError, match="got one that is closed"):
        matmul(W[0], X, threads, pool=pool)
    for type in ("Q8_0", "F32"):
        rows = kquant.quantize(X.T, type)
        with pytest.raises(OptionError, match="got one that is closed"):
            kquant.vec_dot(rows, type, rows, type, threads, pool=pool)
        with pytest.raises(OptionError, match="threads: expected at least 1, got 0"):
            kquant.vec_dot(rows, type, rows, type, 0)


def test_more_columns_than_memory_is_kept_for() -> None:
    w, x = packed("Q8_0", 16, 32), normal(32, 20_000)
    same(matmul(w, x)[:, -5:], matmul(w, x[:, -5:]))


def test_types_that_nothing_is_multiplied_with() -> None:
    w = QuantizedTensor(
        format_of(TensorType.Q8_K)
        .pack(
            {
                "d": np.ones((2, 1), np.float32),
                "q": np.ones((2, 1, 256), np.int8),
                "bsums": np.full((2, 1, 16), 16, np.int16),
            }
        )
        .reshape(2, -1),
        "Q8_K",
    )
    with pytest.raises(UnsupportedTypeError, match="Q8_K: a type for activations"):
        matmul(w, np.ones(256))
