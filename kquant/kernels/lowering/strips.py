"""Lowers what of `language.products` for strips: sixteen super-blocks side by side.

Each super-block is a lane of its own, and has activations of its own.  What is kept of them stays in
registers, as far as LLVM has so many.  Imported by `kquant.kernels.compile` only, when the first kernel is
compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.extending import register_model

from kquant.kernels.language import products, strips
from kquant.kernels.language.products import EVEN_AND_ODD, ROWS, SUPER_BLOCK
from kquant.kernels.lowering.isa.facts import BLOCKS_PER_REGISTER
from kquant.kernels.lowering.lanes import I32, LanesType, teach
from kquant.kernels.lowering.products import SumsType, first_digit, sums_of, two_digits
from kquant.kernels.lowering.rows import (
    LITERAL,
    QUAD,
    BlockType,
    PrimitiveModel,
    nothing,
    record_of,
    times,
    turned,
)
from kquant.kernels.lowering.sums import add_fours_by_lane, add_pairs_of_shorts
from kquant.kernels.lowering.tiles import pair_from, row_of
from kquant.kernels.lowering.vectors import HALF, I8, I16, I64, WORDS, load, offset, shuffle, store

PER = BLOCKS_PER_REGISTER
"""Super-blocks in a group: what fits a register."""
LONG = 32
"""Bytes of each in a register."""
ACC = ir.VectorType(I32, PER * LONG // 4)
SHORTS = ir.VectorType(I16, PER * LONG // 2)
GIVEN = PER * (SUPER_BLOCK + LONG)
"""Bytes of a group's activations and their sums."""
OF_DIGITS = products.DIGITS // 4
HIGH, LOW = products.PAIRS, products.PAIRS + OF_DIGITS
"""Registers before those that the lanes' digits fill; behind them are the factors."""
OF_LANES = ir.VectorType(I16, 2 * ROWS)
FLOATS = ir.VectorType(ir.FloatType(), ROWS)
KEPT = ir.LiteralStructType(
    [
        ir.ArrayType(SHORTS, ROWS // PER),
        ir.ArrayType(ACC, ROWS // PER),
        ir.ArrayType(WORDS, 2),
        ir.ArrayType(FLOATS, products.FACTORS),
    ]
)
"""What is kept of a strip: of each group the scales and the sums, of all lanes two sums and the factors."""
SCALES, SUMS, LANE_SUMS, FACTORS = range(4)


class GroupsType(types.Type):
    """The Numba type of `groups_at`: what `strip_at` has, and where `KEPT` is."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I8.as_pointer(), KEPT.as_pointer()])


class StripType(types.Type):
    """The Numba type of `strip_at`: where the activations of the first group are, and what each lane has."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I8.as_pointer()])


for _kind in (GroupsType, StripType):
    register_model(_kind)(PrimitiveModel)
_GROUPS, _STRIP = GroupsType("groups"), StripType("strip")


def kept(builder: Any, groups: Any, part: int, i: Any) -> Any:
    """A pointer to number i of a part of what is kept."""
    i = I64(i) if isinstance(i, int) else i
    return builder.gep(builder.extract_value(groups, 2), [I32(0), I32(part), i])


def given(builder: Any, place: Any, kind: Any) -> Any:
    """Activations: nothing that is stored meanwhile changes them."""
    value = load(builder, place, kind)
    value.set_metadata("invariant.load", builder.module.add_metadata([]))
    return value


# ---------------------------------------------------------------- which super-blocks


def _neighbours_from(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """In the order of their lanes: the first of each group, then, where a group has two, the second."""
    w, row, at, _ = args
    size = I64(sig.args[3].literal_value)
    first = offset(builder, row_of(context, builder, sig.args[0], w, row), at)
    steps = [times(builder, size, n) for n in ((2, 1) if PER == 2 else (1, HALF))]
    return record_of(builder, BlockType.llvm, first, *steps)


teach(
    strips.neighbours_from,
    lambda *args: (BlockType(args[3].literal_value), args[0], types.intp, types.intp, args[3]),
    (types.Array, types.Integer, types.Integer, LITERAL),
)(_neighbours_from)


def _strip_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    places = [row_of(context, builder, sig.args[i], args[i], args[i + 1]) for i in (0, 2)]
    return record_of(builder, StripType.llvm, *places)


teach(
    strips.strip_at,
    lambda *args: (_STRIP, args[0], types.intp, args[2], types.intp),
    (types.Array, types.Integer, types.Array, types.Integer),
)(_strip_at)


def _groups_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    memory = cgutils.alloca_once(builder, KEPT)
    groups = record_of(builder, GroupsType.llvm, *(builder.extract_value(args[0], i) for i in (0, 1)), memory)
    for i in range(2):
        builder.store(ir.Constant(WORDS, None), kept(builder, groups, LANE_SUMS, i))
    return groups


teach(strips.groups_at, lambda strip: (_GROUPS, strip), (StripType,))(_groups_at)
teach(strips.parts, lambda groups: (types.intp, groups), (GroupsType,))(lambda *_: I64(ROWS // PER))


# ---------------------------------------------------------------- what is kept for groups


def _put_scales(builder: Any, groups: Any, quads: list[Any], order: list[int]) -> Any:
    """Each lane's 16 bytes in this order, as int16, group after group."""
    words, octets = ir.VectorType(I32, ROWS), ir.VectorType(I8, QUAD)
    for k, value in enumerate(turned(builder, [builder.bitcast(q, words) for q in quads])):
        lanes = builder.bitcast(value, octets)  # k, k + 4, k + 8, k + 12
        for four in range(4 // PER):
            chosen = [16 * lane + at for lane in range(four, 4, 2)[:PER] for at in order]
            scales = builder.sext(shuffle(builder, lanes, lanes, chosen), SHORTS)
            builder.store(scales, kept(builder, groups, SCALES, 4 * four + k))


def _put_16_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """The 32 elements in a register have two scales, one of each half of a lane's."""
    _put_scales(builder, args[0], args[1:], EVEN_AND_ODD)
    return context.get_dummy_value()


def _put_8_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _put_scales(builder, args[0], [*args[1:], *args[1:]], [*range(16)])
    return context.get_dummy_value()


lower_builtin(products.put_16_scales, GroupsType, *(LanesType,) * 4)(_put_16_scales)
lower_builtin(products.put_8_scales, GroupsType, *(LanesType,) * 2)(_put_8_scales)


# ---------------------------------------------------------------- what belongs to lanes


def _put_factor(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    builder.store(args[2], kept(builder, args[0], FACTORS, args[1]))
    return context.get_dummy_value()


lower_builtin(products.put_factor, GroupsType, types.Integer, LanesType)(_put_factor)
lower_builtin(products.factor, GroupsType, types.Integer)(
    lambda context, builder, sig, args: builder.load(kept(builder, args[0], FACTORS, args[1]))
)


def _by_lane(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = offset(
        builder, builder.extract_value(args[1], 1), QUAD * (LOW + OF_DIGITS + sig.args[3].literal_value)
    )
    return sums_of(builder, [given(builder, place, FLOATS)])


lower_builtin(products.by_column, SumsType, StripType, LITERAL, LITERAL, types.Integer)(_by_lane)


def _put_pair(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Multiplied at once."""
    pair = pair_from(builder, sig.args[2], args[2], *(t.literal_value for t in sig.args[3:]))
    place = offset(builder, builder.extract_value(args[0], 1), times(builder, args[1], QUAD))
    total = kept(builder, args[0], LANE_SUMS, builder.and_(args[1], I64(1)))
    builder.store(
        add_pairs_of_shorts(builder, builder.load(total), pair, given(builder, place, OF_LANES)), total
    )
    return context.get_dummy_value()


lower_builtin(products.put_pair, GroupsType, types.Integer, LanesType, LITERAL, LITERAL, LITERAL)(_put_pair)


def pairs_by_lane(builder: Any, groups: Any) -> Any:
    """What `put_pair` added up."""
    return sums_of(builder, [builder.add(*_lane_sums(builder, groups))])


def _lane_sums(builder: Any, groups: Any) -> list[Any]:
    return [builder.load(kept(builder, groups, LANE_SUMS, i)) for i in range(2)]


def _put_quad(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Both digits are summed apart."""
    groups, i, value, _ = args
    first = builder.extract_value(groups, 1)
    for digit, registers in enumerate((HIGH, LOW)):
        before = registers + first_digit(sig.args[3].literal_value) // 4
        place = offset(builder, first, QUAD * before, times(builder, i, QUAD))
        total = kept(builder, groups, LANE_SUMS, digit)
        found = add_fours_by_lane(builder, builder.load(total), value, given(builder, place, WORDS))
        builder.store(found, total)
    return context.get_dummy_value()


lower_builtin(products.put_quad, GroupsType, types.Integer, LanesType, LITERAL)(_put_quad)
lower_builtin(products.dot_quads, SumsType, GroupsType, LITERAL, LITERAL, StripType, types.Integer)(
    lambda context, builder, sig, args: sums_of(builder, [two_digits(builder, *_lane_sums(builder, args[1]))])
)


# ---------------------------------------------------------------- products


def _put_terms(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value = builder.extract_value(args[2], 0)
    if PER == 2:
        value = shuffle(builder, value, value, [lane for k in range(HALF) for lane in (k, k + HALF)])
    store(builder, row_of(context, builder, sig.args[0], *args[:2]), value)
    return context.get_dummy_value()


teach(strips.no_terms, lambda sums: (SumsType("float32", 1), sums), (types.Array,))(
    lambda context, builder, sig, args: ir.Constant(sig.return_type.llvm, None)
)
teach(strips.put_terms, nothing, (types.Array, types.Integer, SumsType))(_put_terms)
