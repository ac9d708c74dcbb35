"""Teaches Numba the part of `kquant.kernels.products` that reads packed rows and writes tiles.

Each of 16 rows has a lane of 4 bytes.  Imported by `kquant.kernels.jit` only, when the first kernel is
compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_builtin
from numba.extending import models, register_model

from kquant.kernels import products
from kquant.kernels.products import ROWS
from kquant.kernels.simd import I32, LanesType, teach
from kquant.kernels.simd_memory import SECOND_LEVEL, fetch_line
from kquant.kernels.simd_sums import (
    HAS_GFNI,
    I8,
    I16,
    I64,
    WORDS,
    dots,
    load,
    move_bits,
    offset,
    shuffle,
    store,
)

__all__ = [
    *("LEVELS", "FACTORS", "PAIRS", "QUAD", "SCALES", "TILES"),
    *("PlaceType", "ProductsType", "PrimitiveModel", "in_array", "in_tile", "nothing", "row_step", "times"),
]

LITERAL = types.IntegerLiteral
QUAD = 4 * ROWS
"""Bytes of a register that holds 4 of each row."""


class BlockType(types.Type):
    """The Numba type of `block_from`: where the first row's block is, and how far it is to the next row's."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I64])
    rows = ROWS


class PlaceType(types.Type):
    """The Numba type of tiles and columns: where they are in memory."""

    llvm = I8.as_pointer()


class ProductsType(types.Type):
    """The Numba type of `products_at`: where the tile is, and where the column's block."""

    llvm = ir.LiteralStructType([I8.as_pointer(), I8.as_pointer()])


class GroupsType(types.Type):
    """The Numba type of `groups_at`: the same."""

    llvm = ProductsType.llvm


@register_model(BlockType)
@register_model(PlaceType)
@register_model(ProductsType)
@register_model(GroupsType)
class PrimitiveModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


_PLACE, _PRODUCTS, _GROUPS = PlaceType("place"), ProductsType("products"), GroupsType("groups")
TILES = PlaceType, ProductsType, GroupsType


def in_array(context: Any, builder: Any, array_type: Any, array: Any, *distances: Any) -> Any:
    """A pointer so many bytes into an array."""
    data = context.make_array(array_type)(context, builder, array).data
    return offset(builder, builder.bitcast(data, I8.as_pointer()), *distances)


def times(builder: Any, value: Any, factor: int) -> Any:
    """An integer times a constant."""
    return builder.mul(value, ir.Constant(value.type, factor))


def pair_of(builder: Any, kind: Any, first: Any, second: Any) -> Any:
    """A structure of two values."""
    both = builder.insert_value(ir.Constant(kind, ir.Undefined), first, 0)
    return builder.insert_value(both, second, 1)


