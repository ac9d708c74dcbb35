"""Teaches Numba the part of `kquant.kernels.products` for super-blocks that are multiplied as they are read.

No bytes are turned: a register holds 32 bytes of one super-block, or of each of two neighbours, and is
multiplied with the activations beside them.  Then the eight lanes of sums of each of sixteen super-blocks
become one.  Imported by `kquant.kernels.jit` only, when the first kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.extending import register_model

from kquant.kernels import products
from kquant.kernels.products import ROWS
from kquant.kernels.simd import I32, LanesType, teach
from kquant.kernels.simd_products import SumsType, sums_of
from kquant.kernels.simd_rows import (
    LITERAL,
    QUAD,
    BlockType,
    PrimitiveModel,
    nothing,
    record_of,
    times,
    turned,
)
from kquant.kernels.simd_sums import (
    HALF,
    HAS_VNNI,
    I8,
    I16,
    I64,
    WORDS,
    add_fours_of_bytes,
    add_pairs_of_bytes,
    add_pairs_of_shorts,
    load,
    narrowed,
    offset,
    shuffle,
    spread_short,
    spread_shorts,
    store,
    widened_once,
)
from kquant.kernels.simd_tiles import (
    LEVELS,
    PAIRS,
    SCALES,
    GroupsType,
    in_tile,
    row_of,
)

PER = 2 if HAS_VNNI else 1
"""Super-blocks in a group: what fits a register."""
LONG = 32
"""Bytes of each in a register."""
ACC = ir.VectorType(I32, PER * LONG // 4)
SHORTS = ir.VectorType(I16, PER * LONG // 2)
CHAINS = 2 if HAS_VNNI else 1
"""Sums by turns: what adds to them takes five cycles with VNNI, else one."""
SIZE = 256
"""Elements of a super-block."""
GIVEN = PER * (SIZE + LONG)
"""Bytes of a group's activations and their sums."""
OF_LANES, LANE_FACTORS = ir.VectorType(I16, 2 * ROWS), products.PAIRS * QUAD
"""The sums of activations that lanes have, and where their factors are."""
EVEN_AND_ODD = [*range(0, 16, 2), *range(1, 16, 2)]
"""The order of 16 scales that puts those of the two halves of each 32 elements into halves of their own."""


class GroupRowsType(types.Type):
    """The Numba type of `rows_at`: where the first super-block is, and how far it is to the second."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I64])
    rows = PER


class GroupType(types.Type):
    """The Numba type of `part_at`: sums, 16 scales of each, products that wait for theirs, activations."""

    llvm = ir.LiteralStructType(
        [ir.ArrayType(ACC, CHAINS).as_pointer(), SHORTS.as_pointer(), ACC.as_pointer(), I8.as_pointer()]
    )


class StripType(types.Type):
    """The Numba type of `strip_at`: where the activations of the first group are, and what each lane has."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I8.as_pointer()])


for _kind in (GroupRowsType, GroupType, StripType):
    register_model(_kind)(PrimitiveModel)
_ROWS, _GROUP, _GROUPS, _STRIP = (
    GroupRowsType("group rows"),
    GroupType("group"),
    GroupsType("groups"),
    StripType("strip"),
)


# ---------------------------------------------------------------- strips


