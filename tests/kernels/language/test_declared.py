"""Declarations that no format has yet: the lowering multiplies them, too, and NumPy and integers agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kquant.kernels.activations import Activations
from kquant.kernels.compile import column_count, compiled
from kquant.kernels.language.dot import BlockDot, Scales
from kquant.kernels.language.lanes import Rows
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import half_from, load_bytes, signed
from kquant.kernels.language.tiles import empty_tile, put_d, put_levels, put_scales
from kquant.kernels.layout import ROWS, SUPER_BLOCK, tile
from kquant.kernels.product_loops import SIGNATURE, multiply_column, multiply_tiles
from kquant.types import TensorType

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_here")]

SIZE = 16 + SUPER_BLOCK + 2
"""Bytes of a block: sixteen signed scales, a byte for each level, d."""
N_COLUMNS = 17


@kernel
def unpack_scales(block: Rows, tile: Any) -> None:
    put_d(tile, half_from(block, 16 + SUPER_BLOCK))
    put_scales(tile, signed(load_bytes(block, 0, 16)))


@kernel
def unpack_levels(block: Rows, tile: Any) -> None:
    for at in range(0, SUPER_BLOCK, 32):
        put_levels(tile, at, load_bytes(block, 16 + at, 32))


@pytest.mark.parametrize(("largest", "zero_point"), [(15, 8), (255, 128), (255, 0)])
def test_super_blocks_with_signed_scales(largest: int, zero_point: int) -> None:
    rng = np.random.default_rng(largest + zero_point)
    scales = Scales(16, 127, signed=True)
    dot = BlockDot(TensorType.Q8_K, unpack_scales, unpack_levels, largest, zero_point, scales)
    levels = rng.choice([0, largest, *range(0, largest, 3)], (ROWS, SUPER_BLOCK)).astype(np.uint8)
    sc = rng.choice([-127, 127, *range(-127, 128, 9)], (ROWS, 16)).astype(np.int8)
    q = rng.choice([-128, 127, *range(-128, 128, 7)], (N_COLUMNS, SUPER_BLOCK)).astype(np.int8)
    ones = np.ones(ROWS, "<f2").view(np.uint8).reshape(ROWS, 2)
    w = np.concatenate([sc.view(np.uint8), levels, ones], 1)
    w.flags.writeable = False
    sums = q.reshape(N_COLUMNS, 16, 16).sum(2, np.int16)
    fields = {"d": np.ones((N_COLUMNS, 1), np.float32), "q": q, "bsums": sums}

    scaled = (levels.astype(np.int64) - zero_point) * np.repeat(sc, 16, 1)
    exact = (q.astype(np.int64) @ scaled.T).astype(np.float32)

    memory, acc = np.empty((1, tile(SUPER_BLOCK).itemsize), np.uint8), np.empty((N_COLUMNS, ROWS), np.float32)
    for n, loops in (
        (N_COLUMNS, multiply_tiles(dot, SIZE, *column_count())),
        (1, multiply_column(dot, SIZE)),
    ):
        some = {key: value[:n] for key, value in fields.items()}
        given, out = Activations(some, SUPER_BLOCK).columns, np.empty((n, ROWS), np.float32)
        columns = given.view(np.uint8).reshape(*given.shape, -1)
        columns.flags.writeable = False
        name = f"declared-{largest}-{zero_point}-{n == 1}"
        compiled(loops, SIGNATURE, name)(w, columns, memory, acc[:n], False, out)
        np.testing.assert_array_equal(out, exact[:n])
    by_numpy = np.empty((N_COLUMNS, ROWS), np.float32)
    drive = multiply_tiles(dot, SIZE, N_COLUMNS, 1, ROWS)
    every = Activations(fields, SUPER_BLOCK).columns
    drive(w, every, [empty_tile(ROWS, dot)], acc, False, by_numpy)
    np.testing.assert_array_equal(by_numpy, exact)
