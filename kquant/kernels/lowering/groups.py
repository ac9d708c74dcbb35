"""Lowers `language.consecutive` further: the levels of one or two super-blocks, multiplied as they are read.

No bytes are transposed: a register holds 32 bytes of one super-block, or of each of two consecutive ones, and
is multiplied with the activations beside them.  Then the eight lanes of sums of each of sixteen super-blocks
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

from kquant.kernels.language import consecutive, packed, products, tiles
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.layout import ROWS, RUN, at
from kquant.kernels.lowering.consecutive import (
    ACC,
    EVEN_AND_ODD,
    GROUP,
    PER,
    SCALES,
    SHORTS,
    SUMS,
    ActivationsType,
    LanesTileType,
    given,
    kept,
    lane_sums,
)
from kquant.kernels.lowering.isa.facts import HAS_BYTE_DOTS, SUMS_BY_TURNS, TUNING
from kquant.kernels.lowering.isa.memory import before_loads
from kquant.kernels.lowering.lanes import LanesType, register
from kquant.kernels.lowering.products import SumsType, less, sums_of
from kquant.kernels.lowering.rows import LITERAL, BlockType, PrimitiveModel, nothing, record_of, times
from kquant.kernels.lowering.sums import add_fours_of_bytes, add_pairs_of_shorts, narrowed, pairs_of_bytes
from kquant.kernels.lowering.tiles import DotType, pairs_are_subtracted
from kquant.kernels.lowering.vectors import (
    I8,
    I16,
    I64,
    load,
    load_behind,
    offset,
    shuffle,
    spread_bytes,
    spread_scales,
    widened_once,
)

LARGEST = 63
"""The largest level: four times that times 128 fits 16 bits."""


class GroupRowsType(types.Type):
    """The Numba type of `group_rows`: where the first super-block is, and how far it is to the second."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I64])
    rows = PER

    def __init__(self, block_size: int) -> None:
        super().__init__(f"group rows of {block_size}")
        self.joins_in_words = block_size <= TUNING.joined_block_bytes


class GroupType(types.Type):
    """The Numba type of `group_at`: sums, 16 scales of each, products that wait for theirs, activations.

    Sums are added to by turns; where scales are put with the levels, one is faster.
    """

    def __init__(self, dot: BlockDot) -> None:
        super().__init__(f"group of {DotType(dot).name}")
        assert dot.scales is not None
        assert dot.largest <= LARGEST, "sums of four products fit 16 bits"
        self.dot, self.scales_with_levels = dot, dot.scales.with_levels
        self.chains = 1 if self.scales_with_levels else SUMS_BY_TURNS
        self.sums = ir.ArrayType(ACC, self.chains)
        kinds = self.sums, SHORTS, ACC, I8
        self.llvm = ir.LiteralStructType([kind.as_pointer() for kind in kinds])


for _kind in (GroupRowsType, GroupType):
    register_model(_kind)(PrimitiveModel)


# ---------------------------------------------------------------- which super-blocks


