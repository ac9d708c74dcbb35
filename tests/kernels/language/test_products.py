"""Operations of products, each by itself: compiled, as they stand, and in integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kquant
from kquant.formats import format_of
from kquant.kernels.activations import Activations
from kquant.kernels.compile import compiled, group_size
from kquant.kernels.consecutive import consecutive_of
from kquant.kernels.language.consecutive import (
    activations_at,
    consecutive_from,
    group_at,
    group_rows,
    n_groups,
    put_group,
    put_terms,
    tile_for,
    zero_terms,
)
from kquant.kernels.language.lanes import Rows
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.packed import load_bytes
from kquant.kernels.language.products import (
    adder,
    block_from,
    columns_at,
    float_at,
    prefetch,
    prefetch_next,
    products_at,
    put_sums,
    scatter,
    sums_at,
    zero_sums,
)
from kquant.kernels.language.tiles import empty_tile
from kquant.kernels.layout import ROWS, tile
from kquant.products._loops import block_dot
from kquant.types import TensorType

pytestmark = pytest.mark.usefixtures("compiled_here")

RNG = np.random.default_rng(3)


def packed(name: str, n_rows: int, n_per_row: int) -> Any:
    data = kquant.quantize(RNG.standard_normal((n_rows, n_per_row)).astype(np.float32), name)
    data.flags.writeable = False
    return data


def bytes_of(records: Any) -> Any:
    found = records.view(np.uint8).reshape(*records.shape, -1)
    found.flags.writeable = False
    return found


@kernel
def read_floats(w: Rows, sums: Rows) -> None:
    four = load_bytes(block_from(w, 0, 0, ROWS), 0, 16)
    total = zero_sums(sums_at(sums, 0, 1))
    put_sums(sums, 0, total + float_at(four, 4))


def test_a_float_of_each_row() -> None:
    values = RNG.standard_normal((ROWS, 4)).astype("<f4")
    w = values.view(np.uint8)
    w.flags.writeable = False
    found, plain = np.empty((2, 1, ROWS), np.float32)
    compiled(read_floats, "R(uint8, 2), float32[:, ::1]", "read_floats")(w, found)
    read_floats(w, plain)
    assert np.array_equal(found[0], values[:, 1])
    assert np.array_equal(plain[0], values[:, 1])


@kernel
def scatter_both(w: Rows, sums: Rows, out: Rows) -> None:
    prefetch(w, 0, 0)
    prefetch_next(w, 1, 64)
    scatter(sums, 0, out, 3)
    scatter(sums, 1, out, 0)


def test_results_in_any_memory_and_fetching_ahead() -> None:
    """Prefetching changes nothing, also behind the end of memory."""
    sums, w = RNG.standard_normal((2, ROWS)).astype(np.float32), packed("Q8_0", 2, 32)
    for run in (
        compiled(scatter_both, "R(uint8, 2), float32[:, ::1], Array(float32, 2, 'A')", "scatter_both"),
        scatter_both,
    ):
        out = np.zeros((2, 40), np.float32)[:, :20]
        run(w, sums, out)
        assert np.array_equal(out[0, 3:19], sums[0])
        assert np.array_equal(out[1, :16], sums[1])
        assert not out[0, :3].any()
        assert not out[0, 19:].any()
        assert not out[1, 16:].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "Q6_K"])
def test_one_block_of_sixteen_rows_times_one_column(name: str) -> None:
    fmt = format_of(TensorType[name])
    dot, size = block_dot(fmt), fmt.type.block_size
    unpack_scales, unpack_levels, add = dot.unpack_scales, dot.unpack_levels, adder(dot)

    @kernel
    def multiply(w: Rows, columns: Rows, tiles: Rows, sums: Rows) -> None:
        block, column = block_from(w, 0, 0, ROWS), columns_at(columns, 0)
        one = products_at(tiles, 0, column, dot)
        unpack_scales(block, one)
        unpack_levels(block, one)
        put_sums(sums, 0, add(zero_sums(sums_at(sums, 0, 1)), one, column, 0))

    w = packed(name, ROWS, size)
    given = packed(dot.partner.name, 1, size)
    columns = Activations(format_of(dot.partner).unpack(given), size, trusted=True).columns
    found, plain = np.empty((2, 1, ROWS), np.float32)
    memory = np.empty((1, tile(size).itemsize), np.uint8)
    signature = "R(uint8, 2), R(uint8, 3), uint8[:, ::1], float32[:, ::1]"
    compiled(multiply, signature, f"one-block-{name}")(w, bytes_of(columns), memory, found)
    tiles: Any = [empty_tile(ROWS, dot)]
    multiply(w, columns, tiles, plain)
    assert np.array_equal(found, plain)
    exact = kquant.dequantize(w, name) @ kquant.dequantize(given, dot.partner)[0].astype(np.float64)
    np.testing.assert_allclose(found[0], exact, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Q2_K", "Q4_K", "Q6_K"])
def test_sixteen_consecutive_blocks_each_with_its_own_activations(name: str) -> None:
    if not group_size():
        pytest.skip("levels are multiplied as they are read with AVX2 and VNNI only")
    fmt = format_of(TensorType[name])
    dot, size = block_dot(fmt), fmt.type.type_size
    unpack_scales, unpack_levels, add = dot.unpack_scales, dot.unpack_levels, adder(dot)
    with_levels = int(dot.scales is not None and dot.scales.with_levels)

    @kernel
    def multiply(w: Rows, groups: Rows, lanes: Rows, terms: Rows, sums: Rows) -> None:
        given = activations_at(groups, 0, lanes, 0)
        blocks, one = consecutive_from(w, 0, 0, size), tile_for(given, dot)
        if not with_levels:
            unpack_scales(blocks, one)
        for i in range(n_groups(one)):
            group = group_at(one, i)
            unpack_levels(group_rows(blocks, one, i), group)
            put_group(one, i, group)
        if with_levels:
            unpack_scales(blocks, one)
        put_terms(terms, 0, add(zero_terms(sums), one, given, 0))

    w, given = packed(name, 1, 16 * 256), packed("Q8_K", 1, 16 * 256)
    fields = format_of(TensorType["Q8_K"]).unpack(given)
    consecutive = consecutive_of(fields["q"].reshape(16, 256), fields["d"].reshape(16))
    sums = np.empty((1, ROWS), np.float32)
    found, plain = np.empty((2, 1, ROWS), np.float32)
    signature = "R(uint8, 2), uint8[:, ::1], uint8[:, ::1], float32[:, ::1], float32[:, ::1]"
    compiled(multiply, signature, f"sixteen-blocks-{name}")(w, *consecutive, found, sums)
    each = Activations(
        {key: value.reshape(16, 1, *value.shape[2:]) for key, value in fields.items()}, 256, trusted=True
    )
    multiply(w, np.empty(0), each.columns, plain, sums)
    assert np.array_equal(found, plain)
    products = kquant.dequantize(w, name)[0].astype(np.float64) * kquant.dequantize(given, "Q8_K")[0]
    np.testing.assert_allclose(found[0], products.reshape(16, 256).sum(1), rtol=1e-4, atol=1e-3)
