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
from kquant.kernels.language.products import FACTORS, PAIRS, QUADS, ROWS, SCALES, Columns, empty_tile
from kquant.kernels.product_loops import (
    OF_STRIPS,
    SIGNATURE,
    multiply_column,
    multiply_strips,
    multiply_tiles,
)
from kquant.types import TensorType

__all__ = ["activations", "activations_of", "arguments", "is_far", "multiplier", "multiply"]

NEAR = 1 << 20
"""Bytes of weights that stay in a cache: for more of them, the next rows are fetched ahead."""
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
    given.laid_out(in_strips=execution == "numba" and goes_in_strips(codec, len(packed)))
    return given


def multiply(
    codec: BlockFormat, w: Bytes, given: Activations, out: Floats, execution: Execution, *, far: bool
) -> None:
    """out[c, r] = row r of w (rows, row_bytes) times column c; far: the bytes are likely in no cache."""
    if execution == "numpy" or not given.are_true:
        _multiply_numpy(codec, w, given.columns, out)
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
    acc = aligned_empty((len(out), ROWS), np.float32)
    if not goes_in_strips(codec, len(out)):
        tile_bytes = ROWS * (block_size + 4 * (SCALES + PAIRS + QUADS + FACTORS))
        tiles = aligned_empty((STRETCH // block_size, tile_bytes), np.uint8)
        columns = given.columns.view(np.uint8).reshape(*given.columns.shape, -1)
        return w, columns, tiles, acc, far, out
    terms = aligned_empty((n_blocks + 1, ROWS), np.float32)[:n_blocks]  # four are read at a time
    words = terms.view(np.uint8).reshape(ROWS, -1)
    return np.ascontiguousarray(w), *given.strips, terms, words, acc, far, out


def goes_in_strips(codec: BlockFormat, n_columns: int) -> bool:
    """Whether so many columns times rows of a type are multiplied by `multiply_strips`."""
    return n_columns == 1 and bool(codec.type.block_size == STRETCH) and group_size() > 0


def multiplier(codec: BlockFormat, n_columns: int) -> Any:
    """The compiled `multiply_strips`, `multiply_column` or `multiply_tiles` of a format."""
    return _multiplier(codec.type, n_columns == 1)


@cache
def _multiplier(tensor_type: TensorType, is_one: bool) -> Any:
    codec = format_of(tensor_type)
    dot, size, name = block_dot(codec), tensor_type.type_size, f"{tensor_type.name.lower()}-multiply"
    if not is_one:
        return compiled(multiply_tiles(dot, size, *column_count()), SIGNATURE, name)
    if goes_in_strips(codec, 1):
        return compiled(multiply_strips(dot, size), OF_STRIPS, f"{name}-column")
    return compiled(multiply_column(dot, size), SIGNATURE, f"{name}-column")


def block_dot(codec: BlockFormat) -> BlockDot:
    """How blocks of a format are multiplied; callers have asked whether they can be."""
    assert isinstance(codec.dot, BlockDot)
    return codec.dot


# ---------------------------------------------------------------- as it stands


def _multiply_numpy(codec: BlockFormat, w: Bytes, columns: Columns, out: Floats) -> None:
    """All rows at a time."""
    dot, size, acc = block_dot(codec), codec.type.type_size, np.zeros(out.shape, np.float32)
    tile = empty_tile(len(w), codec.type.block_size)
    with np.errstate(all="ignore"):
        for b, block in enumerate(columns):
            rows = w[:, b * size : (b + 1) * size]
            dot.unpack_scales(rows, tile)
            dot.unpack_levels(rows, tile)
            acc = dot.add(acc, tile, block, 0)
    out[...] = acc
