"""Lowers `language.consecutive`: what sixteen consecutive super-blocks have in a lane each.

Each super-block has activations of its own.  What is kept of them stays in registers, as far as LLVM has so
many.  Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.extending import register_model

from kquant.kernels.language import consecutive, products, tiles
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.layout import ROWS, RUN, at, group_of_blocks, lanes_of_column
from kquant.kernels.lowering.isa.facts import BLOCKS_PER_REGISTER
from kquant.kernels.lowering.lanes import I32, LanesType, register
from kquant.kernels.lowering.products import SumsType, first_digit, sums_of, two_digits
from kquant.kernels.lowering.rows import (
    LITERAL,
    QUAD,
    BlockType,
    PrimitiveModel,
    nothing,
    record_of,
    times,
    transposed,
)
from kquant.kernels.lowering.sums import add_fours_by_lane, add_pairs_of_shorts
from kquant.kernels.lowering.tiles import (
    QUADS,
    DotType,
    pairs_are_subtracted,
    quads_of,
    row_of,
    zero_point_pairs,
)
from kquant.kernels.lowering.vectors import HALF, I8, I16, I64, WORDS, load, offset, shuffle, store

PER = BLOCKS_PER_REGISTER
"""Super-blocks in a group: as many as have 32 bytes each in a register."""
ACC = ir.VectorType(I32, PER * RUN // 4)
SHORTS = ir.VectorType(I16, PER * RUN // 2)
GROUP = group_of_blocks(PER)
LANES_OF_COLUMN = lanes_of_column()
OF_LANES = ir.VectorType(I16, 2 * ROWS)
FLOATS = ir.VectorType(ir.FloatType(), ROWS)
KEPT = ir.LiteralStructType(
    [
        ir.ArrayType(SHORTS, ROWS // PER),
        ir.ArrayType(ACC, ROWS // PER),
        ir.ArrayType(WORDS, 2),
        ir.ArrayType(FLOATS, 2),
    ]
)
"""What is kept: of each group the scales and the sums, of all lanes two sums and the factors."""
SCALES, SUMS, LANE_SUMS, FACTORS = range(4)
EVEN_AND_ODD = [*range(0, 16, 2), *range(1, 16, 2)]
"""The order of 16 scales that puts those of the two halves of each 32 elements into halves of their own."""


class LanesTileType(types.Type):
    """The Numba type of `tile_for`: what `activations_at` has, and where `KEPT` is."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I8.as_pointer(), KEPT.as_pointer()])

    def __init__(self, dot: BlockDot) -> None:
        super().__init__(name=f"lanes of {DotType(dot).name}")
        self.dot = dot


