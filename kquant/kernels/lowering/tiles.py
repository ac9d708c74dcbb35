"""Lowers what of `language.products` that writes tiles: what all columns need of a block.

Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_builtin
from numba.extending import register_model

from kquant.kernels.language import products
from kquant.kernels.language.products import ROWS
from kquant.kernels.lowering.lanes import I32, LanesType, teach
from kquant.kernels.lowering.rows import (
    LITERAL,
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
from kquant.kernels.lowering.vectors import I8, I16, offset, shuffle, store


class PlaceType(types.Type):
    """The Numba type of tiles and columns: where they are in memory."""

    llvm = I8.as_pointer()


class ProductsType(types.Type):
    """The Numba type of `products_at`: where the tile is, and where the column's block."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I8.as_pointer()])


TILES = PlaceType, ProductsType
for _tile in TILES:
    register_model(_tile)(PrimitiveModel)
_PLACE, _PRODUCTS = PlaceType("place"), ProductsType("products")

FACTORS, PAIRS = 0, products.FACTORS * QUAD
QUADS = PAIRS + products.PAIRS * QUAD
SCALES = QUADS + products.QUADS * QUAD
LEVELS = SCALES + products.SCALES * QUAD
"""Where a tile has its parts; the largest is the last."""


def row_of(context: Any, builder: Any, array_type: Any, array: Any, i: Any) -> Any:
    """A pointer to row i."""
    stride = row_step(context, builder, array_type, array)
    return in_array(context, builder, array_type, array, builder.mul(i, stride))


_word: Any
for _word in (products.tile_at, products.columns_at):
    teach(_word, lambda *args: (_PLACE, args[0], types.intp), (types.Array, types.Integer))(
        lambda context, builder, sig, args: row_of(context, builder, sig.args[0], *args)
    )


def _products_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = row_of(context, builder, sig.args[0], *args[:2])
    return record_of(builder, ProductsType.llvm, place, args[2])


teach(
    products.products_at,
    lambda *args: (_PRODUCTS, args[0], types.intp, args[2]),
    (types.Array, types.Integer, PlaceType),
)(_products_at)


def in_tile(builder: Any, tile: Any, part: int, *distances: Any) -> Any:
    """A pointer into either kind of tile."""
    place = tile if tile.type == PlaceType.llvm else builder.extract_value(tile, 0)
    return offset(builder, place, part, *distances)


def _put(part: int, size: int) -> Callable[..., Any]:
    """Store a vector at an index that counts so many bytes."""

    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        store(builder, in_tile(builder, args[0], part, times(builder, args[1], size)), args[2])
        return context.get_dummy_value()

    return lowering


def multiply_levels(builder: Any, tile: Any, at: Any, value: Any, top: int) -> None:
    """Store the sums of the products of 16 elements, in the place of the first levels."""
    words = builder.bitcast(value, ir.VectorType(I32, value.type.count // 4))
    quads = [
        shuffle(builder, words, words, range(first, first + ROWS))
        for first in range(0, words.type.count, ROWS)
    ]
    q = offset(builder, builder.extract_value(tile, 1), at)
    place = in_tile(builder, tile, LEVELS, times(builder, at, QUAD // 16))
    for i in range(0, len(quads), 4):
        (total,) = dots(builder, quads[i : i + 4], offset(builder, q, 4 * i), 1, 0, top)
        store(builder, offset(builder, place, QUAD * i // 4), total)


def _multiply(top: int) -> Callable[..., Any]:
    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tile, at, value = args
        multiply_levels(builder, tile, at, value, top)
        return context.get_dummy_value()

    return lowering


for _word, _top in ((products.put_bytes, 63), (products.put_large_bytes, 255)):
    teach(_word, nothing, (PlaceType, types.Integer, LanesType))(_put(LEVELS, ROWS))
    lower_builtin(_word, ProductsType, types.Integer, LanesType)(_multiply(_top))
teach(products.put_factor, nothing, *((tile, types.Integer, LanesType) for tile in TILES))(
    _put(FACTORS, QUAD)
)


def _put_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """As int32, which they multiply."""
    for j in range(4 * (len(args) - 1)):
        value = number_from(builder, sig.args[1], args[1 + j // 4], j % 4, 8)
        store(builder, in_tile(builder, args[0], SCALES + QUAD * j), value)
    return context.get_dummy_value()


for _tile in TILES:
    teach(products.put_16_scales, nothing, (_tile, *(LanesType,) * 4))(_put_scales)
    teach(products.put_8_scales, nothing, (_tile, *(LanesType,) * 2))(_put_scales)


def pair_from(builder: Any, kind: Any, value: Any, j: int, k: int, shift: int) -> Any:
    """Two bytes of each row become the upper halves of 16 bits, and then go down as far as they shall."""
    nothing, shorts = ir.Constant(value.type, None), ir.VectorType(I16, 2 * ROWS)
    order = [at for row in range(ROWS) for i in (j, k) for at in (value.type.count, lane_of(i, row))]
    high = builder.bitcast(shuffle(builder, value, nothing, order), shorts)
    down = builder.ashr if kind.element == "int8" else builder.lshr
    return down(high, ir.Constant(shorts, [8 - shift] * (2 * ROWS)))


def _put_pair(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pair = pair_from(builder, sig.args[2], args[2], *(t.literal_value for t in sig.args[3:]))
    store(builder, in_tile(builder, args[0], PAIRS, times(builder, args[1], QUAD)), pair)
    return context.get_dummy_value()


def _put_signed_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    tile, value = args
    _put_scales_side_by_side(builder, sig.args[1], tile, value)
    for i in range(8):
        pair = pair_from(builder, sig.args[1], value, 2 * i, 2 * i + 1, products.CENTER.bit_length() - 1)
        store(builder, in_tile(builder, tile, PAIRS + QUAD * i), pair)
    return context.get_dummy_value()


def _put_small_scales(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _put_scales_side_by_side(builder, sig.args[1], *args)
    return context.get_dummy_value()


def _put_scales_side_by_side(builder: Any, kind: Any, tile: Any, value: Any) -> None:
    """The 16 that lie side by side."""
    for j in range(16):
        scale = number_from(builder, kind, value, j, 8)
        store(builder, in_tile(builder, tile, SCALES + QUAD * j), scale)


def _put_quad(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    store(builder, in_tile(builder, args[0], QUADS, times(builder, args[1], QUAD)), args[2])
    return context.get_dummy_value()


_NUMBERS = (LITERAL, LITERAL, LITERAL)
teach(products.put_pair, nothing, *((tile, types.Integer, LanesType, *_NUMBERS) for tile in TILES))(_put_pair)
teach(products.put_quad, nothing, *((tile, types.Integer, LanesType, LITERAL) for tile in TILES))(_put_quad)
teach(products.put_signed_scales, nothing, *((tile, LanesType) for tile in TILES))(_put_signed_scales)
teach(products.put_small_scales, nothing, *((tile, LanesType) for tile in TILES))(_put_small_scales)