def row_step(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Bytes from one row to the next."""
    strides = context.make_array(array_type)(context, builder, array).strides
    return builder.extract_value(strides, 0)


def nothing(*args: Any) -> Any:
    """The type of a function that stores, and takes its integers as indices."""
    return types.none, *(types.intp if type(t) is types.Integer else t for t in args)


# ---------------------------------------------------------------- packed rows


def _block_from(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    w, row, at = args
    stride = row_step(context, builder, sig.args[0], w)
    first = in_array(context, builder, sig.args[0], w, builder.mul(row, stride), at)
    return pair_of(builder, BlockType.llvm, first, stride)


teach(
    products.block_from,
    lambda *args: (BlockType("block"), args[0], types.intp, types.intp),
    (types.Array, types.Integer, types.Integer),
)(_block_from)


def _row_pointers(builder: Any, block: Any, at: Any) -> list[Any]:
    """To this byte of each row: four by four, so far as an address reaches without being computed."""
    first, stride = (builder.extract_value(block, k) for k in (0, 1))
    fours = [offset(builder, first, at, times(builder, stride, 4 * k)) for k in range(ROWS // 4)]
    return [offset(builder, four, times(builder, stride, k)) for four in fours for k in range(4)]


def _joined(builder: Any, vectors: Sequence[Any]) -> Any:
    """2**k vectors as one."""
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [shuffle(builder, low, high, range(2 * low.type.count)) for low, high in pairs]
    return vectors[0]


def _load_bytes(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """16 bytes of each row, turned: register i holds bytes 4i .. 4i + 4 of all rows."""
    rows = [load(builder, pointer, ir.VectorType(I32, 4)) for pointer in _row_pointers(builder, *args)]
    words = turned(builder, [_joined(builder, rows[k::4]) for k in range(4)])
    return builder.bitcast(_joined(builder, words), ir.VectorType(I8, 16 * ROWS))


def turned(builder: Any, rows: Sequence[Any]) -> list[Any]:
    """The transpose of the 4 x 4 words in each quarter of four registers."""

    def merged(a: Any, b: Any, lanes: Sequence[int]) -> Any:
        return shuffle(
            builder, a, b, [4 * k + lane % 4 + lane // 4 * ROWS for k in range(4) for lane in lanes]
        )

    low = [merged(rows[k], rows[k + 1], (0, 4, 1, 5)) for k in (0, 2)]
    high = [merged(rows[k], rows[k + 1], (2, 6, 3, 7)) for k in (0, 2)]
    return [merged(a, b, lanes) for a, b in (low, high) for lanes in ((0, 1, 4, 5), (2, 3, 6, 7))]


teach(
    products.load_bytes,
    lambda *args: (LanesType("uint8", 16 * args[0].rows), args[0], types.intp),
    (BlockType, types.Integer),
)(_load_bytes)


def _load_long(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    halves = [_load_bytes(context, builder, sig, [args[0], builder.add(args[1], I64(at))]) for at in (0, 16)]
    return _joined(builder, halves)


teach(
    products.load_long,
    lambda *args: (LanesType("uint8", 32 * args[0].rows), args[0], types.intp),
    (BlockType, types.Integer),
)(_load_long)


def _fetch(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    first = builder.extract_value(_block_from(context, builder, sig, args), 0)
    for distance in range(0, products.FETCHED, 64):
        fetch_line(builder, offset(builder, first, distance), SECOND_LEVEL)
    return context.get_dummy_value()


teach(products.fetch, nothing, (types.Array, types.Integer, types.Integer))(_fetch)


def _quad_type(*args: Any) -> Any:
    return LanesType(args[0].element, QUAD), *args


def _lane(i: int, row: int) -> int:
    """Where byte i of a row is."""
    return i // 4 * QUAD + 4 * row + i % 4


def _quad_of(builder: Any, value: Any, i: int) -> Any:
    """The register with byte i of each row."""
    return shuffle(builder, value, value, range(i // 4 * QUAD, (i // 4 + 1) * QUAD))


def _quad(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _quad_of(builder, args[0], 4 * sig.args[1].literal_value)


teach(products.quad, _quad_type, (LanesType, types.IntegerLiteral))(_quad)
teach(products.signed, lambda value: (LanesType("int8", value.width), value), (LanesType,))(
    lambda context, builder, sig, args: args[0]
)


def _moved(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value = args[0]
    first, n, to = (t.literal_value for t in sig.args[1:])

    def by(emit: Any, x: Any, distance: int) -> Any:
        return emit(x, ir.Constant(x.type, [distance] * x.type.count)) if distance else x

    if HAS_GFNI and value.type.count % 64 == 0:
        return move_bits(builder, value, first, n, to)
    there = by(builder.lshr, value, first - to) if first > to else by(builder.shl, value, to - first)
    return by(builder.and_, there, ((1 << n) - 1) << to)


teach(
    products.moved,
    lambda *args: args[:1] + args,
    (LanesType, types.IntegerLiteral, types.IntegerLiteral, types.IntegerLiteral),
)(_moved)


def _bits_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Each byte with 8 of the bits is repeated, and of each copy one bit looked at."""
    at, worth = (t.literal_value for t in sig.args[1:])
    out = sig.return_type.llvm
    bits = [bit for first in range(at, at + 16, 4) for bit in ROWS * list(range(first, first + 4))]
    order = [_lane(bit // 8, k // 4 % ROWS) for k, bit in enumerate(bits)]
    masks = [1 << bit % 8 for bit in bits]
    copies = shuffle(builder, args[0], args[0], order)
    some = builder.icmp_unsigned("!=", builder.and_(copies, ir.Constant(out, masks)), ir.Constant(out, None))
    return builder.select(some, ir.Constant(out, [worth] * out.count), ir.Constant(out, None))


teach(
    products.bits_at,
    lambda *args: (LanesType("uint8", 16 * ROWS), *args),
    (LanesType, types.IntegerLiteral, types.IntegerLiteral),
)(_bits_at)


def _number(builder: Any, kind: Any, value: Any, i: int, bits: int) -> Any:
    """So many bits from byte i of each row on, as int32."""
    words = builder.bitcast(_quad_of(builder, value, i), WORDS)
    top = builder.shl(words, ir.Constant(WORDS, [32 - bits - 8 * (i % 4)] * ROWS))
    shift = builder.ashr if kind.element == "int8" else builder.lshr
    return shift(top, ir.Constant(WORDS, [32 - bits] * ROWS))


def _short_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _number(builder, sig.args[0], args[0], sig.args[1].literal_value, 16)


teach(
    products.short_at,
    lambda *args: (LanesType("int32", ROWS), *args),
    (LanesType, types.IntegerLiteral),
)(_short_at)


# ---------------------------------------------------------------- what is kept of a block for all columns

FACTORS, PAIRS = 0, products.FACTORS * QUAD
SCALES = PAIRS + products.PAIRS * QUAD
LEVELS = SCALES + products.SCALES * QUAD
"""Where a tile has its parts; the largest is the last."""


def _in_memory(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    stride = row_step(context, builder, sig.args[0], args[0])
    return in_array(context, builder, sig.args[0], args[0], builder.mul(args[1], stride))


_word: Any
for _word in (products.tile_at, products.columns_at):
    teach(_word, lambda *args: (_PLACE, args[0], types.intp), (types.Array, types.Integer))(_in_memory)


def _for_column(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return pair_of(builder, sig.return_type.llvm, _in_memory(context, builder, sig, args[:2]), args[2])


for _word, _kind in ((products.products_at, _PRODUCTS), (products.groups_at, _GROUPS)):
    teach(
        _word,
        lambda *args, kind=_kind: (kind, args[0], types.intp, args[2]),
        (types.Array, types.Integer, PlaceType),
    )(_for_column)


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


def _multiply(top: int) -> Callable[..., Any]:
    """Store the sums of the products of 16 elements, in the place of the first levels."""

    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tile, at, value = args
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
        value = _number(builder, sig.args[1], args[1 + j // 4], j % 4, 8)
        store(builder, in_tile(builder, args[0], SCALES + QUAD * j), value)
    return context.get_dummy_value()


for _tile in (PlaceType, ProductsType):
    teach(products.put_16_scales, nothing, (_tile, *(LanesType,) * 4))(_put_scales)
    teach(products.put_8_scales, nothing, (_tile, *(LanesType,) * 2))(_put_scales)


def _pair(builder: Any, kind: Any, value: Any, j: int, k: int, shift: int) -> Any:
    """Two bytes of each row become the upper halves of 16 bits, and then go down as far as they shall."""
    nothing, shorts = ir.Constant(value.type, None), ir.VectorType(I16, 2 * ROWS)
    order = [at for row in range(ROWS) for i in (j, k) for at in (value.type.count, _lane(i, row))]
    high = builder.bitcast(shuffle(builder, value, nothing, order), shorts)
    down = builder.ashr if kind.element == "int8" else builder.lshr
    return down(high, ir.Constant(shorts, [8 - shift] * (2 * ROWS)))


def _put_pair(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pair = _pair(builder, sig.args[2], args[2], *(t.literal_value for t in sig.args[3:]))
    store(builder, in_tile(builder, args[0], PAIRS, times(builder, args[1], QUAD)), pair)
    return context.get_dummy_value()


def _put_scales_and_excess(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    tile, value, _ = args
    kind, excess = sig.args[1], sig.args[2].literal_value
    for j in range(16):
        store(builder, in_tile(builder, tile, SCALES + QUAD * j), _number(builder, kind, value, j, 8))
    for i in range(8 if excess else 0):
        pair = _pair(builder, kind, value, 2 * i, 2 * i + 1, excess.bit_length() - 1)
        store(builder, in_tile(builder, tile, PAIRS + QUAD * i), pair)
    return context.get_dummy_value()


def _put_same(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value = ir.Constant(ir.VectorType(I16, 2 * ROWS), [sig.args[1].literal_value] * (2 * ROWS))
    store(builder, in_tile(builder, args[0], PAIRS), value)
    return context.get_dummy_value()


_NUMBERS = (LITERAL, LITERAL, LITERAL)
teach(products.put_pair, nothing, *((tile, types.Integer, LanesType, *_NUMBERS) for tile in TILES))(_put_pair)
teach(products.put_same, nothing, *((tile, LITERAL) for tile in TILES))(_put_same)
teach(products.put_scales, nothing, *((tile, LanesType, LITERAL) for tile in (PlaceType, ProductsType)))(
    _put_scales_and_excess
)
