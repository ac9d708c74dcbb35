"""Lowers the part of `language.packed` that reads packed rows.

Each of 16 rows has a lane of 4 bytes.  Imported by `kquant.kernels.compile` only, when the first kernel is
compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import models, register_model

from kquant.kernels.language import packed, products
from kquant.kernels.layout import ROWS
from kquant.kernels.lowering.isa.memory import prefetch
from kquant.kernels.lowering.isa.tuning import FIRST_LEVEL, SECOND_LEVEL
from kquant.kernels.lowering.lanes import I32, LanesType, register
from kquant.kernels.lowering.vectors import HALF, I8, I16, I64, WORDS, load, offset, shuffle

LITERAL = types.IntegerLiteral
QUAD = 4 * ROWS
"""Bytes of a register that holds 4 of each row."""


class BlockType(types.Type):
    """The Numba type of `block_from`: where the first row's block is, and the distances between them.

    From one row to the next, and from the first half's rows to the second's.
    """

    llvm = ir.LiteralStructType([I8.as_pointer(), I64, I64])
    rows = ROWS

    def __init__(self, block_size: int = 0) -> None:
        super().__init__(f"block of {block_size}" if block_size else "block")
        self.block_size = block_size


@register_model(BlockType)
class PrimitiveModel(models.PrimitiveModel):  # type: ignore[misc]
    """Of all types that say what they are to LLVM."""

    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


# ---------------------------------------------------------------- what every lowering needs


def in_array(context: Any, builder: Any, array_type: Any, array: Any, *distances: Any) -> Any:
    """A pointer so many bytes into an array."""
    data = context.make_array(array_type)(context, builder, array).data
    return offset(builder, builder.bitcast(data, I8.as_pointer()), *distances)


def times(builder: Any, value: Any, factor: int) -> Any:
    """An integer times a constant."""
    return builder.mul(value, ir.Constant(value.type, factor))


def record_of(builder: Any, kind: Any, *values: Any) -> Any:
    """A structure of these values."""
    record = ir.Constant(kind, ir.Undefined)
    for i, value in enumerate(values):
        record = builder.insert_value(record, value, i)
    return record


def row_step(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Bytes from one row to the next."""
    strides = context.make_array(array_type)(context, builder, array).strides
    return builder.extract_value(strides, 0)


def nothing(*args: Any) -> Any:
    """The type of a function that stores, and takes its integers as indices."""
    return types.none, *(types.intp if type(t) is types.Integer else t for t in args)


# ---------------------------------------------------------------- blocks


