"""Lowers `language.tiles`: what all columns need of a block of each of sixteen rows, in memory.

Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin, lower_constant
from numba.core.typing.typeof import typeof_impl
from numba.extending import register_model

from kquant.kernels.language import products, tiles
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.layout import CENTER, MIDDLE, ROWS, at, tile
from kquant.kernels.lowering.isa.facts import HAS_BYTE_DOTS
from kquant.kernels.lowering.lanes import I32, LanesType, register
from kquant.kernels.lowering.rows import (
    QUAD,
    PrimitiveModel,
    in_array,
    lane_of,
    nothing,
    number_from,
    record_of,
    row_step,
    times,
)
from kquant.kernels.lowering.sums import dots
from kquant.kernels.lowering.vectors import I8, I16, WORDS, load, offset, shuffle, store

# ---------------------------------------------------------------- declarations and places


class DotType(types.Type):
    """The Numba type of a format's declaration, which is known when kernels are compiled."""

    def __init__(self, dot: BlockDot) -> None:
        declared = dot.partner.name, dot.largest, dot.zero_point, dot.scales, dot.minima, dot.offset
        super().__init__(name=f"products of {declared}")
        self.dot = dot


register_model(DotType)(models.OpaqueModel)
typeof_impl.register(BlockDot)(lambda dot, context: DotType(dot))
lower_constant(DotType)(lambda context, builder, kind, value: context.get_dummy_value())


class PlaceType(types.Type):
    """The Numba type of blocks of columns: where they are in memory."""

    llvm = I8.as_pointer()


class TileType(types.Type):
    """The Numba type of `tile_at`: where the tile is in memory."""

    llvm = I8.as_pointer()

    def __init__(self, dot: BlockDot) -> None:
        super().__init__(name=f"tile of {DotType(dot).name}")
        self.dot = dot


class ProductsType(types.Type):
    """The Numba type of `products_at`: where the tile is, and where the column's block."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I8.as_pointer()])

    def __init__(self, dot: BlockDot) -> None:
        super().__init__(name=f"products tile of {DotType(dot).name}")
        self.dot = dot


TILES = TileType, ProductsType
for _kind in (PlaceType, *TILES):
    register_model(_kind)(PrimitiveModel)
PLACE = PlaceType("place")


def row_of(context: Any, builder: Any, array_type: Any, array: Any, i: Any) -> Any:
    """A pointer to row i."""
    stride = row_step(context, builder, array_type, array)
    return in_array(context, builder, array_type, array, builder.mul(i, stride))


def _row(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return row_of(context, builder, sig.args[0], *args[:2])


register(
    products.tile_at,
    lambda *args: (TileType(args[2].dot), args[0], types.intp, args[2]),
    (types.Array, types.Integer, DotType),
)(_row)
register(products.columns_at, lambda *args: (PLACE, args[0], types.intp), (types.Array, types.Integer))(_row)


def _products_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return record_of(builder, ProductsType.llvm, _row(context, builder, sig, args), args[2])


register(
    products.products_at,
    lambda *args: (ProductsType(args[3].dot), args[0], types.intp, *args[2:]),
    (types.Array, types.Integer, PlaceType, DotType),
)(_products_at)


def in_tile(builder: Any, kind: Any, value: Any, field: str, *distances: Any) -> Any:
    """A pointer into a field of either kind of tile."""
    place = value if isinstance(kind, TileType) else builder.extract_value(value, 0)
    return offset(builder, place, at(tile(kind.dot.partner.block_size), field), *distances)


# ---------------------------------------------------------------- what a declaration means for levels


def folded_center(dot: BlockDot) -> int | None:
    """What has to be added to a level times its scale so that it is a byte without sign; None if none fits.

    Levels of two or three bits times a small scale fit a byte.  With byte dots, sums of products of bytes so
    run through all of a super-block, and nothing is scaled after every 16 elements.
    """
    scales = dot.scales
    if scales is None or scales.elements != 16:
        return None
    if not scales.signed and not dot.zero_point:
        return 0 if dot.largest * scales.largest <= 255 else None
    reach = max(dot.zero_point, dot.largest - dot.zero_point) * scales.largest
    return MIDDLE if reach <= 255 - MIDDLE else None


def pairs_are_subtracted(dot: BlockDot) -> bool:
    """Whether the zero point is taken off with the sums of the activations, times pairs of scales."""
    return bool(dot.zero_point and dot.scales)


def has_centers(dot: BlockDot) -> bool:
    """Whether sums of many columns begin with the columns' `centers` instead."""
    return (
        HAS_BYTE_DOTS
        and pairs_are_subtracted(dot)
        and (dot.zero_point == CENTER or folded_center(dot) is not None)
    )


# ---------------------------------------------------------------- levels