class ActivationsType(types.Type):
    """The Numba type of `activations_at`: where those of the first group are, and what each lane has."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I8.as_pointer()])


for _kind in (LanesTileType, ActivationsType):
    register_model(_kind)(PrimitiveModel)
_ACTIVATIONS = ActivationsType("activations")


def kept(builder: Any, tile: Any, part: int, i: Any) -> Any:
    """A pointer to number i of a part of what is kept."""
    i = I64(i) if isinstance(i, int) else i
    return builder.gep(builder.extract_value(tile, 2), [I32(0), I32(part), i])


def given(builder: Any, place: Any, kind: Any) -> Any:
    """Activations: nothing that is stored meanwhile changes them."""
    value = load(builder, place, kind)
    value.set_metadata("invariant.load", builder.module.add_metadata([]))
    return value


def _of_lanes(builder: Any, tile_or_activations: Any, field: str, kind: Any, *distances: Any) -> Any:
    """A field of what each lane is multiplied with."""
    first = builder.extract_value(tile_or_activations, 1)
    return given(builder, offset(builder, first, at(LANES_OF_COLUMN, field), *distances), kind)


# ---------------------------------------------------------------- which super-blocks


def _consecutive_from(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """In the order of their lanes: the first of each group, then, where a group has two, the second."""
    w, row, position, _ = args
    size = I64(sig.args[3].literal_value)
    first = offset(builder, row_of(context, builder, sig.args[0], w, row), position)
    steps = [times(builder, size, n) for n in ((2, 1) if PER == 2 else (1, HALF))]
    return record_of(builder, BlockType.llvm, first, *steps)


register(
    consecutive.consecutive_from,
    lambda *args: (BlockType(args[3].literal_value), args[0], types.intp, types.intp, args[3]),
    (types.Array, types.Integer, types.Integer, LITERAL),
)(_consecutive_from)


def _activations_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    places = [row_of(context, builder, sig.args[i], args[i], args[i + 1]) for i in (0, 2)]
    return record_of(builder, ActivationsType.llvm, *places)


register(
    consecutive.activations_at,
    lambda *args: (_ACTIVATIONS, args[0], types.intp, args[2], types.intp),
    (types.Array, types.Integer, types.Array, types.Integer),
)(_activations_at)


def _tile_for(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    memory = cgutils.alloca_once(builder, KEPT)
    places = (builder.extract_value(args[0], i) for i in (0, 1))
    tile = record_of(builder, LanesTileType.llvm, *places, memory)
    for i in range(2):
        builder.store(ir.Constant(WORDS, None), kept(builder, tile, LANE_SUMS, i))
    return tile


register(
    consecutive.tile_for,
    lambda activations, dot: (LanesTileType(dot.dot), activations, dot),
    (ActivationsType, DotType),
)(_tile_for)
register(consecutive.n_groups, lambda tile: (types.intp, tile), (LanesTileType,))(lambda *_: I64(ROWS // PER))


# ---------------------------------------------------------------- what is kept for groups


def _put_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Each lane's 16 bytes, as int16, group after group; the zero point is multiplied at once.

    The 32 elements in a register have two scales of 16, one for each half of a lane's, or one.
    """
    tile, dot = args[0], sig.args[0].dot
    quads = quads_of(builder, sig.args[1:], args[1:])
    order = EVEN_AND_ODD if len(quads) == 4 else [*range(16)]
    words, octets = ir.VectorType(I32, ROWS), ir.VectorType(I8, QUAD)
    all_four = [builder.bitcast(quad, words) for _, quad in (quads if len(quads) == 4 else quads * 2)]
    for k, value in enumerate(transposed(builder, all_four)):
        lanes = builder.bitcast(value, octets)  # k, k + 4, k + 8, k + 12
        for four in range(4 // PER):
            chosen = [16 * lane + b for lane in range(four, 4, 2)[:PER] for b in order]
            scales = builder.sext(shuffle(builder, lanes, lanes, chosen), SHORTS)
            builder.store(scales, kept(builder, tile, SCALES, 4 * four + k))
    if pairs_are_subtracted(dot):
        for i, pair in enumerate(zero_point_pairs(builder, dot, quads)):
            total = kept(builder, tile, LANE_SUMS, i & 1)
            sums = _of_lanes(builder, tile, "sums", OF_LANES, QUAD * i)
            builder.store(add_pairs_of_shorts(builder, builder.load(total), pair, sums), total)
    return context.get_dummy_value()


for _quads in QUADS:
    lower_builtin(tiles.put_scales, LanesTileType, *_quads)(_put_scales)


# ---------------------------------------------------------------- what belongs to lanes


def _put_factor(i: int) -> Any:
    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], kept(builder, args[0], FACTORS, i))
        return context.get_dummy_value()

    return lowering


for _i, _operation in enumerate((tiles.put_d, tiles.put_min)):
    lower_builtin(_operation, LanesTileType, LanesType)(_put_factor(_i))
lower_builtin(products.factor, LanesTileType, types.Integer)(
    lambda context, builder, sig, args: builder.load(kept(builder, args[0], FACTORS, args[1]))
)


def _column_factor(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    distance = QUAD * sig.args[3].literal_value
    return sums_of(builder, [_of_lanes(builder, args[2], "factors", FLOATS, distance)])


lower_builtin(products.column_factor, SumsType, LanesTileType, ActivationsType, LITERAL, types.Integer)(
    _column_factor
)


def lane_sums(builder: Any, tile: Any) -> list[Any]:
    """The two sums of each lane."""
    return [builder.load(kept(builder, tile, LANE_SUMS, i)) for i in range(2)]


def _put_minima(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Both digits are summed apart."""
    tile, dot = args[0], sig.args[0].dot
    before = first_digit(dot) // 4
    for i, (_, quad) in enumerate(quads_of(builder, sig.args[1:], args[1:])):
        for digit, field in enumerate(("high", "low")):
            x = _of_lanes(builder, tile, field, WORDS, QUAD * (before + i))
            total = kept(builder, tile, LANE_SUMS, digit)
            builder.store(add_fours_by_lane(builder, builder.load(total), quad, x), total)
    return context.get_dummy_value()


for _quads in QUADS:
    lower_builtin(tiles.put_minima, LanesTileType, *_quads)(_put_minima)
lower_builtin(products.minima_sums, SumsType, LanesTileType, ActivationsType, types.Integer)(
    lambda context, builder, sig, args: sums_of(builder, [two_digits(builder, *lane_sums(builder, args[1]))])
)


# ---------------------------------------------------------------- products


def _put_terms(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value = builder.extract_value(args[2], 0)
    if PER == 2:
        value = shuffle(builder, value, value, [lane for k in range(HALF) for lane in (k, k + HALF)])
    store(builder, row_of(context, builder, sig.args[0], *args[:2]), value)
    return context.get_dummy_value()


register(consecutive.zero_terms, lambda memory: (SumsType("float32", 1), memory), (types.Array,))(
    lambda context, builder, sig, args: ir.Constant(sig.return_type.llvm, None)
)
register(consecutive.put_terms, nothing, (types.Array, types.Integer, SumsType))(_put_terms)
