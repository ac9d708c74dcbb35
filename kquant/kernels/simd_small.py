"""Teaches Numba the part of `kquant.kernels.products` for levels that are multiplied with their scales at once.

Levels of two or three bits times a small scale fit a byte.  So sums of products of bytes run through all
of a super-block, and nothing is scaled after every 16 elements.  Imported by `kquant.kernels.jit` only,
when the first kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types

from kquant.kernels import products
from kquant.kernels.products import MIDDLE, ROWS, SUPER_BLOCK
from kquant.kernels.simd import I32, LanesType, teach
from kquant.kernels.simd_groups import GroupType, put_bytes_of_group, summed
from kquant.kernels.simd_products import (
    SumsType,
    found_scaled_sums,
    of_columns,
    pair_sums,
    record,
    run_through,
    scaled_sums,
    sums_of,
)
from kquant.kernels.simd_rows import LITERAL, QUAD, bits, nothing, number_from, times
from kquant.kernels.simd_strips import PER, SHORTS, GroupsType, StripType, pairs_by_lane
from kquant.kernels.simd_sums import add_dots
from kquant.kernels.simd_tiles import LEVELS, SCALES, TILES, PlaceType, ProductsType, in_tile, multiply_levels
from kquant.kernels.simd_vectors import HAS_VNNI, WORDS, load, offset, shuffle, spread_bytes, spread_scales, store

EXCESS = 4
"""What levels of three bits are too large by."""
TOPS = {3: 3 * 15, 7: MIDDLE + EXCESS * 32}
"""The largest byte in a tile, for the largest level: products of three bits, -124 to 128, lose their sign."""


def is_folded(top: int) -> bool:
    """Whether tiles hold products of levels and scales: bytes above 127 cost too much without VNNI."""
    return HAS_VNNI or TOPS[top] < 128


# ---------------------------------------------------------------- scales


def _put_small_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    tile, value = args
    for j in range(16):
        scale = number_from(builder, sig.args[1], value, j, 8)
        store(builder, in_tile(builder, tile, SCALES + QUAD * j), scale)
    return context.get_dummy_value()


def _put_small_scales_of_group(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Twice each super-block's, as bytes: for elements 0 .. 16 of each 32, and for the others."""
    group, value = args
    twice = shuffle(builder, value, value, [16 * k + i for k in range(PER) for i in [*range(16), *range(16)]])
    builder.store(builder.bitcast(twice, SHORTS), builder.extract_value(group, 1))
    return context.get_dummy_value()


for _kind, _lowering in ((PlaceType, _put_small_scales), (ProductsType, _put_small_scales), (GroupType, _put_small_scales_of_group)):
    teach(products.put_small_scales, nothing, (_kind, LanesType))(_lowering)


# ---------------------------------------------------------------- levels


