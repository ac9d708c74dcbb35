"""Lowers what of `language.products` that multiplies tiles with columns.

Sums are a vector of rows for each column.  Imported by `kquant.kernels.compile` only, when the first kernel
is compiled.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.extending import register_model

from kquant.kernels.language import lanes, products
from kquant.kernels.language.products import BLOCK, ROWS, SUPER_BLOCK
from kquant.kernels.lowering.isa.facts import COLUMNS_IN_REGISTERS, COLUMNS_LEFT, HAS_BYTE_DOTS
from kquant.kernels.lowering.lanes import LanesType, teach
from kquant.kernels.lowering.rows import (
    LITERAL,
    QUAD,
    PrimitiveModel,
    in_array,
    nothing,
    row_step,
    times,
)
from kquant.kernels.lowering.sums import add_dots, add_scaled, dots, pair_dots
from kquant.kernels.lowering.tiles import (
    FACTORS,
    LEVELS,
    PAIRS,
    QUADS,
    SCALES,
    TILES,
    PlaceType,
    ProductsType,
    in_tile,
)
from kquant.kernels.lowering.vectors import I64, WORDS, everywhere, load, offset, store


class SumsType(types.Type):
    """The Numba type of sums: for each column a vector of rows."""

    def __init__(self, element: str, columns: int) -> None:
        super().__init__(name=f"{element}x{ROWS}x{columns}")
        self.element, self.columns, self.of_rows = element, columns, LanesType(element, ROWS)
        self.llvm = ir.ArrayType(self.of_rows.llvm, columns)


register_model(SumsType)(PrimitiveModel)


# ---------------------------------------------------------------- sums as vectors


def _columns_of(builder: Any, sums: Any) -> list[Any]:
    return [builder.extract_value(sums, c) for c in range(sums.type.count)]


def sums_of(builder: Any, columns: Sequence[Any]) -> Any:
    """A vector of rows for each column, as one value."""
    value = ir.Constant(ir.ArrayType(columns[0].type, len(columns)), ir.Undefined)
    for c, column in enumerate(columns):
        value = builder.insert_value(value, column, c)
    return value


def _columns(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = in_array(context, builder, sig.args[0], args[0], times(builder, args[1], QUAD))
    out = sig.return_type
    return sums_of(
        builder,
        [load(builder, offset(builder, place, QUAD * c), out.of_rows.llvm) for c in range(out.columns)],
    )


def _put_columns(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = in_array(context, builder, sig.args[0], args[0], times(builder, args[1], QUAD))
    for c, column in enumerate(_columns_of(builder, args[2])):
        store(builder, offset(builder, place, QUAD * c), column)
    return context.get_dummy_value()


def _columns_type(count: int) -> Callable[..., Any]:
    return lambda *args: (SumsType("float32", count), args[0], types.intp)


_word: Any
for _word, _count in (
    (products.many_columns, COLUMNS_IN_REGISTERS),
    (products.few_columns, COLUMNS_LEFT),
    (products.one_column, 1),
):
    teach(_word, _columns_type(_count), (types.Array, types.Integer))(_columns)
teach(products.put_sums, nothing, (types.Array, types.Integer, SumsType))(_put_columns)


def _give(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    sums, c, out, row = args
    stride = row_step(context, builder, sig.args[2], out)
    value = load(builder, in_array(context, builder, sig.args[0], sums, times(builder, c, QUAD)), WORDS)
    place = in_array(context, builder, sig.args[2], out, builder.mul(c, stride), times(builder, row, 4))
    store(builder, place, value)
    return context.get_dummy_value()


teach(products.give, nothing, (types.Array, types.Integer, types.Array, types.Integer))(_give)


def _zeros(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(sig.return_type.llvm, None)


teach(products.no_sums, lambda like: (SumsType("int32", like.columns), like), (SumsType,))(_zeros)
teach(products.no_floats, lambda like: (like, like), (SumsType,))(_zeros)


def _arithmetic(function: Any, floats: str, integers: str) -> None:
    """An operator of sums with sums or with numbers of the rows."""

    def typer(x: Any, y: Any) -> Any:
        found = [t for t in (x, y) if isinstance(t, SumsType)]
        if not found or any(t not in (found[0], found[0].of_rows) for t in (x, y)):
            return None
        return found[0], x, y

    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        out = sig.return_type
        emit = getattr(builder, floats if out.element == "float32" else integers)
        x, y = (
            _columns_of(builder, value) if t == out else [value] * out.columns
            for t, value in zip(sig.args, args, strict=True)
        )
        return sums_of(builder, [emit(*both) for both in zip(x, y, strict=True)])

    teach(function, typer, (SumsType, SumsType), (SumsType, LanesType), (LanesType, SumsType))(lowering)


_arithmetic(operator.add, "fadd", "add")
_arithmetic(operator.sub, "fsub", "sub")
_arithmetic(operator.mul, "fmul", "mul")


def _as_float_type(value: Any) -> Any:
    return (SumsType("float32", value.columns), value) if isinstance(value, SumsType) else None


def _as_float(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind = sig.return_type.of_rows.llvm
    return sums_of(builder, [builder.sitofp(column, kind) for column in _columns_of(builder, args[0])])


teach(lanes.as_float, _as_float_type, (SumsType,))(_as_float)


# ---------------------------------------------------------------- rows times columns


def _factor(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = in_tile(builder, args[0], FACTORS, times(builder, args[1], QUAD))
    return load(builder, place, sig.return_type.llvm)


teach(
    products.factor,
    lambda *args: (LanesType("float32", ROWS), args[0], types.intp),
    *((tile, types.Integer) for tile in TILES),
)(_factor)


class Record(NamedTuple):
    """Where a column's block has its parts, and where the next column's begins: see `products.Columns`."""

    sums: int
    digits: int
    factors: int
    centers: int
    step: int


def record(size: int) -> Record:
    """That of blocks of so many elements; in blocks of 32 there is one sum, of 4 bytes."""
    digits, n_digits, n_centers = size + size // 8, 2 * products.DIGITS, products.CENTERS
    if size == BLOCK:
        n_digits = n_centers = 0
    factors = digits + n_digits
    centers = factors + 4 * products.FACTORS
    return Record(size, digits, factors, centers, centers + 4 * n_centers)


def _by_column(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    out = sig.return_type
    size, i = (t.literal_value for t in sig.args[2:4])
    place, step = record(size).factors + 4 * i, record(size).step
    first = offset(builder, args[1], place, times(builder, args[4], step))
    return sums_of(builder, of_columns(builder, first, out.of_rows.llvm.element, out.columns, step))


def of_columns(builder: Any, first: Any, kind: Any, columns: int, step: int) -> list[Any]:
    """A number of each column, for every row."""
    return [
        everywhere(builder, load(builder, offset(builder, first, step * c), kind)) for c in range(columns)
    ]


teach(
    products.by_column,
    lambda *args: (args[0], *args[:4], types.intp),
    (SumsType, PlaceType, LITERAL, LITERAL, types.Integer),
)(_by_column)


def _words(builder: Any, place: Any, n: int) -> list[Any]:
    """n times four bytes of each row."""
    return [load(builder, at, WORDS) for at in _places(builder, place, n)]


def _places(builder: Any, place: Any, n: int) -> list[Any]:
    """Where they are."""
    return [offset(builder, place, QUAD * i) for i in range(n)]


def _block_dots(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """With byte dots, sums begin with what is too much."""
    _, tile, _, _, columns, c = args
    out, (top, excess) = sig.return_type, (sig.args[k].literal_value for k in (2, 3))
    step, levels = record(BLOCK).step, _places(builder, in_tile(builder, tile, LEVELS), BLOCK // 4)
    q = offset(builder, columns, times(builder, c, step))
    too_much = _too_much(builder, out, excess, columns, c)
    if HAS_BYTE_DOTS:
        return sums_of(builder, add_dots(builder, too_much, levels, q, step))
    sums = dots(builder, levels, q, out.columns, step, top)
    return sums_of(builder, [builder.add(*both) for both in zip(sums, too_much, strict=True)])


def _found_block_dots(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _, tile, _, _, columns, c = args
    found = _words(builder, in_tile(builder, tile, LEVELS), BLOCK // 16)
    found += _too_much(builder, sig.return_type, sig.args[3].literal_value, columns, c)
    return sums_of(builder, [reduce(builder.add, found)])


def _too_much(builder: Any, out: SumsType, excess: int, columns: Any, c: Any) -> list[Any]:
    """Of each column, the negative sum of its activations times a power of two, or zero."""
    if not excess:
        return [ir.Constant(WORDS, None)] * out.columns
    first = offset(builder, columns, record(BLOCK).sums, times(builder, c, record(BLOCK).step))
    shift = ir.Constant(WORDS, [excess.bit_length() - 1] * ROWS)
    negative = of_columns(builder, first, WORDS.element, out.columns, record(BLOCK).step)
    return [builder.shl(value, shift) for value in negative]


_LITERALS = (LITERAL, LITERAL, PlaceType, types.Integer)
teach(
    products.block_dots,
    lambda *args: (SumsType("int32", args[0].columns), *args[:5], types.intp),
    (SumsType, PlaceType, *_LITERALS),
)(_block_dots)
lower_builtin(products.block_dots, SumsType, ProductsType, *_LITERALS)(_found_block_dots)


def _scaled_dots(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    n, top, size = (sig.args[k].literal_value for k in (2, 3, 5))
    return scaled_sums(builder, sig.return_type, args[1], n, top, args[4], size, args[6])


def scaled_sums(
    builder: Any, out: SumsType, tile: Any, n: int, top: int, columns: Any, size: int, c: Any
) -> Any:
    """See `products.scaled_dots`."""

    def add(totals: list[Any], levels: list[Any], q: Any, i: Any, step: int) -> list[Any]:
        scale = load(builder, in_tile(builder, tile, SCALES, times(builder, i, QUAD)), WORDS)
        return add_scaled(builder, totals, levels, scale, q, step, top)

    return run_through(builder, out, tile, n, columns, size, c, add)


def run_through(
    builder: Any,
    out: SumsType,
    tile: Any,
    n: int,
    columns: Any,
    size: int,
    c: Any,
    add: Callable[[list[Any], list[Any], Any, Any, int], list[Any]],
    totals: Sequence[Any] = (),
) -> Any:
    """The totals of all columns that `add` makes of n elements after the other: a loop.

    It is given the totals, where the levels are and where the activations, how many times it ran before,
    and the distance of columns.
    """
    step = record(size).step
    first = offset(builder, columns, times(builder, c, step))
    places = [cgutils.alloca_once(builder, WORDS) for _ in range(out.columns)]
    for total, at in zip(totals or [ir.Constant(WORDS, None)] * out.columns, places, strict=True):
        builder.store(total, at)
    with cgutils.for_range(builder, I64(size // n)) as loop:
        place = in_tile(builder, tile, LEVELS, times(builder, loop.index, n * ROWS))
        levels, q = _places(builder, place, n // 4), offset(builder, first, times(builder, loop.index, n))
        values = add([builder.load(at) for at in places], levels, q, loop.index, step)
        for value, at in zip(values, places, strict=True):
            builder.store(value, at)
    return sums_of(builder, [builder.load(at) for at in places])


def _found_scaled_dots(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    n, size = (sig.args[k].literal_value for k in (2, 5))
    return found_scaled_sums(builder, args[1], n, size)


def found_scaled_sums(builder: Any, tile: Any, n: int, size: int) -> Any:
    """The sums of 16 products have been found before."""
    found = _words(builder, in_tile(builder, tile, LEVELS), size // 16)
    scales = _words(builder, in_tile(builder, tile, SCALES), size // n)
    parts = [builder.mul(value, scales[16 * i // n]) for i, value in enumerate(found)]
    return sums_of(builder, [reduce(builder.add, parts)])


_SCALED = (LITERAL, LITERAL, PlaceType, LITERAL, types.Integer)
teach(
    products.scaled_dots,
    lambda *args: (SumsType("int32", args[0].columns), *args[:6], types.intp),
    (SumsType, PlaceType, *_SCALED),
)(_scaled_dots)
lower_builtin(products.scaled_dots, SumsType, ProductsType, *_SCALED)(_found_scaled_dots)


def pair_sums(builder: Any, out: SumsType, tile: Any, columns: Any, c: Any) -> Any:
    """Of a super-block's pairs, the sums of their products with the columns' sums."""
    first = offset(builder, columns, record(SUPER_BLOCK).sums, times(builder, c, record(SUPER_BLOCK).step))
    weights = _places(builder, in_tile(builder, tile, PAIRS), products.PAIRS)
    return sums_of(builder, pair_dots(builder, weights, first, out.columns, record(SUPER_BLOCK).step))


def _dot_quads(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Of both digits."""
    _, tile, _, _, columns, c = args
    top, size = (sig.args[k].literal_value for k in (2, 3))
    first, step = record(SUPER_BLOCK).digits + first_digit(size), record(SUPER_BLOCK).step
    weights = _places(builder, in_tile(builder, tile, QUADS), SUPER_BLOCK // size // 4)
    count = sig.return_type.columns
    high, low = (
        dots(builder, weights, offset(builder, columns, at, times(builder, c, step)), count, step, top)
        for at in (first, first + products.DIGITS)
    )
    return sums_of(builder, [two_digits(builder, *both) for both in zip(high, low, strict=True)])


def first_digit(size: int) -> int:
    """Where the digits of sums of so many elements begin."""
    return 0 if size == 16 else SUPER_BLOCK // 16


def two_digits(builder: Any, high: Any, low: Any) -> Any:
    """A number to the base 128."""
    return builder.add(builder.shl(high, ir.Constant(high.type, [7] * ROWS)), low)


teach(
    products.dot_quads,
    lambda *args: (SumsType("int32", args[0].columns), *args[:5], types.intp),
    *((SumsType, tile, LITERAL, LITERAL, PlaceType, types.Integer) for tile in TILES),
)(_dot_quads)
