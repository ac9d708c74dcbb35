"""Carries products over rows and columns, in either execution: what is behind `matmul` and `vec_dot`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from kquant.formats import format_of
from kquant.formats.base import BlockFormat
from kquant.kernels.activations import Activations
from kquant.kernels.compile import column_count, compiled, group_size
from kquant.kernels.execute import Bytes, Execution, Floats, aligned_empty
from kquant.kernels.language.dot import BlockDot
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

__all__ = ["activations", "activations_of", "arguments", "is_far", "multiplier", "multiply"]

NEAR = 1 << 20
"""Bytes of weights that stay in a cache: for more of them, the next rows are prefetched."""
LARGEST_CONSECUTIVE = 63
"""The largest level of formats whose levels are multiplied as they are read."""
STRETCH = 256
"""Elements of each row that are unpacked at a time: one super-block, or eight blocks of 32."""


def is_far(w: Bytes) -> bool:
    """Whether a whole matrix, or a stack of them, comes from memory."""
    return w.nbytes > NEAR


def activations_of(packed: Bytes, partner: TensorType, *, trusted: bool = False) -> Activations:
    """Columns of packed activations, uint8 (columns, row_bytes); trusted: kquant has packed them."""
    return Activations(format_of(partner).unpack(packed), partner.block_size, trusted=trusted)


def activations(codec: BlockFormat, packed: Bytes, partner: TensorType, execution: Execution) -> Activations:
    """Those that kquant has packed, uint8 (columns, row_bytes), laid out before threads share them."""
    given = activations_of(packed, partner, trusted=True)
    if execution == "numba" and goes_by_consecutive(codec, len(packed)):
        _ = given.consecutive
    else:
        _ = given.columns
    return given


def multiply(
    codec: BlockFormat, w: Bytes, given: Activations, out: Floats, execution: Execution, *, far: bool
) -> None:
    """out[c, r] = row r of w (rows, row_bytes) times column c; far: the bytes are likely in no cache."""
    if execution == "numpy" or not given.are_true:
        _multiply_numpy(codec, w, given, out)
        return
    n_rows = len(w)
    if n_rows < ROWS or w.strides[1] != 1:
        w = np.resize(w, (max(n_rows, ROWS), w.shape[1]))
    is_whole = n_rows >= ROWS and out.strides[1] == out.itemsize
    result = out if is_whole else np.empty((len(out), len(w)), np.float32)
    multiplier(codec, len(out))(*arguments(codec, w, given, result, far=far))
    if not is_whole:
        out[...] = result[:, :n_rows]


def arguments(codec: BlockFormat, w: Bytes, given: Activations, out: Floats, *, far: bool) -> tuple[Any, ...]:
    """Of the loops that `multiplier` compiles."""
    block_size, n_blocks = codec.type.block_size, given.n_blocks
    sums = aligned_empty((len(out), ROWS), np.float32)
    if not goes_by_consecutive(codec, len(out)):
        tiles = aligned_empty((STRETCH // block_size, tile(block_size).itemsize), np.uint8)
        columns = given.columns.view(np.uint8).reshape(*given.columns.shape, -1)
        return w, columns, tiles, sums, far, out
    terms = aligned_empty((n_blocks + 1, ROWS), np.float32)[:n_blocks]  # four are read at a time
    words = terms.view(np.uint8).reshape(ROWS, -1)
    return np.ascontiguousarray(w), *given.consecutive, terms, words, sums, far, out


def goes_by_consecutive(codec: BlockFormat, n_columns: int) -> bool:
    """Whether so many columns times rows of a type are multiplied by `multiply_consecutive`."""
    is_wide = codec.type.block_size == SUPER_BLOCK and block_dot(codec).largest <= LARGEST_CONSECUTIVE
    return n_columns == 1 and is_wide and group_size() > 0


def multiplier(codec: BlockFormat, n_columns: int) -> Any:
    """The compiled `multiply_consecutive`, `multiply_column` or `multiply_tiles` of a format."""
    return _multiplier(codec.type, n_columns == 1)


@cache
def _multiplier(tensor_type: TensorType, is_one: bool) -> Any:
    codec = format_of(tensor_type)
    dot, size, name = block_dot(codec), tensor_type.type_size, f"{tensor_type.name.lower()}-multiply"
    if not is_one:
        return compiled(multiply_tiles(dot, size, *column_count()), SIGNATURE, name)
    if goes_by_consecutive(codec, 1):
        return compiled(multiply_consecutive(dot, size), CONSECUTIVE_SIGNATURE, f"{name}-column")
    return compiled(multiply_column(dot, size), SIGNATURE, f"{name}-column")


def block_dot(codec: BlockFormat) -> BlockDot:
    """How blocks of a format are multiplied; callers have asked whether they can be."""
    assert isinstance(codec.dot, BlockDot)
    return codec.dot


def _multiply_numpy(codec: BlockFormat, w: Bytes, given: Activations, out: Floats) -> None:
    """The same loops as they stand, all rows and columns at a time."""
    dot, columns = block_dot(codec), given.columns
    n_columns, n_rows = out.shape
    drive = multiply_tiles(dot, codec.type.type_size, n_columns, 1, n_rows)
    tiles: Any = [empty_tile(n_rows, dot) for _ in range(STRETCH // codec.type.block_size)]
    with np.errstate(all="ignore"):
        drive(w, columns, tiles, np.zeros((n_columns, n_rows), np.float32), False, out)
