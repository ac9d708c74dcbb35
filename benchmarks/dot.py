"""Products of packed rows against ggml's dot products, and 64 columns at once against one after the other.

Rows of 4096 elements, one thread: 64 rows that stay in the cache, 65536 that come from memory.  Compiled
loops call kquant's product and ggml's function, so that no call from Python counts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba
import numpy as np

import kquant
from benchmarks.cases import GGML, K_QUANTS, KQUANT, LEGACY, ONE_COLUMN, PEAK, READ, Case
from benchmarks.data import ROW, weights
from benchmarks.measure import Run
from benchmarks.peak import PRODUCTS, peak_loop
from kquant.formats import format_of
from kquant.kernels.execute import Bytes, Floats
from kquant.products.dots import vec_dot_type
from kquant.products.engine import activations_of, arguments, is_far, multiplier
from kquant.types import TensorType

FUNCTIONS = {
    **{f"Q{bits}_K": f"ggml_vec_dot_q{bits}_K_q8_K" for bits in range(2, 7)},
    **{f"Q{bits}_0": f"ggml_vec_dot_q{bits}_0_q8_0" for bits in (4, 5, 8)},
    **{f"Q{bits}_1": f"ggml_vec_dot_q{bits}_1_q8_1" for bits in (4, 5)},
}
CACHED, FROM_MEMORY, SEVERAL, LAYER = 64, 1 << 16, 512, 14336
"""Rows."""
COLUMNS = 64
MANY_COLUMNS = f"{COLUMNS} columns"
CALLS = 64
"""Of products with rows that stay in the cache."""
TOLERANCE = 1e-5
"""Of the largest result: the sums of floats have an order of their own."""


@numba.njit  # type: ignore[untyped-decorator]
def sum_of_words(words: Any) -> Any:
    total = np.uint64(0)
    for word in words:
        total += word
    return total


@numba.njit  # type: ignore[untyped-decorator]
def row_by_row(calls: int, function: Any, n: int, w: Any, a: Any, out: Any) -> None:
    for _ in range(calls):
        for i in range(len(out)):
            function(n, out.ctypes.data + 4 * i, 0, w.ctypes.data + i * w.shape[1], 0, a.ctypes.data, 0, 1)


def ggml_function(name: str) -> Any:
    from ggml import ggml

    ggml.ggml_cpu_init()  # its table of fp16 numbers
    function = getattr(ctypes.CDLL(str(Path(ggml.__file__).parent / "lib/libggml-cpu.so")), FUNCTIONS[name])
    p, n, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    function.argtypes, function.restype = (n, p, size, p, size, p, size, n), None
    return function


@cache
def repeated_product(t: TensorType, n_columns: int) -> Any:
    """The compiled product of a type, so many times."""
    product = multiplier(format_of(t), n_columns)

    @numba.njit
    def repeated(calls, *given):  # type: ignore[no-untyped-def]
        for _ in range(calls):
            product(*given)

    return repeated


def product(calls: int, t: TensorType, w: Bytes, a: Bytes, out: Floats) -> Run:
    """Fills out (columns, rows), with all that Python does done before."""
    given = arguments(format_of(t), w, activations_of(a, vec_dot_type(t)), out, far=is_far(w))
    repeated = repeated_product(t, len(out))

    def run() -> Floats:
        repeated(calls, *given)
        return out

    return run


def ggml_rows(calls: int, function: Any, w: Bytes, a: Bytes, out: Floats) -> Floats:
    row_by_row(calls, function, ROW, w, a[0], out[0])
    return out


def packed(name: str, n_rows: int, n_columns: int) -> tuple[TensorType, Bytes, Bytes]:
    t = TensorType[name]
    w = np.resize(kquant.quantize(weights(64), t), (n_rows, t.row_bytes(ROW)))
    x = np.random.default_rng(2).standard_normal((n_columns, ROW), np.float32)
    w.flags.writeable = False
    return t, w, kquant.quantize(x, vec_dot_type(t))


def one_column(name: str, n_rows: int, calls: int, group: str) -> Case:
    """Rows times one column of activations."""
    t, w, a = packed(name, n_rows, 1)
    contestants: dict[str, Run] = {
        KQUANT: product(calls, t, w, a, np.empty((1, n_rows), np.float32)),
        GGML: partial(ggml_rows, calls, ggml_function(name), w, a, np.empty((1, n_rows), np.float32)),
    }
    limits = {READ: partial(sum_of_words, w.reshape(-1).view(np.uint64))} if calls == 1 else {}
    return Case(group, name, calls * n_rows * ROW, calls * w.nbytes, contestants, limits, TOLERANCE)


def many_columns(name: str) -> Case:
    """As many rows as stay in the second cache, times 64 columns; beside it 64 times one column."""
    t, w, a = packed(name, SEVERAL, COLUMNS)

    together, alone = (np.empty((COLUMNS, SEVERAL), np.float32) for _ in range(2))
    each = [product(1, t, w, a[c : c + 1], alone[c : c + 1]) for c in range(COLUMNS)]

    def one_by_one() -> Floats:
        for run in each:
            run()
        return alone

    n_products = COLUMNS * SEVERAL * ROW
    contestants = {MANY_COLUMNS: product(1, t, w, a, together), ONE_COLUMN: one_by_one}
    loop = peak_loop()
    limits = {} if loop is None else {PEAK: partial(loop, n_products // PRODUCTS)}
    return Case(f"times {MANY_COLUMNS}", name, n_products, w.nbytes, contestants, limits)


def whole_calls(name: str) -> Case:
    """The same as `kquant.matmul` does it, for a layer of a model: more rows than a core's caches hold."""
    rows = np.resize(kquant.quantize(weights(64), name), (LAYER, TensorType[name].row_bytes(ROW)))
    w = kquant.QuantizedTensor(rows, name)
    x = np.random.default_rng(2).standard_normal((ROW, COLUMNS), np.float32)
    each = [*np.ascontiguousarray(x.T)]

    def together() -> Floats:
        return kquant.matmul(w, x, 1).T

    def one_by_one() -> Floats:
        return np.stack([kquant.matmul(w, column, 1) for column in each])

    n_products = COLUMNS * LAYER * ROW
    contestants = {MANY_COLUMNS: together, ONE_COLUMN: one_by_one}
    loop = peak_loop()
    limits = {} if loop is None else {PEAK: partial(loop, n_products // PRODUCTS)}
    return Case(f"matmul, times {MANY_COLUMNS}", name, n_products, w.data.nbytes, contestants, limits)


def cases() -> Iterator[Case]:
    """Every type; the elements are pairs of a weight and an activation."""
    for name in K_QUANTS + LEGACY:
        yield one_column(name, CACHED, CALLS, "dot, rows in the cache")
    for name in K_QUANTS + LEGACY:
        yield one_column(name, FROM_MEMORY, 1, "dot, rows from memory")
    for name in K_QUANTS + LEGACY:
        yield many_columns(name)
    for name in K_QUANTS + LEGACY:
        yield whole_calls(name)