def _put_folded(builder: Any, tile: Any, at: Any, levels: Any, *, top: int) -> None:
    """Four levels in 32 bits are multiplied in one: no product leaves its byte."""
    words = builder.bitcast(levels, ir.VectorType(I32, levels.type.count // 4))
    for i in range(words.type.count // ROWS):
        four = shuffle(builder, words, words, range(i * ROWS, (i + 1) * ROWS))
        scale = load(builder, in_tile(builder, tile, SCALES + QUAD * (i // 4), times(builder, at, QUAD // 16)), WORDS)
        if top == 7:
            four = builder.sub(four, ir.Constant(WORDS, [EXCESS * 0x01010101] * ROWS))
        four = builder.mul(four, scale)
        if top == 7:
            four = builder.add(four, ir.Constant(WORDS, [MIDDLE * 0x01010101] * ROWS))
        store(builder, in_tile(builder, tile, LEVELS + QUAD * i, times(builder, at, ROWS)), four)


def _put_levels(builder: Any, kind: Any, tile: Any, at: Any, levels: Any, top: int) -> None:
    if isinstance(kind, GroupType):
        put_bytes_of_group(builder, tile, at, levels, spread_bytes if top == 3 else spread_scales)
    elif isinstance(kind, ProductsType):
        multiply_levels(builder, tile, at, levels, top)
    elif is_folded(top):
        _put_folded(builder, tile, at, levels, top=top)
    else:
        store(builder, in_tile(builder, tile, LEVELS, times(builder, at, ROWS)), levels)


def _put_two_bits(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    tile, at, q, _ = args
    _put_levels(builder, sig.args[0], tile, at, bits(builder, q, 2 * sig.args[3].literal_value, 2, 0), 3)
    return context.get_dummy_value()


def _put_three_bits(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _put_levels(builder, sig.args[0], *args, 7)
    return context.get_dummy_value()


for _kind in (*TILES, GroupType):
    teach(products.put_two_bits, nothing, (_kind, types.Integer, LanesType, LITERAL))(_put_two_bits)
    teach(products.put_three_bits, nothing, (_kind, types.Integer, LanesType))(_put_three_bits)


# ---------------------------------------------------------------- sums


def _small_dots(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _, tile, columns, c = args
    kind = sig.args[1]
    if isinstance(kind, GroupsType):
        return summed(builder, tile)
    if isinstance(kind, ProductsType):
        return found_scaled_sums(builder, tile, 16, SUPER_BLOCK)
    return _folded_sums(builder, sig.return_type, tile, 3, columns, c)


def _folded_sums(
    builder: Any, out: SumsType, tile: Any, top: int, columns: Any, c: Any, totals: Sequence[Any] = ()
) -> Any:
    def add(totals: list[Any], levels: list[Any], q: Any, i: Any, step: int) -> list[Any]:
        return add_dots(builder, totals, levels, q, step, TOPS[top])

    return run_through(builder, out, tile, 32, columns, SUPER_BLOCK, c, add, totals)


def _centered_dots(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """With VNNI, sums begin with what is too much."""
    _, tile, _, columns, c = args
    kind, out, top = sig.args[1], sig.return_type, sig.args[2].literal_value
    if isinstance(kind, GroupsType):
        return _centered_sums_of_groups(builder, tile, top)
    if isinstance(kind, ProductsType):
        sums = found_scaled_sums(builder, tile, 16, SUPER_BLOCK)
        return _less(builder, sums, pair_sums(builder, out, tile, 8, columns, SUPER_BLOCK, c))
    if not HAS_VNNI:
        sums = scaled_sums(builder, out, tile, 16, top, columns, SUPER_BLOCK, c)
        return _less(builder, sums, pair_sums(builder, out, tile, 8, columns, SUPER_BLOCK, c))
    at, step = record(SUPER_BLOCK).centers, record(SUPER_BLOCK).step
    first = offset(builder, columns, at, times(builder, c, step))
    if top == 7:
        whole = of_columns(builder, offset(builder, first, 4 * 16), I32, out.columns, step)
        return _folded_sums(builder, out, tile, top, columns, c, whole)

    def add(totals: list[Any], levels: list[Any], q: Any, i: Any, step: int) -> list[Any]:
        scale = load(builder, in_tile(builder, tile, SCALES, times(builder, i, QUAD)), WORDS)
        centers = of_columns(builder, offset(builder, first, times(builder, i, 4)), I32, out.columns, step)
        sums = add_dots(builder, centers, levels, q, step, top)
        return [builder.add(a, builder.mul(b, scale)) for a, b in zip(totals, sums, strict=True)]

    return run_through(builder, out, tile, 16, columns, SUPER_BLOCK, c, add)


def _centered_sums_of_groups(builder: Any, tile: Any, top: int) -> Any:
    """Levels up to 63 have been centered as their scales were put."""
    if top == 63:
        return summed(builder, tile)
    return _less(builder, summed(builder, tile), pairs_by_lane(builder, tile))


def _less(builder: Any, sums: Any, others: Any) -> Any:
    both = ([builder.extract_value(value, c) for c in range(value.type.count)] for value in (sums, others))
    return sums_of(builder, [builder.sub(*pair) for pair in zip(*both, strict=True)])


for _kind, _columns in ((PlaceType, PlaceType), (ProductsType, PlaceType), (GroupsType, StripType)):
    teach(
        products.small_dots,
        lambda *args: (SumsType("int32", args[0].columns), *args[:3], types.intp),
        (SumsType, _kind, _columns, types.Integer),
    )(_small_dots)
    teach(
        products.centered_dots,
        lambda *args: (SumsType("int32", args[0].columns), *args[:4], types.intp),
        (SumsType, _kind, LITERAL, _columns, types.Integer),
    )(_centered_dots)
