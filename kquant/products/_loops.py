"""One product on one thread: which loops multiply it, compiled or as they stand, and their memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from kquant.formats import format_of
from kquant.formats.base import BlockFormat
from kquant.kernels.activations import Activations
from kquant.kernels.compile import column_count, compiled, group_size
from kquant.kernels.execute import Bytes, Execution, Floats, aligned_empty
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.language.products import Columns
from kquant.kernels.language.tiles import empty_tile
from kquant.kernels.layout import ROWS, SUPER_BLOCK, tile
from kquant.kernels.product_loops import (
    CONSECUTIVE_SIGNATURE,
    SIGNATURE,
    multiply_column,
    multiply_consecutive,
    multiply_tiles,
)
from kquant.types import TensorType

__all__ = ["Job", "activations_of", "arguments", "block_dot", "is_beyond_cache", "multiplier", "multiply"]

CACHED_BYTES = 1 << 20
"""Bytes of weights that stay in a cache: for more of them, the next rows are prefetched."""
LARGEST_CONSECUTIVE = 63
"""The largest level of formats whose levels are multiplied as they are read."""
LARGEST_KEPT = 1 << 14
"""Columns or blocks for which memory, 64 bytes each, is kept from call to call."""
STRETCH = 256
"""Elements of each row that are unpacked at a time: one super-block, or eight blocks of 32."""


class Job(NamedTuple):
    """out = the rows of w times the columns of activations."""

    format: BlockFormat
    w: Bytes
    """(m, row_bytes)."""
    activations: Activations | Floats
    """n columns of packed ones for blocks; C-contiguous float32 (n, k) for types of numbers."""
    out: Floats
    """(n, m), in any memory layout."""
    exceeds_cache: bool
    """Whether w is, or is part of, more than a cache holds."""


def is_beyond_cache(n_bytes: int) -> bool:
    """Whether so many bytes of weights come from memory."""
    return n_bytes > CACHED_BYTES


def activations_of(packed: Bytes, partner: TensorType, *, trusted: bool = False) -> Activations:
    """Columns of packed activations, uint8 (columns, row_bytes); trusted: kquant has packed them."""
    return Activations(format_of(partner).unpack(packed), partner.block_size, trusted=trusted)


def multiply(job: Job, execution: Execution) -> None:
    """All of a job."""
    rows_of(job, execution)(0, len(job.w))


def rows_of(job: Job, execution: Execution) -> Callable[[int, int], None]:
    """What multiplies the rows from a first to a last one, at least 16 if there are as many.

    Kernels are compiled, and activations laid out, before it is returned: threads may share it.
    """
    fmt, w, given, out, exceeds_cache = job
    if not isinstance(given, Activations):
        return lambda first, last: _multiply_numbers(fmt, w[first:last], given, out[:, first:last], execution)
    if execution == "numpy" or not given.are_true:
        columns = given.columns
        return lambda first, last: _multiply_numpy(fmt, w[first:last], columns, out[:, first:last])
    n, m = out.shape
    loops, inner = multiplier(fmt, n), _inner(fmt, given, n)
    is_readable = m >= ROWS and ((w.strides[1] == 1 and not goes_by_consecutive(fmt, n)) or are_packed(w))
    if is_readable and out.strides[1] == out.itemsize:
        return lambda first, last: loops(w[first:last], *inner(), exceeds_cache, out[:, first:last])

    def copied(first: int, last: int) -> None:
        rows = (
            w[first:last] if is_readable else np.resize(w[first:last], (max(last - first, ROWS), w.shape[1]))
        )
        results = np.empty((n, len(rows)), np.float32)
        loops(rows, *inner(), exceeds_cache, results)
        out[:, first:last] = results[:, : last - first]

    return copied


def are_packed(w: Bytes) -> bool:
    """Whether rows lie side by side."""
    return w.strides == (w.shape[1], 1)


def arguments(
    fmt: BlockFormat, w: Bytes, given: Activations, out: Floats, *, exceeds_cache: bool
) -> tuple[Any, ...]:
    """Of the loops that `multiplier` compiles; with memory that is this thread's, to be used at once."""
    return w, *_inner(fmt, given, len(out))(), exceeds_cache, out


def _inner(fmt: BlockFormat, given: Activations, n_columns: int) -> Callable[[], tuple[Any, ...]]:
    """Makes the arguments between the weights and the result, on the thread that needs them."""
    if goes_by_consecutive(fmt, n_columns):
        consecutive, n_blocks = given.consecutive, given.n_blocks
        return lambda: (*consecutive, *_scratch.terms(n_blocks), _scratch.sums(n_columns))
    columns, block_size = given.columns, fmt.type.block_size
    as_bytes = columns.view(np.uint8).reshape(*columns.shape, -1)
    return lambda: (as_bytes, _scratch.tiles(block_size), _scratch.sums(n_columns))


