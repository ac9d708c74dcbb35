"""Lowers what of `language.products` for super-blocks that are multiplied as they are read.

No bytes are turned: a register holds 32 bytes of one super-block, or of each of two neighbours, and is
multiplied with the activations beside them.  Then the eight lanes of sums of each of sixteen super-blocks
become one.  Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.extending import register_model

from kquant.kernels.language import products, strips
from kquant.kernels.language.products import EVEN_AND_ODD, ROWS, SUPER_BLOCK
from kquant.kernels.lowering.isa.facts import HAS_BYTE_DOTS, SUMS_BY_TURNS, TUNING
from kquant.kernels.lowering.isa.memory import before_loads
from kquant.kernels.lowering.lanes import LanesType, teach
from kquant.kernels.lowering.products import SumsType, sums_of
from kquant.kernels.lowering.rows import LITERAL, BlockType, PrimitiveModel, nothing, record_of, times
from kquant.kernels.lowering.strips import (
    ACC,
    GIVEN,
    LONG,
    PER,
    SCALES,
    SHORTS,
    SUMS,
    GroupsType,
    StripType,
    given,
    kept,
)
from kquant.kernels.lowering.sums import add_fours_of_bytes, add_pairs_of_shorts, narrowed, pairs_of_bytes
from kquant.kernels.lowering.vectors import (
    I8,
    I16,
    I64,
    load,
    load_behind,
    offset,
    shuffle,
    spread_scales,
    widened_once,
)


class GroupRowsType(types.Type):
    """The Numba type of `rows_at`: where the first super-block is, and how far it is to the second."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I64])
    rows = PER

    def __init__(self, block_size: int) -> None:
        super().__init__(f"group rows of {block_size}")
        self.joins_in_words = block_size <= TUNING.joined_block_bytes


class GroupType(types.Type):
    """The Numba type of `part_at`: sums, 16 scales of each, products that wait for theirs, activations.

    Sums are added to by turns; where levels are unpacked alone, one is faster.
    """

    def __init__(self, is_alone: int) -> None:
        super().__init__("group alone" if is_alone else "group")
        self.is_alone, self.chains = bool(is_alone), 1 if is_alone else SUMS_BY_TURNS
        self.sums = ir.ArrayType(ACC, self.chains)
        kinds = self.sums, SHORTS, ACC, I8
        self.llvm = ir.LiteralStructType([kind.as_pointer() for kind in kinds])


for _kind in (GroupRowsType, GroupType):
    register_model(_kind)(PrimitiveModel)


# ---------------------------------------------------------------- which super-blocks


def _rows_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """One lane's, or those of two lanes that are half a tile apart."""
    block, _, lane = args
    first, step, half = (builder.extract_value(block, at) for at in range(3))
    place = offset(builder, first, builder.mul(lane, step))
    return record_of(builder, GroupRowsType.llvm, place, half)


teach(
    strips.rows_at,
    lambda *args: (GroupRowsType(args[0].block_size), *args[:2], types.intp),
    (BlockType, GroupsType, types.Integer),
)(_rows_at)


