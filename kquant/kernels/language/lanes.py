"""The language of the searches: vectors of lanes.

A kernel is written for *one* block and runs for many at a time.  Two kinds of vector occur:

* **lanes across blocks** (`load`, `store`): element `i` of every block of a group, one block per
  lane.  `rows` is an array of shape (elements, lanes).  Every lane performs the scalar sequence of
  float32 operations of ggml's C code, so every lane has ggml's bits.  The searches use these.
* **runs inside a block** (`load_run`, `store_run`): neighbouring elements of one block.  Decoding
  uses these.

NumPy executes a kernel as it stands: a vector is a NumPy array.  Numba compiles the same text to
SIMD: `lowering.lanes` tells it that a vector is an LLVM vector register.  Kernels therefore use
operators on vectors, `np.abs`, `np.sqrt`, `np.copysign`, `np.minimum`, `np.maximum`, `np.fmax`, `np.all`,
and the functions below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kquant.kernels.language.mark import kernel

__all__ = [
    "Lanes",
    "Rows",
    "as_float",
    "as_int",
    "bits_of_float",
    "count_up",
    "fence",
    "float_of_bits",
    "float_of_half",
    "gather_tile",
    "half_bits",
    "half_bits_of_number",
    "larger",
    "load",
    "load_half",
    "load_run",
    "load_run_signed",
    "nearest_int",
    "nearest_quotient",
    "round_even",
    "run_half",
    "scatter_tile",
    "smaller",
    "store",
    "store_half",
    "store_run",
    "streamed",
    "update",
    "update_rows",
    "where",
    "zeros",
]

Lanes: TypeAlias = Any
"""A vector of float32, int32 or bool: a NumPy array, or an SIMD register under Numba."""
Rows: TypeAlias = npt.NDArray[Any]
"""Row i holds element i of every lane's block: (elements, lanes)."""

f32 = np.float32

ROUND = f32(12582912.0)
"""1.5 * 2**23: adding and subtracting it rounds a float32 to an integer, half to even."""
ROUNDING_RANGE = f32(4194303.0)
"""Within +-ROUNDING_RANGE `round_even` and `nearest_int` agree."""

FEW = 1024
"""Lanes for which NumPy's overhead counts more than its work."""


# ---------------------------------------------------------------- memory


def load(rows: Rows, i: int) -> Lanes:
    """Row i: float32 lanes of a float row, int32 lanes of a row of smaller integers."""
    row = rows[i]
    return row if row.dtype == np.float32 else row.astype(np.int32)


def store(rows: Rows, i: int, value: Lanes) -> None:
    """Set row i; integers are cut to the width of the row, as C casts them."""
    if rows.dtype == np.uint8:
        value = np.asarray(value).astype(np.int32, copy=False).astype(np.uint8)
    rows[i] = value


@kernel
def load_half(rows: Rows, i: int) -> Lanes:
    """The fp16 number in byte rows i and i + 1, as float32 lanes."""
    return float_of_half(load(rows, i) | (load(rows, i + 1) << 8))


@kernel
def store_half(rows: Rows, i: int, value: Lanes) -> None:
    """Round to fp16 and set byte rows i and i + 1."""
    bits = half_bits(value)
    store(rows, i, bits & 255)
    store(rows, i + 1, bits >> 8)


def load_run(block: Rows, at: int, n: int) -> Lanes:
    """Elements at .. at + n of one block: bytes as int32, float32 as they are."""
    run = block[..., at : at + n]
    return run if run.dtype == np.float32 else run.astype(np.int32)


def load_run_signed(block: Rows, at: int, n: int) -> Lanes:
    """Signed bytes at .. at + n of one block, as int32."""
    return block[..., at : at + n].view(np.int8).astype(np.int32)


@kernel
def run_half(block: Rows, at: int) -> Lanes:
    """The fp16 number at bytes at and at + 1 of one block, as a float32 that fits every run."""
    return float_of_half(load_run(block, at, 1) | (load_run(block, at + 1, 1) << 8))


def store_run(block: Rows, at: int, value: Lanes) -> None:
    """Set the elements from `at` on."""
    block[..., at : at + value.shape[-1]] = value


def streamed(run: Rows) -> Rows:
    """The same elements; compiled, `store_run` writes them with streaming stores, and `load_run` reads ahead.

    For more than a cache holds, on processors that gain by it; results begin with a line of the cache.
    """
    return run


def fence() -> None:
    """What streaming stores have written is there for every thread."""


# ---------------------------------------------------------------- numbers


def zeros(rows: Rows) -> Lanes:
    """float32 zeros for the lanes of `rows`."""
    return np.zeros(rows.shape[1], np.float32)


def count_up(n: int) -> Lanes:
    """int32 0 .. n - 1, as a run."""
    return np.arange(n, dtype=np.int32)


def as_float(value: Lanes) -> Lanes:
    """int32 lanes as float32."""
    return value.astype(np.float32)


def as_int(value: Lanes) -> Lanes:
    """float32 lanes without their fraction, as int32."""
    return value.astype(np.int32)


def bits_of_float(value: Lanes) -> Lanes:
    """The bit patterns of float32 lanes, as int32."""
    return np.ascontiguousarray(value).view(np.int32)