# ---------------------------------------------------------------- memory


class _Scratch(threading.local):
    """Memory that the compiled loops work in, kept from call to call."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], Any] = {}

    def sums(self, n_columns: int) -> Floats:
        """float32 (n_columns, 16)."""
        found: Floats | None = self._kept.get(("sums", n_columns))
        if found is None:
            found = self._keep(("sums", n_columns), aligned_empty((n_columns, ROWS), np.float32))
        return found

    def tiles(self, block_size: int) -> Bytes:
        """uint8 (tiles, bytes): the blocks of one stretch."""
        found: Bytes | None = self._kept.get(("tiles", block_size))
        if found is None:
            made = aligned_empty((STRETCH // block_size, tile(block_size).itemsize), np.uint8)
            found = self._keep(("tiles", block_size), made)
        return found

    def terms(self, n_blocks: int) -> tuple[Floats, Bytes]:
        """float32 (n_blocks, 16), and the same memory as bytes (16, 4 * n_blocks)."""
        found: tuple[Floats, Bytes] | None = self._kept.get(("terms", n_blocks))
        if found is None:
            made = aligned_empty((n_blocks + 1, ROWS), np.float32)[:n_blocks]  # four are read at a time
            found = self._keep(("terms", n_blocks), (made, made.view(np.uint8).reshape(ROWS, -1)))
        return found

    def _keep(self, key: tuple[str, int], made: Any) -> Any:
        if key[1] <= LARGEST_KEPT:
            if len(self._kept) >= 32:  # a model has a few shapes
                self._kept.clear()
            self._kept[key] = made
        return made


_scratch = _Scratch()


# ---------------------------------------------------------------- compiled loops


@cache
def _is_consecutive(tensor_type: TensorType) -> bool:
    is_wide = tensor_type.block_size == SUPER_BLOCK
    return is_wide and block_dot(format_of(tensor_type)).largest <= LARGEST_CONSECUTIVE and group_size() > 0


def goes_by_consecutive(fmt: BlockFormat, n_columns: int) -> bool:
    """Whether so many columns times rows of a type are multiplied by `multiply_consecutive`."""
    return n_columns == 1 and _is_consecutive(fmt.type)


def multiplier(fmt: BlockFormat, n_columns: int) -> Any:
    """The compiled `multiply_consecutive`, `multiply_column` or `multiply_tiles` of a format."""
    return _multiplier(fmt.type, n_columns == 1)


@cache
def _multiplier(tensor_type: TensorType, is_one: bool) -> Any:
    fmt = format_of(tensor_type)
    dot, size, name = block_dot(fmt), tensor_type.type_size, f"{tensor_type.name.lower()}-multiply"
    if not is_one:
        return compiled(multiply_tiles(dot, size, *column_count()), SIGNATURE, name)
    if goes_by_consecutive(fmt, 1):
        return compiled(multiply_consecutive(dot, size), CONSECUTIVE_SIGNATURE, f"{name}-column")
    return compiled(multiply_column(dot, size), SIGNATURE, f"{name}-column")


def block_dot(fmt: BlockFormat) -> BlockDot:
    """How blocks of a format are multiplied; callers have asked whether they can be."""
    assert isinstance(fmt.dot, BlockDot)
    return fmt.dot


# ---------------------------------------------------------------- as they stand


def _multiply_numpy(fmt: BlockFormat, w: Bytes, columns: Columns, out: Floats) -> None:
    """The same loops as they stand, all rows and columns at a time."""
    dot = block_dot(fmt)
    n_columns, n_rows = out.shape
    loops = multiply_tiles(dot, fmt.type.type_size, n_columns, 1, n_rows)
    tiles: Any = [empty_tile(n_rows, dot) for _ in range(STRETCH // fmt.type.block_size)]
    with np.errstate(all="ignore"):
        loops(w, columns, tiles, np.zeros((n_columns, n_rows), np.float32), False, out)


def _multiply_numbers(fmt: BlockFormat, w: Bytes, x: Floats, out: Floats, execution: Execution) -> None:
    """In memory of one layout, on which the order of BLAS's sums depends."""
    rows = aligned_empty((len(w), x.shape[1]), np.float32)
    fmt.dequantize_rows(np.require(w, requirements=["C", "A"]), rows, execution)
    with np.errstate(all="ignore"):  # what is beyond float32 is refused, with its place
        out[...] = np.matmul(x, rows.T, out=aligned_empty(out.shape, np.float32))
