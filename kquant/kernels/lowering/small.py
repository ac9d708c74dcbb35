"""Lowers what of `language.products` for levels of few bits, and for those too large.

Levels of two or three bits times a small scale fit a byte.  With byte dots, sums of products of bytes so run
through all of a super-block, and nothing is scaled after every 16 elements.  Imported by
`kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_builtin

from kquant.kernels.language import products
from kquant.kernels.language.products import CENTERS, MIDDLE, ROWS, SUPER_BLOCK
from kquant.kernels.lowering.bits import bits
from kquant.kernels.lowering.groups import GroupType, put_bytes_of_group, summed
from kquant.kernels.lowering.isa.facts import HAS_BYTE_DOTS
from kquant.kernels.lowering.lanes import I32, LanesType, teach
from kquant.kernels.lowering.products import (
    SumsType,
    found_scaled_sums,
    of_columns,
    pair_sums,
    record,
    run_through,
    scaled_sums,
    sums_of,
)
from kquant.kernels.lowering.rows import LITERAL, QUAD, nothing, times
from kquant.kernels.lowering.strips import PER, SHORTS, GroupsType, StripType, pairs_by_lane
from kquant.kernels.lowering.sums import add_dots
from kquant.kernels.lowering.tiles import LEVELS, SCALES, PlaceType, ProductsType, in_tile, multiply_levels
from kquant.kernels.lowering.vectors import (
    WORDS,
    load,
    offset,
    shuffle,
    spread_bytes,
    spread_scales,
    store,
)

EXCESS = 4
"""What levels of three bits are too large by."""


# ---------------------------------------------------------------- scales


def _put_small_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Twice each super-block's, as bytes: for elements 0 .. 16 of each 32, and for the others."""
    group, value = args
    twice = shuffle(builder, value, value, [16 * k + i for k in range(PER) for i in [*range(16), *range(16)]])
    builder.store(builder.bitcast(twice, SHORTS), builder.extract_value(group, 1))
    return context.get_dummy_value()


lower_builtin(products.put_small_scales, GroupType, LanesType)(_put_small_scales)


# ---------------------------------------------------------------- levels