def float_of_bits(bits: Lanes) -> Lanes:
    """The float32 lanes with these bit patterns."""
    return np.ascontiguousarray(bits).view(np.float32)


@kernel
def half_bits(value: Lanes) -> Lanes:
    """Round float32 to fp16, half to even; int32 lanes of the 16 bits.  NaN becomes sign | 0x7e00."""
    bits = half_bits_of_number(value)
    return where(value == value, bits, (bits & 0x8000) | 0x7E00)


def half_bits_of_number(value: Lanes) -> Lanes:
    """The same for what is not NaN."""
    return np.asarray(value, np.float32).astype(np.float16).view(np.uint16).astype(np.int32)


def float_of_half(bits: Lanes) -> Lanes:
    """int32 lanes of fp16 bits as float32; a signalling NaN becomes quiet, as processors do it."""
    wide = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    return where(wide == wide, wide, float_of_bits(bits_of_float(wide) | 0x400000))


def where(condition: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """a where the condition holds, else b: all float32, or all int32.

    `np.where` branches for every element, and takes four times as long for many that differ at random.
    """
    if condition.size <= FEW:
        return np.where(condition, a, b)
    dtype = np.result_type(a, b)
    x, y = np.asarray(a, dtype).view(np.int32), np.asarray(b, dtype).view(np.int32)
    mask = np.negative(condition.view(np.int8)).astype(np.int32)
    mask &= x ^ y
    mask ^= y
    return mask.view(dtype)


def update(
    condition: Lanes,
    kernel: Callable[..., tuple[Lanes, ...]],
    state: tuple[Lanes, ...],
    given: tuple[Lanes, ...],
    constant: Any,
) -> tuple[Lanes, ...]:
    """`kernel(*state, *given, constant)` in the lanes where the condition holds, `state` in the others.

    For what few lanes need: NumPy computes it for those alone and writes it into the arrays of `state`;
    Numba computes all.
    """
    return update_rows(condition, kernel, state, (), given, constant)


def update_rows(
    condition: Lanes,
    kernel: Callable[..., tuple[Lanes, ...]],
    state: tuple[Lanes, ...],
    rows: tuple[Rows, ...],
    given: tuple[Lanes | Rows, ...],
    constant: Any,
) -> tuple[Lanes, ...]:
    """`kernel(*state, *rows, *given, constant)` where the condition holds, `state` in the other lanes.

    As `update`, for a kernel that also changes the rows, but in these lanes only.  State is float32.
    """
    lanes = np.flatnonzero(condition)
    worth_it = 0.6 if rows else 0.25  # a kernel that works on rows does more for what is picked
    if len(lanes) > worth_it * len(condition) or len(condition) < FEW:
        values = kernel(*state, *rows, *given, constant)
        return tuple(where(condition, new, old) for new, old in zip(values, state, strict=True))
    picked = [row.take(lanes, axis=1) for row in rows]
    values = kernel(
        *(s.take(lanes) for s in state), *picked, *(g.take(lanes, axis=-1) for g in given), constant
    )
    for lane, value in zip(state, values, strict=True):
        lane[lanes] = value
    for row, changed in zip(rows, picked, strict=True):
        for lane, value in zip(row, changed, strict=True):
            lane[lanes] = value
    return state


def smaller(a: Lanes, b: Lanes) -> Lanes:
    """a where a < b, else b.  `np.minimum` treats NaN and signed zeros otherwise."""
    return where(a < b, a, b)


def larger(a: Lanes, b: Lanes) -> Lanes:
    """a where a > b, else b."""
    return where(a > b, a, b)


def round_even(value: Lanes) -> Lanes:
    """Nearest integer, half to even, as float32; for |value| <= ROUNDING_RANGE."""
    return (value + ROUND) - ROUND


def nearest_int(value: Lanes) -> Lanes:
    """What ggml's `nearest_int` gives for *every* float32, as float32.

    Outside +-ROUNDING_RANGE it returns the low 23 bits of `value + ROUND` less 0x400000: odd, but those
    are the bytes that ggml writes.
    """
    return as_float((bits_of_float(value + ROUND) & 0x7FFFFF) - 0x400000)


def nearest_quotient(a: Lanes, b: Lanes) -> Lanes:
    """`nearest_int(a / b)`."""
    return nearest_int(a / b)


# ---------------------------------------------------------------- 16 x 16 tiles, transposed


def gather_tile(flat: Rows, starts: Rows, lane: int, column: int, rows: Rows) -> None:
    """rows[column + i, lane + k] = flat[starts[lane + k] + column + i] for i, k < 16."""
    for k in range(lane, lane + 16):
        rows[column : column + 16, k] = flat[starts[k] + column : starts[k] + column + 16]


def scatter_tile(flat: Rows, starts: Rows, lane: int, column: int, rows: Rows) -> None:
    """flat[starts[lane + k] + column + i] = rows[column + i, lane + k] for i, k < 16."""
    for k in range(lane, lane + 16):
        flat[starts[k] + column : starts[k] + column + 16] = rows[column : column + 16, k]