def _group_rows(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """One lane's, or those of two lanes that are half a tile apart."""
    block, _, lane = args
    first, step, half = (builder.extract_value(block, at) for at in range(3))
    place = offset(builder, first, builder.mul(lane, step))
    return record_of(builder, GroupRowsType.llvm, place, half)


register(
    consecutive.group_rows,
    lambda *args: (GroupRowsType(args[0].block_size), *args[:2], types.intp),
    (BlockType, LanesTileType, types.Integer),
)(_group_rows)


def _load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    n = sig.args[2].literal_value
    first, distance = (builder.extract_value(args[0], i) for i in (0, 1))
    place, kind = offset(builder, first, args[1]), ir.VectorType(I8, n)
    own = load(builder, place, kind)
    if PER == 1:
        return own
    second = offset(builder, place, distance)
    if sig.args[0].joins_in_words:
        return load_behind(builder, own, second)
    return shuffle(builder, own, load(builder, second, kind), range(2 * n))


lower_builtin(packed.load_bytes, GroupRowsType, types.Integer, LITERAL)(_load)


# ---------------------------------------------------------------- a group


def _group_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    out = sig.return_type
    own = [cgutils.alloca_once(builder, kind) for kind in (out.sums, SHORTS, ACC)]
    builder.store(ir.Constant(out.sums, None), own[0])
    builder.store(builder.load(kept(builder, args[0], SCALES, args[1])), own[1])
    q = offset(builder, builder.extract_value(args[0], 0), times(builder, args[1], GROUP.itemsize))
    return record_of(builder, out.llvm, *own, q)


register(
    consecutive.group_at,
    lambda *args: (GroupType(args[0].dot), args[0], types.intp),
    (LanesTileType, types.Integer),
)(_group_at)


def _add(builder: Any, sums: Any, i: Any, x: Any, y: Any) -> None:
    """To the sums by turns; the last has number -1."""
    chain = builder.and_(i, I64(sums.type.pointee.count - 1))
    place = builder.gep(sums, [I64(0), chain])
    builder.store(add_pairs_of_shorts(builder, builder.load(place), x, y), place)


def _scales_are_bytes(dot: BlockDot) -> bool:
    """Whether levels are multiplied with scales as they are stored, both without sign."""
    return not (dot.zero_point or (dot.scales and dot.scales.signed))


def _put_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """What the zero point makes of the activations is added at once: their sums are negative here.

    As bytes, twice each super-block's: for elements 0 .. 16 of each 32, and for the others.
    """
    group, value = args
    sums, place, _, q = (builder.extract_value(group, i) for i in range(4))
    dot = sig.args[0].dot
    if _scales_are_bytes(dot):
        order = [16 * k + i for k in range(PER) for i in [*range(16), *range(16)]]
        builder.store(builder.bitcast(shuffle(builder, value, value, order), SHORTS), place)
        return context.get_dummy_value()
    order = [16 * row + i for row in range(PER) for i in EVEN_AND_ODD]
    scales = widened_once(builder, builder.sext(shuffle(builder, value, value, order), SHORTS))
    builder.store(scales, place)
    if dot.zero_point:
        negative = offset(builder, q, at(GROUP, "negative"))
        found = given(builder, negative, ir.VectorType(I16, PER * RUN // 2))
        shift = ir.Constant(SHORTS, [dot.zero_point.bit_length() - 1] * SHORTS.count)
        _add(builder, sums, I64(-1), builder.shl(scales, shift), found)
    return context.get_dummy_value()


lower_builtin(tiles.put_scales, GroupType, LanesType)(_put_scales)

_Spread = Callable[[Any, Any, Any], Any]


def _put_levels(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """The levels times the activations, in pairs or fours; these times the scales, to the sums."""
    group, i, levels = args
    dot = sig.args[0].dot
    q = offset(builder, builder.extract_value(group, 3), times(builder, i, PER))
    activations = given(builder, q, ir.VectorType(I8, PER * RUN))
    as_bytes = dot.scales.with_levels and _scales_are_bytes(dot)
    spread = spread_bytes if as_bytes else spread_scales
    add = _add_fours if HAS_BYTE_DOTS else _add_pairs
    add(builder, group, builder.lshr(i, I64(5)), levels, activations, spread)
    return context.get_dummy_value()


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


lower_builtin(tiles.put_levels, GroupType, types.Integer, LanesType)(_put_levels)


def _put_group(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Where scales come with the levels, sums are finished before more is loaded."""
    kind = sig.args[2]
    sums = builder.load(builder.extract_value(args[2], 0))
    total = reduce(builder.add, [builder.extract_value(sums, i) for i in range(kind.chains)])
    if kind.scales_with_levels:
        total = before_loads(builder, total)
    builder.store(total, kept(builder, args[0], SUMS, args[1]))
    return context.get_dummy_value()


register(consecutive.put_group, nothing, (LanesTileType, types.Integer, GroupType))(_put_group)


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


def _integer_sums(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """The zero point is in the lanes' sums, or was taken off where the scales came with the levels."""
    tile, dot = args[1], sig.args[1].dot
    sums = summed(builder, tile)
    if not pairs_are_subtracted(dot) or dot.scales.with_levels:
        return sums
    return less(builder, sums, sums_of(builder, [builder.add(*lane_sums(builder, tile))]))


lower_builtin(products.integer_sums, SumsType, LanesTileType, ActivationsType, types.Integer)(_integer_sums)