def _block_from(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    w, row, at = args[:3]
    stride = row_step(context, builder, sig.args[0], w)
    first = in_array(context, builder, sig.args[0], w, builder.mul(row, stride), at)
    return record_of(builder, BlockType.llvm, first, stride, times(builder, stride, HALF))


register(
    products.block_from,
    lambda *args: (BlockType(), args[0], types.intp, types.intp, args[3]),
    (types.Array, types.Integer, types.Integer, LITERAL),
)(_block_from)


def _row_pointers(builder: Any, block: Any, at: Any) -> list[Any]:
    """To this byte of each row: four by four, so far as an address reaches without being computed."""
    first, stride, half = (builder.extract_value(block, k) for k in range(3))
    halves = [offset(builder, first, at), offset(builder, first, at, half)]
    fours = [offset(builder, h, times(builder, stride, 4 * k)) for h in halves for k in range(2)]
    return [offset(builder, four, times(builder, stride, k)) for four in fours for k in range(4)]


def _joined(builder: Any, vectors: Sequence[Any]) -> Any:
    """2**k vectors as one."""
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [shuffle(builder, low, high, range(2 * low.type.count)) for low, high in pairs]
    return vectors[0]


def _load_16(builder: Any, block: Any, at: Any) -> Any:
    """16 bytes of each row, transposed: register i holds bytes 4i .. 4i + 4 of all rows."""
    rows = [load(builder, pointer, ir.VectorType(I32, 4)) for pointer in _row_pointers(builder, block, at)]
    words = transposed(builder, [_joined(builder, rows[k::4]) for k in range(4)])
    return builder.bitcast(_joined(builder, words), ir.VectorType(I8, 16 * ROWS))


def transposed(builder: Any, rows: Sequence[Any]) -> list[Any]:
    """The transpose of the 4 x 4 words in each quarter of four registers."""

    def merged(a: Any, b: Any, lanes: Sequence[int]) -> Any:
        return shuffle(
            builder, a, b, [4 * k + lane % 4 + lane // 4 * ROWS for k in range(4) for lane in lanes]
        )

    low = [merged(rows[k], rows[k + 1], (0, 4, 1, 5)) for k in (0, 2)]
    high = [merged(rows[k], rows[k + 1], (2, 6, 3, 7)) for k in (0, 2)]
    return [merged(a, b, lanes) for a, b in (low, high) for lanes in ((0, 1, 4, 5), (2, 3, 6, 7))]


def _load_quad(builder: Any, block: Any, at: Any) -> Any:
    words = ir.Constant(WORDS, ir.Undefined)
    for row, pointer in enumerate(_row_pointers(builder, block, at)):
        words = builder.insert_element(words, load(builder, pointer, I32), I32(row))
    return builder.bitcast(words, ir.VectorType(I8, QUAD))


def _load_bytes(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    block, at, _ = args
    n = sig.args[2].literal_value
    if n == 4:
        return _load_quad(builder, block, at)
    parts = [_load_16(builder, block, builder.add(at, I64(first))) for first in range(0, n, 16)]
    return _joined(builder, parts)


register(
    packed.load_bytes,
    lambda *args: (LanesType("uint8", args[2].literal_value * args[0].rows), args[0], types.intp, args[2]),
    (BlockType, types.Integer, LITERAL),
)(_load_bytes)


def _prefetch(level: int) -> Callable[..., Any]:
    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        prefetch(builder, builder.extract_value(_block_from(context, builder, sig, args), 0), level)
        return context.get_dummy_value()

    return lowering


for _operation, _level in ((products.prefetch, SECOND_LEVEL), (products.prefetch_next, FIRST_LEVEL)):
    register(_operation, nothing, (types.Array, types.Integer, types.Integer))(_prefetch(_level))


def _load_short(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Four by four in registers for addresses: the others have more to do."""
    shorts = [builder.zext(load(builder, pointer, I16), I64) for pointer in _row_pointers(builder, *args)]
    value = ir.Constant(ir.VectorType(I64, 4), ir.Undefined)
    for i in range(4):
        moved = [builder.shl(short, I64(16 * k)) for k, short in enumerate(shorts[4 * i : 4 * i + 4])]
        value = builder.insert_element(value, reduce(builder.or_, moved), I32(i))
    return builder.zext(builder.bitcast(value, ir.VectorType(I16, ROWS)), WORDS)


register(
    packed.load_short,
    lambda *args: (LanesType("int32", ROWS), args[0], types.intp),
    (BlockType, types.Integer),
)(_load_short)


def _quad_type(*args: Any) -> Any:
    return LanesType(args[0].element, QUAD), *args


def lane_of(i: int, row: int) -> int:
    """Where byte i of a row is."""
    return i // 4 * QUAD + 4 * row + i % 4


def quad_of(builder: Any, value: Any, i: int) -> Any:
    """The register with byte i of each row."""
    return shuffle(builder, value, value, range(i // 4 * QUAD, (i // 4 + 1) * QUAD))


def _quad(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return quad_of(builder, args[0], 4 * sig.args[1].literal_value)


register(packed.quad, _quad_type, (LanesType, types.IntegerLiteral))(_quad)
register(packed.signed, lambda value: (LanesType("int8", value.width), value), (LanesType,))(
    lambda context, builder, sig, args: args[0]
)


def number_from(builder: Any, kind: Any, value: Any, i: int, bits: int) -> Any:
    """So many bits from byte i of each row on, as int32."""
    words = builder.bitcast(quad_of(builder, value, i), WORDS)
    top = builder.shl(words, ir.Constant(WORDS, [32 - bits - 8 * (i % 4)] * ROWS))
    shift = builder.ashr if kind.element == "int8" else builder.lshr
    return shift(top, ir.Constant(WORDS, [32 - bits] * ROWS))


def _short_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return number_from(builder, sig.args[0], args[0], sig.args[1].literal_value, 16)


register(
    packed.short_at,
    lambda *args: (LanesType("int32", ROWS), *args),
    (LanesType, types.IntegerLiteral),
)(_short_at)