def _neighbours_from(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """In the order of their lanes: the first of each group, then, where a group has two, the second."""
    w, row, at, size = args
    first = offset(builder, row_of(context, builder, sig.args[0], w, row), at)
    steps = [times(builder, size, n) for n in ((2, 1) if PER == 2 else (1, HALF))]
    return record_of(builder, BlockType.llvm, first, *steps)


teach(
    products.neighbours_from,
    lambda *args: (BlockType("block"), args[0], types.intp, types.intp, types.intp),
    (types.Array, types.Integer, types.Integer, types.Integer),
)(_neighbours_from)


def _strip_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    places = [row_of(context, builder, sig.args[i], args[i], args[i + 1]) for i in (0, 2)]
    return record_of(builder, StripType.llvm, *places)


teach(
    products.strip_at,
    lambda *args: (_STRIP, args[0], types.intp, args[2], types.intp),
    (types.Array, types.Integer, types.Array, types.Integer),
)(_strip_at)


def _groups_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = row_of(context, builder, sig.args[0], *args[:2])
    return record_of(builder, GroupsType.llvm, place, builder.extract_value(args[2], 0))


teach(
    products.groups_at,
    lambda *args: (_GROUPS, args[0], types.intp, args[2]),
    (types.Array, types.Integer, StripType),
)(_groups_at)
teach(products.no_terms, lambda sums: (SumsType("float32", 1), sums), (types.Array,))(
    lambda context, builder, sig, args: ir.Constant(sig.return_type.llvm, None)
)


def _put_terms(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value = builder.extract_value(args[2], 0)
    if PER == 2:
        value = shuffle(builder, value, value, [lane for k in range(HALF) for lane in (k, k + HALF)])
    store(builder, row_of(context, builder, sig.args[0], *args[:2]), value)
    return context.get_dummy_value()


teach(products.put_terms, nothing, (types.Array, types.Integer, SumsType))(_put_terms)


# ---------------------------------------------------------------- which super-blocks


def _rows_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """One lane's, or those of two lanes that are half a tile apart."""
    block, _, lane = args
    first, step, half = (builder.extract_value(block, at) for at in range(3))
    place = offset(builder, first, builder.mul(lane, step))
    return record_of(builder, GroupRowsType.llvm, place, half)


teach(
    products.rows_at,
    lambda *args: (_ROWS, *args[:2], types.intp),
    (BlockType, GroupsType, types.Integer),
)(_rows_at)


def _load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    count = sig.return_type.width
    first, distance = (builder.extract_value(args[0], at) for at in (0, 1))
    place, kind = offset(builder, first, args[1]), ir.VectorType(I8, count // PER)
    rows = [load(builder, offset(builder, place, times(builder, distance, i)), kind) for i in range(PER)]
    return shuffle(builder, rows[0], rows[-1], range(count))


for _word in (products.load_bytes, products.load_long):
    lower_builtin(_word, GroupRowsType, types.Integer)(_load)


# ---------------------------------------------------------------- what groups share


teach(products.parts, lambda tile: (types.intp, tile), (GroupsType,))(lambda *_: I64(ROWS // PER))


def _put_scales(builder: Any, tile: Any, quads: list[Any], order: list[int]) -> Any:
    """Each row's 16 bytes in this order, as int16, group after group."""
    words, octets = ir.VectorType(I32, ROWS), ir.VectorType(I8, QUAD)
    for k, value in enumerate(turned(builder, [builder.bitcast(q, words) for q in quads])):
        rows = builder.bitcast(value, octets)  # k, k + 4, k + 8, k + 12
        for four in range(4 // PER):
            lanes = [16 * row + at for row in range(four, 4, 2)[:PER] for at in order]
            scales = builder.sext(shuffle(builder, rows, rows, lanes), SHORTS)
            group = (4 * four + k) * PER * LONG
            store(builder, in_tile(builder, tile, SCALES + group), scales)


def _put_16_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """The 32 elements in a register have two scales, one of each half of a row's."""
    _put_scales(builder, args[0], args[1:], EVEN_AND_ODD)
    return context.get_dummy_value()


def _put_8_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _put_scales(builder, args[0], [*args[1:], *args[1:]], [*range(16)])
    return context.get_dummy_value()


lower_builtin(products.put_16_scales, GroupsType, *(LanesType,) * 4)(_put_16_scales)
lower_builtin(products.put_8_scales, GroupsType, *(LanesType,) * 2)(_put_8_scales)


# ---------------------------------------------------------------- a group


def _part_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    scales = load(builder, in_tile(builder, args[0], SCALES, times(builder, args[1], PER * LONG)), SHORTS)
    kept = [cgutils.alloca_once(builder, kind) for kind in (ir.ArrayType(ACC, CHAINS), SHORTS, ACC)]
    builder.store(ir.Constant(ir.ArrayType(ACC, CHAINS), None), kept[0])
    builder.store(scales, kept[1])
    q = offset(builder, builder.extract_value(args[0], 1), times(builder, args[1], GIVEN))
    return record_of(builder, GroupType.llvm, *kept, q)


teach(
    products.part_at,
    lambda *args: (_GROUP, args[0], types.intp),
    (GroupsType, types.Integer),
)(_part_at)


def _given(builder: Any, place: Any, kind: Any) -> Any:
    """Activations: nothing that is stored meanwhile changes them."""
    value = load(builder, place, kind)
    value.set_metadata("invariant.load", builder.module.add_metadata([]))
    return value


def _add(builder: Any, sums: Any, chain: Any, x: Any, y: Any) -> None:
    place = builder.gep(sums, [I64(0), chain])
    builder.store(add_pairs_of_shorts(builder, builder.load(place), x, y), place)


def _put_scales_of_group(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """The excess of all levels is taken off the sums at once."""
    sums, place, _, q = (builder.extract_value(args[0], i) for i in range(4))
    excess = sig.args[2].literal_value
    extended = builder.sext if sig.args[1].element == "int8" else builder.zext
    order = [16 * row + at for row in range(PER) for at in EVEN_AND_ODD]
    scales = widened_once(builder, extended(shuffle(builder, args[1], args[1], order), SHORTS))
    builder.store(scales, place)
    if excess:
        found = _given(builder, offset(builder, q, PER * SIZE), ir.VectorType(I16, PER * LONG // 2))
        less = builder.mul(scales, ir.Constant(SHORTS, [-excess] * SHORTS.count))
        _add(builder, sums, I64(CHAINS - 1), less, found)
    return context.get_dummy_value()


lower_builtin(products.put_scales, GroupType, LanesType, LITERAL)(_put_scales_of_group)
lower_builtin(products.excess_dots, SumsType, GroupsType, StripType, LITERAL, types.Integer)(
    lambda context, builder, sig, args: ir.Constant(sig.return_type.llvm, None)
)


def _put_bytes(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """The levels times the activations, in pairs or fours; these times the scales, to the sums."""
    part, at, levels = args
    q = builder.extract_value(part, 3)
    both = _given(builder, offset(builder, q, times(builder, at, PER)), ir.VectorType(I8, PER * LONG))
    (_add_fours if HAS_VNNI else _add_pairs)(builder, part, builder.lshr(at, I64(5)), levels, both)
    return context.get_dummy_value()


def _add_pairs(builder: Any, part: Any, i: Any, levels: Any, x: Any) -> None:
    sums, scales = (builder.extract_value(part, k) for k in (0, 1))
    spread = spread_short(builder, builder.load(scales), i)
    _add(builder, sums, builder.and_(i, I64(CHAINS - 1)), add_pairs_of_bytes(builder, levels, x), spread)


def _add_fours(builder: Any, part: Any, i: Any, levels: Any, x: Any) -> None:
    """Sums of four products fit 16 bits, too: those of two registers are scaled in one."""
    sums, scales, waiting = (builder.extract_value(part, k) for k in (0, 1, 2))
    found = add_fours_of_bytes(builder, levels, x)
    with builder.if_else(builder.trunc(i, ir.IntType(1))) as (second, first):
        with first:
            builder.store(found, waiting)
        with second:
            shorts = narrowed(builder, builder.load(waiting), found)
            pair = builder.lshr(i, I64(1))
            spread = spread_shorts(builder, builder.load(scales), pair)
            _add(builder, sums, builder.and_(pair, I64(CHAINS - 1)), shorts, spread)


lower_builtin(products.put_bytes, GroupType, types.Integer, LanesType)(_put_bytes)


def _put_part(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    tile, i, part = args
    place = in_tile(builder, tile, LEVELS, times(builder, i, PER * LONG))
    sums = builder.load(builder.extract_value(part, 0))
    store(builder, place, reduce(builder.add, [builder.extract_value(sums, i) for i in range(CHAINS)]))
    return context.get_dummy_value()


teach(products.put_part, nothing, (GroupsType, types.Integer, GroupType))(_put_part)


# ---------------------------------------------------------------- the sums of all groups


def _added(builder: Any, both: Sequence[Any], first: Sequence[int], second: Sequence[int]) -> Any:
    """Some lanes of two registers, plus as many others."""
    a, b = both
    return builder.add(shuffle(builder, a, b, first), shuffle(builder, a, b, second))


def _of_four(builder: Any, four: Sequence[Any]) -> Any:
    """In each half of a row's eight lanes, of each of four registers the sum of its lanes there."""
    n = ACC.count

    def lanes(*of_both: int) -> list[int]:
        return [at + lane for at in range(0, n, 4) for lane in of_both]

    pairs = [
        _added(builder, both, lanes(0, n, 1, n + 1), lanes(2, n + 2, 3, n + 3))
        for both in (four[:2], four[2:])
    ]
    return _added(builder, pairs, lanes(0, 1, n, n + 1), lanes(2, 3, n + 2, n + 3))


def _summed(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    places = range(LEVELS, LEVELS + ROWS * LONG, PER * LONG)
    groups = [load(builder, in_tile(builder, args[1], place), ACC) for place in places]
    fours = [_of_four(builder, groups[i : i + 4]) for i in range(0, len(groups), 4)]
    n = ACC.count  # eight lanes for each row
    low, high = (
        [at + lane for row in range(first, n, 8) for at in (row, n + row) for lane in range(4)]
        for first in (0, 4)
    )
    eights = [_added(builder, fours[i : i + 2], low, high) for i in range(0, len(fours), 2)]
    return sums_of(builder, [shuffle(builder, eights[0], eights[-1], range(ROWS))])


lower_builtin(
    products.scaled_dots, SumsType, GroupsType, LITERAL, LITERAL, StripType, LITERAL, types.Integer
)(_summed)


# ---------------------------------------------------------------- what belongs to the lanes of a strip


def _by_lane(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = offset(
        builder, builder.extract_value(args[1], 1), LANE_FACTORS + QUAD * sig.args[3].literal_value
    )
    return sums_of(builder, [_given(builder, place, sig.return_type.of_rows.llvm)])


lower_builtin(products.by_column, SumsType, StripType, LITERAL, LITERAL, types.Integer)(_by_lane)


def _pairs_by_lane(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    sums = builder.extract_value(args[3], 1)
    totals = [ir.Constant(WORDS, None)] * CHAINS
    for i in range(sig.args[2].literal_value):
        pair = load(builder, in_tile(builder, args[1], PAIRS, QUAD * i), OF_LANES)
        of_lane = _given(builder, offset(builder, sums, QUAD * i), OF_LANES)
        totals[i % CHAINS] = add_pairs_of_shorts(builder, totals[i % CHAINS], pair, of_lane)
    return sums_of(builder, [reduce(builder.add, totals)])


lower_builtin(products.dot_pairs, SumsType, GroupsType, LITERAL, StripType, LITERAL, types.Integer)(
    _pairs_by_lane
)