def _put_in_tile(builder: Any, tile: Any, at: Any, levels: Any, top: int) -> None:
    place = in_tile(builder, tile, LEVELS, times(builder, at, ROWS))
    if not HAS_BYTE_DOTS:  # sums of levels as they are fit 16 bits for longer
        store(builder, place, levels)
        return
    scales = in_tile(builder, tile, SCALES, times(builder, at, QUAD // 16))
    words = builder.bitcast(levels, ir.VectorType(I32, levels.type.count // 4))
    for i in range(words.type.count // ROWS):
        four = shuffle(builder, words, words, range(i * ROWS, (i + 1) * ROWS))
        scale = load(builder, offset(builder, scales, QUAD * (i // 4)), WORDS)
        store(builder, offset(builder, place, QUAD * i), _folded(builder, four, scale, top))


def _folded(builder: Any, levels: Any, scale: Any, top: int) -> Any:
    """Four levels in 32 bits are multiplied in one: in the end no product leaves its byte.

    Those of three bits, from -124 to 128, lose their sign.
    """

    def everywhere(value: int) -> Any:
        return ir.Constant(WORDS, [value * 0x01010101] * ROWS)

    if top == 3:
        return builder.mul(levels, scale)
    return builder.add(builder.mul(builder.sub(levels, everywhere(EXCESS)), scale), everywhere(MIDDLE))


def _put_in_group(builder: Any, group: Any, at: Any, levels: Any, top: int) -> None:
    put_bytes_of_group(builder, group, at, levels, spread_bytes if top == 3 else spread_scales)


def _teach_levels(kind: type, put: Callable[[Any, Any, Any, Any, int], None]) -> None:
    def put_two_bits(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tile, at, q, _ = args
        put(builder, tile, at, bits(builder, q, 2 * sig.args[3].literal_value, 2, 0), 3)
        return context.get_dummy_value()

    def put_three_bits(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tile, at, value = args
        put(builder, tile, at, value, 7)
        return context.get_dummy_value()

    teach(products.put_two_bits, nothing, (kind, types.Integer, LanesType, LITERAL))(put_two_bits)
    teach(products.put_three_bits, nothing, (kind, types.Integer, LanesType))(put_three_bits)


_teach_levels(PlaceType, _put_in_tile)
_teach_levels(ProductsType, multiply_levels)
_teach_levels(GroupType, _put_in_group)


# ---------------------------------------------------------------- sums


def _folded_sums(
    builder: Any, out: SumsType, tile: Any, columns: Any, c: Any, totals: Sequence[Any] = ()
) -> Any:
    def add(totals: list[Any], levels: list[Any], q: Any, i: Any, step: int) -> list[Any]:
        return add_dots(builder, totals, levels, q, step)

    return run_through(builder, out, tile, 32, columns, SUPER_BLOCK, c, add, totals)


def _small_dots(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _, tile, columns, c = args
    if not HAS_BYTE_DOTS:
        return scaled_sums(builder, sig.return_type, tile, 16, 3, columns, SUPER_BLOCK, c)
    return _folded_sums(builder, sig.return_type, tile, columns, c)


teach(
    products.small_dots,
    lambda *args: (SumsType("int32", args[0].columns), *args[:3], types.intp),
    (SumsType, PlaceType, PlaceType, types.Integer),
)(_small_dots)
lower_builtin(products.small_dots, SumsType, ProductsType, PlaceType, types.Integer)(
    lambda context, builder, sig, args: found_scaled_sums(builder, args[1], 16, SUPER_BLOCK)
)
lower_builtin(products.small_dots, SumsType, GroupsType, StripType, types.Integer)(
    lambda context, builder, sig, args: summed(builder, args[1])
)


def _centered_dots(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """With byte dots, sums begin with what is too much; else that is subtracted."""
    _, tile, _, columns, c = args
    out, top = sig.return_type, sig.args[2].literal_value
    if not HAS_BYTE_DOTS:
        sums = scaled_sums(builder, out, tile, 16, top, columns, SUPER_BLOCK, c)
        return _less(builder, sums, pair_sums(builder, out, tile, columns, c))
    step = record(SUPER_BLOCK).step
    first = offset(builder, columns, record(SUPER_BLOCK).centers, times(builder, c, step))
    if top == 7:
        whole = of_columns(builder, offset(builder, first, 4 * (CENTERS - 1)), I32, out.columns, step)
        return _folded_sums(builder, out, tile, columns, c, whole)

    def add(totals: list[Any], levels: list[Any], q: Any, i: Any, step: int) -> list[Any]:
        scale = load(builder, in_tile(builder, tile, SCALES, times(builder, i, QUAD)), WORDS)
        centers = of_columns(builder, offset(builder, first, times(builder, i, 4)), I32, out.columns, step)
        sums = add_dots(builder, centers, levels, q, step)
        return [builder.add(total, builder.mul(x, scale)) for total, x in zip(totals, sums, strict=True)]

    return run_through(builder, out, tile, 16, columns, SUPER_BLOCK, c, add)


def _found_centered_dots(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _, tile, _, columns, c = args
    sums = found_scaled_sums(builder, tile, 16, SUPER_BLOCK)
    return _less(builder, sums, pair_sums(builder, sig.return_type, tile, columns, c))


def _centered_dots_of_groups(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Levels up to 63 were centered when their scales were put."""
    sums, top = summed(builder, args[1]), sig.args[2].literal_value
    return _less(builder, sums, pairs_by_lane(builder, args[1])) if top == 7 else sums


def _less(builder: Any, sums: Any, others: Any) -> Any:
    both = ([builder.extract_value(value, c) for c in range(value.type.count)] for value in (sums, others))
    return sums_of(builder, [builder.sub(*pair) for pair in zip(*both, strict=True)])


teach(
    products.centered_dots,
    lambda *args: (SumsType("int32", args[0].columns), *args[:4], types.intp),
    (SumsType, PlaceType, LITERAL, PlaceType, types.Integer),
)(_centered_dots)
lower_builtin(products.centered_dots, SumsType, ProductsType, LITERAL, PlaceType, types.Integer)(
    _found_centered_dots
)
lower_builtin(products.centered_dots, SumsType, GroupsType, LITERAL, StripType, types.Integer)(
    _centered_dots_of_groups
)