def _load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    count = sig.return_type.width
    first, distance = (builder.extract_value(args[0], at) for at in (0, 1))
    place, kind = offset(builder, first, args[1]), ir.VectorType(I8, count // PER)
    own = load(builder, place, kind)
    if PER == 1:
        return own
    second = offset(builder, place, distance)
    if sig.args[0].joins_in_words:
        return load_behind(builder, own, second)
    return shuffle(builder, own, load(builder, second, kind), range(count))


for _word in (products.load_bytes, products.load_long):
    lower_builtin(_word, GroupRowsType, types.Integer)(_load)


# ---------------------------------------------------------------- a group


def _part_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    out = sig.return_type
    own = [cgutils.alloca_once(builder, kind) for kind in (out.sums, SHORTS, ACC)]
    builder.store(ir.Constant(out.sums, None), own[0])
    builder.store(builder.load(kept(builder, args[0], SCALES, args[1])), own[1])
    q = offset(builder, builder.extract_value(args[0], 0), times(builder, args[1], GIVEN))
    return record_of(builder, out.llvm, *own, q)


teach(
    strips.part_at,
    lambda *args: (GroupType(args[2].literal_value), args[0], types.intp, args[2]),
    (GroupsType, types.Integer, LITERAL),
)(_part_at)


def _add(builder: Any, sums: Any, i: Any, x: Any, y: Any) -> None:
    """To the sums by turns; the last has number -1."""
    chain = builder.and_(i, I64(sums.type.pointee.count - 1))
    place = builder.gep(sums, [I64(0), chain])
    builder.store(add_pairs_of_shorts(builder, builder.load(place), x, y), place)


def _put_signed_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """What all levels are too large by is taken off at once: the sums of activations are negative here."""
    group, value = args
    sums, place, _, q = (builder.extract_value(group, i) for i in range(4))
    order = [16 * row + at for row in range(PER) for at in EVEN_AND_ODD]
    scales = widened_once(builder, builder.sext(shuffle(builder, value, value, order), SHORTS))
    builder.store(scales, place)
    found = given(builder, offset(builder, q, PER * SUPER_BLOCK), ir.VectorType(I16, PER * LONG // 2))
    shift = ir.Constant(SHORTS, [products.CENTER.bit_length() - 1] * SHORTS.count)
    _add(builder, sums, I64(-1), builder.shl(scales, shift), found)
    return context.get_dummy_value()


lower_builtin(products.put_signed_scales, GroupType, LanesType)(_put_signed_scales)


def _put_bytes(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    put_bytes_of_group(builder, *args)
    return context.get_dummy_value()


_Spread = Callable[[Any, Any, Any], Any]


def put_bytes_of_group(
    builder: Any, group: Any, at: Any, levels: Any, spread: _Spread = spread_scales
) -> None:
    """The levels times the activations, in pairs or fours; these times the scales, to the sums.

    spread: gives each of the products in register i, or in registers 2 i and 2 i + 1, its scale.
    """
    q = builder.extract_value(group, 3)
    both = given(builder, offset(builder, q, times(builder, at, PER)), ir.VectorType(I8, PER * LONG))
    (_add_fours if HAS_BYTE_DOTS else _add_pairs)(
        builder, group, builder.lshr(at, I64(5)), levels, both, spread
    )


def _add_pairs(builder: Any, part: Any, i: Any, levels: Any, x: Any, spread: _Spread) -> None:
    sums, scales = (builder.extract_value(part, k) for k in (0, 1))
    found = pairs_of_bytes(builder, levels, x)
    _add(builder, sums, i, found, spread(builder, builder.load(scales), i))


def _add_fours(builder: Any, part: Any, i: Any, levels: Any, x: Any, spread: _Spread) -> None:
    """Sums of four products fit 16 bits, too: those of two registers are scaled in one."""
    sums, scales, waiting = (builder.extract_value(part, k) for k in (0, 1, 2))
    found = add_fours_of_bytes(builder, levels, x)
    with builder.if_else(builder.trunc(i, ir.IntType(1))) as (second, first):
        with first:
            builder.store(found, waiting)
        with second:
            shorts = narrowed(builder, builder.load(waiting), found)
            pair = builder.lshr(i, I64(1))
            _add(builder, sums, pair, shorts, spread(builder, builder.load(scales), pair))


lower_builtin(products.put_bytes, GroupType, types.Integer, LanesType)(_put_bytes)


def _put_part(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    sums, chains = builder.load(builder.extract_value(args[2], 0)), sig.args[2].chains
    total = reduce(builder.add, [builder.extract_value(sums, i) for i in range(chains)])
    if sig.args[2].is_alone:
        total = before_loads(builder, total)
    builder.store(total, kept(builder, args[0], SUMS, args[1]))
    return context.get_dummy_value()


teach(strips.put_part, nothing, (GroupsType, types.Integer, GroupType))(_put_part)


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


def summed(builder: Any, tile: Any) -> Any:
    """A number for each super-block: the sum of its lanes in all registers."""
    groups = [builder.load(kept(builder, tile, SUMS, i)) for i in range(ROWS // PER)]
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
)(lambda context, builder, sig, args: summed(builder, args[1]))