def _put_levels(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value, index, levels = args
    kind, dot = sig.args[0], sig.args[0].dot
    place = in_tile(builder, kind, value, "levels", times(builder, index, ROWS))
    center = folded_center(dot)
    if (
        center is None or not HAS_BYTE_DOTS
    ):  # without byte dots, sums of levels as they are fit 16 bits for longer
        store(builder, place, levels)
        return context.get_dummy_value()
    scales = in_tile(builder, kind, value, "scales", times(builder, index, QUAD // 16))
    words = builder.bitcast(levels, ir.VectorType(I32, levels.type.count // 4))
    for i in range(words.type.count // ROWS):
        four = shuffle(builder, words, words, range(i * ROWS, (i + 1) * ROWS))
        scale = load(builder, offset(builder, scales, QUAD * (i // 4)), WORDS)
        folded = _folded(builder, four, scale, dot.zero_point, center)
        store(builder, offset(builder, place, QUAD * i), folded)
    return context.get_dummy_value()


def _folded(builder: Any, levels: Any, scale: Any, zero_point: int, center: int) -> Any:
    """Four levels in 32 bits are multiplied in one: in the end no product leaves its byte."""

    def everywhere(number: int) -> Any:
        return ir.Constant(WORDS, [number * 0x01010101] * ROWS)

    if not center:
        return builder.mul(levels, scale)
    return builder.add(builder.mul(builder.sub(levels, everywhere(zero_point)), scale), everywhere(center))


def _multiply_levels(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Store the sums of the products of 16 elements, in the place of the levels."""
    value, index, levels = args
    kind = sig.args[0]
    words = builder.bitcast(levels, ir.VectorType(I32, levels.type.count // 4))
    quads = [
        shuffle(builder, words, words, range(first, first + ROWS))
        for first in range(0, words.type.count, ROWS)
    ]
    q = offset(builder, builder.extract_value(value, 1), index)
    place = in_tile(builder, kind, value, "products", times(builder, index, QUAD // 16))
    for i in range(0, len(quads), 4):
        (total,) = dots(builder, quads[i : i + 4], offset(builder, q, 4 * i), 1, 0, kind.dot.largest)
        store(builder, offset(builder, place, QUAD * i // 4), total)
    return context.get_dummy_value()


register(tiles.put_levels, nothing, (TileType, types.Integer, LanesType))(_put_levels)
lower_builtin(tiles.put_levels, ProductsType, types.Integer, LanesType)(_multiply_levels)


# ---------------------------------------------------------------- scales, minima, factors


def quads_of(builder: Any, kinds: Any, values: Any) -> list[tuple[Any, Any]]:
    """Type and value of four bytes of each row after the other."""
    return [
        (kind, shuffle(builder, value, value, range(first, first + QUAD)))
        for kind, value in zip(kinds, values, strict=True)
        for first in range(0, value.type.count, QUAD)
    ]


def pair_from(builder: Any, kind: Any, value: Any, j: int, shift: int) -> Any:
    """Bytes j and j + 1 of each row as int16, shifted left."""
    zeros, shorts = ir.Constant(value.type, None), ir.VectorType(I16, 2 * ROWS)
    order = [b for row in range(ROWS) for i in (j, j + 1) for b in (value.type.count, lane_of(i, row))]
    high = builder.bitcast(shuffle(builder, value, zeros, order), shorts)
    down = builder.ashr if kind.element == "int8" else builder.lshr
    return down(high, ir.Constant(shorts, [8 - shift] * (2 * ROWS)))


def zero_point_pairs(builder: Any, dot: BlockDot, quads: list[tuple[Any, Any]]) -> list[Any]:
    """Scales times the zero point, in pairs."""
    assert dot.scales is not None
    assert dot.scales.elements == 16
    shift = dot.zero_point.bit_length() - 1
    return [pair_from(builder, kind, quad, j, shift) for kind, quad in quads for j in (0, 2)]


def _put_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """As int32, which they multiply."""
    kind, value, dot = sig.args[0], args[0], sig.args[0].dot
    quads = quads_of(builder, sig.args[1:], args[1:])
    for j in range(4 * len(quads)):
        scale = number_from(builder, *quads[j // 4], j % 4, 8)
        store(builder, in_tile(builder, kind, value, "scales", QUAD * j), scale)
    if pairs_are_subtracted(dot) and not (isinstance(kind, TileType) and has_centers(dot)):
        for i, pair in enumerate(zero_point_pairs(builder, dot, quads)):
            store(builder, in_tile(builder, kind, value, "pairs", QUAD * i), pair)
    return context.get_dummy_value()


def _put_minima(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    for i, (_, quad) in enumerate(quads_of(builder, sig.args[1:], args[1:])):
        store(builder, in_tile(builder, sig.args[0], args[0], "minima", QUAD * i), quad)
    return context.get_dummy_value()


QUADS = [(LanesType,) * n for n in (1, 2, 4)]
"""The arguments of `put_scales` and `put_minima` behind the first."""
register(tiles.put_scales, nothing, *((kind, *quads) for kind in TILES for quads in QUADS))(_put_scales)
register(tiles.put_minima, nothing, *((kind, *quads) for kind in TILES for quads in QUADS))(_put_minima)


def _put_factor(i: int) -> Any:
    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        store(builder, in_tile(builder, sig.args[0], args[0], "factors", QUAD * i), args[1])
        return context.get_dummy_value()

    return lowering


for _i, _operation in enumerate((tiles.put_d, tiles.put_min)):
    register(_operation, nothing, *((kind, LanesType) for kind in TILES))(_put_factor(_i))


def _factor(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = in_tile(builder, sig.args[0], args[0], "factors", times(builder, args[1], QUAD))
    return load(builder, place, sig.return_type.llvm)


register(
    products.factor,
    lambda *args: (LanesType("float32", ROWS), args[0], types.intp),
    *((kind, types.Integer) for kind in TILES),
)(_factor)
