"""Lowers `language.products`: tiles times columns; sums are a vector of rows for each column.

Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.extending import register_model

from kquant.kernels.language import lanes, products
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.layout import BLOCK, CENTER, MIDDLE, ROWS, SUPER_BLOCK, at, block_of_column
from kquant.kernels.lowering.isa.facts import HAS_BYTE_DOTS
from kquant.kernels.lowering.lanes import I32, LanesType, register
from kquant.kernels.lowering.rows import (
    LITERAL,
    QUAD,
    PrimitiveModel,
    in_array,
    nothing,
    quad_of,
    row_step,
    times,
)
from kquant.kernels.lowering.sums import add_dots, add_scaled, dots, pair_dots
from kquant.kernels.lowering.tiles import (
    TILES,
    PlaceType,
    ProductsType,
    TileType,
    folded_center,
    has_centers,
    in_tile,
    pairs_are_subtracted,
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


def _sums_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = in_array(context, builder, sig.args[0], args[0], times(builder, args[1], QUAD))
    out = sig.return_type
    return sums_of(
        builder,
        [load(builder, offset(builder, place, QUAD * c), out.of_rows.llvm) for c in range(out.columns)],
    )


def _put_sums(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = in_array(context, builder, sig.args[0], args[0], times(builder, args[1], QUAD))
    for c, column in enumerate(_columns_of(builder, args[2])):
        store(builder, offset(builder, place, QUAD * c), column)
    return context.get_dummy_value()


register(
    products.sums_at,
    lambda *args: (SumsType("float32", args[2].literal_value), args[0], types.intp, args[2]),
    (types.Array, types.Integer, LITERAL),
)(_sums_at)
register(products.put_sums, nothing, (types.Array, types.Integer, SumsType))(_put_sums)


def _scatter(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    sums, c, out, row = args
    stride = row_step(context, builder, sig.args[2], out)
    value = load(builder, in_array(context, builder, sig.args[0], sums, times(builder, c, QUAD)), WORDS)
    place = in_array(context, builder, sig.args[2], out, builder.mul(c, stride), times(builder, row, 4))
    store(builder, place, value)
    return context.get_dummy_value()


register(products.scatter, nothing, (types.Array, types.Integer, types.Array, types.Integer))(_scatter)


def _zeros(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(sig.return_type.llvm, None)


register(products.zero_sums, lambda like: (like, like), (SumsType,))(_zeros)


def _float_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.bitcast(quad_of(builder, args[0], sig.args[1].literal_value), sig.return_type.llvm)


register(
    products.float_at,
    lambda *args: (LanesType("float32", ROWS), *args),
    (LanesType, LITERAL),
)(_float_at)


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

    register(function, typer, (SumsType, SumsType), (SumsType, LanesType), (LanesType, SumsType))(lowering)


_arithmetic(operator.add, "fadd", "add")
_arithmetic(operator.sub, "fsub", "sub")
_arithmetic(operator.mul, "fmul", "mul")


def _as_float_type(value: Any) -> Any:
    return (SumsType("float32", value.columns), value) if isinstance(value, SumsType) else None


def _as_float(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind = sig.return_type.of_rows.llvm
    return sums_of(builder, [builder.sitofp(column, kind) for column in _columns_of(builder, args[0])])


register(lanes.as_float, _as_float_type, (SumsType,))(_as_float)


# ---------------------------------------------------------------- blocks of columns


def field(dot: BlockDot, name: str) -> int:
    """Where a column's block has a field."""
    return at(block_of_column(dot.partner.block_size), name)


def step(dot: BlockDot) -> int:
    """Bytes from one column's block to the next column's."""
    return block_of_column(dot.partner.block_size).itemsize


def _column_factor(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    out, dot = sig.return_type, sig.args[1].dot
    place = field(dot, "factors") + 4 * sig.args[3].literal_value
    first = offset(builder, args[2], place, times(builder, args[4], step(dot)))
    return sums_of(builder, _of_columns(builder, first, out.of_rows.llvm.element, out.columns, step(dot)))


def _of_columns(builder: Any, first: Any, kind: Any, columns: int, distance: int) -> list[Any]:
    """A number of each column, for every row."""
    return [
        everywhere(builder, load(builder, offset(builder, first, distance * c), kind)) for c in range(columns)
    ]


register(
    products.column_factor,
    lambda *args: (args[0], *args[:4], types.intp),
    *((SumsType, kind, PlaceType, LITERAL, types.Integer) for kind in TILES),
)(_column_factor)


# ---------------------------------------------------------------- integer sums of a tile and columns


def _places(builder: Any, place: Any, n: int) -> list[Any]:
    """Where n times four bytes of each row are."""
    return [offset(builder, place, QUAD * i) for i in range(n)]


def _integer_sums(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """The way that fits the declaration and the processor."""
    _, tile, columns, c = args
    kind, out, dot = sig.args[1], sig.return_type, sig.args[1].dot
    if dot.scales is None:
        return _block_sums(builder, out, kind, tile, columns, c)
    folded = HAS_BYTE_DOTS and folded_center(dot) is not None
    if has_centers(dot):
        sums = _folded_sums if folded else _centered_sums
        return sums(builder, out, kind, tile, columns, c)
    if folded:
        return _folded_sums(builder, out, kind, tile, columns, c)
    total = _scaled_sums(builder, out, kind, tile, columns, c)
    return _less_pairs(builder, out, kind, tile, columns, c, total)


def _block_sums(builder: Any, out: SumsType, kind: Any, tile: Any, columns: Any, c: Any) -> Any:
    """Blocks of 32.  With byte dots, sums begin with what the zero point makes of the activations."""
    distance, dot = step(kind.dot), kind.dot
    levels = _places(builder, in_tile(builder, kind, tile, "levels"), BLOCK // 4)
    q = offset(builder, columns, field(dot, "q"), times(builder, c, distance))
    of_zero_point = _of_zero_point(builder, out, dot, columns, c)
    if HAS_BYTE_DOTS:
        return sums_of(builder, add_dots(builder, of_zero_point, levels, q, distance))
    sums = dots(builder, levels, q, out.columns, distance, dot.largest)
    return sums_of(builder, [builder.add(*both) for both in zip(sums, of_zero_point, strict=True)])


def _of_zero_point(builder: Any, out: SumsType, dot: BlockDot, columns: Any, c: Any) -> list[Any]:
    """Of each column, the negative sum of its activations times the zero point."""
    if not dot.zero_point:
        return [ir.Constant(WORDS, None)] * out.columns
    first = offset(builder, columns, field(dot, "negative"), times(builder, c, step(dot)))
    shift = ir.Constant(WORDS, [dot.zero_point.bit_length() - 1] * ROWS)
    negative = _of_columns(builder, first, WORDS.element, out.columns, step(dot))
    return [builder.shl(value, shift) for value in negative]


_Add = Callable[[list[Any], list[Any], Any, Any], list[Any]]


def _scaled_sums(builder: Any, out: SumsType, kind: Any, tile: Any, columns: Any, c: Any) -> Any:
    """A scale for each n elements, after which the sums of levels times activations are scaled."""
    dot = kind.dot

    def add(totals: list[Any], levels: list[Any], q: Any, i: Any) -> list[Any]:
        scale = load(builder, in_tile(builder, kind, tile, "scales", times(builder, i, QUAD)), WORDS)
        return add_scaled(builder, totals, levels, scale, q, step(dot), dot.largest)

    return _run_through(builder, out, kind, tile, dot.scales.elements, columns, c, add)


def _run_through(
    builder: Any,
    out: SumsType,
    kind: Any,
    tile: Any,
    n: int,
    columns: Any,
    c: Any,
    add: _Add,
    totals: Sequence[Any] = (),
) -> Any:
    """The totals of all columns that `add` makes of n elements after the other: a loop.

    It is given the totals, where the levels are and where the activations, and how many times it ran before.
    """
    first = offset(builder, columns, field(kind.dot, "q"), times(builder, c, step(kind.dot)))
    places = [cgutils.alloca_once(builder, WORDS) for _ in range(out.columns)]
    for total, place in zip(totals or [ir.Constant(WORDS, None)] * out.columns, places, strict=True):
        builder.store(total, place)
    with cgutils.for_range(builder, I64(SUPER_BLOCK // n)) as loop:
        place = in_tile(builder, kind, tile, "levels", times(builder, loop.index, n * ROWS))
        levels, q = _places(builder, place, n // 4), offset(builder, first, times(builder, loop.index, n))
        values = add([builder.load(place) for place in places], levels, q, loop.index)
        for value, place in zip(values, places, strict=True):
            builder.store(value, place)
    return sums_of(builder, [builder.load(place) for place in places])


def _folded_sums(builder: Any, out: SumsType, kind: Any, tile: Any, columns: Any, c: Any) -> Any:
    """Levels were multiplied with their scales, and centered, when they were put."""

    def add(totals: list[Any], levels: list[Any], q: Any, i: Any) -> list[Any]:
        return add_dots(builder, totals, levels, q, step(kind.dot))

    totals: Sequence[Any] = ()
    if folded_center(kind.dot) == MIDDLE:
        last = field(kind.dot, "centers") + 4 * (SUPER_BLOCK // 16)
        first = offset(builder, columns, last, times(builder, c, step(kind.dot)))
        totals = _of_columns(builder, first, I32, out.columns, step(kind.dot))
    return _run_through(builder, out, kind, tile, 32, columns, c, add, totals)


def _centered_sums(builder: Any, out: SumsType, kind: Any, tile: Any, columns: Any, c: Any) -> Any:
    """The sums of 16 products begin with what the zero point makes of the activations."""
    assert kind.dot.zero_point == CENTER
    distance = step(kind.dot)
    first = offset(builder, columns, field(kind.dot, "centers"), times(builder, c, distance))

    def add(totals: list[Any], levels: list[Any], q: Any, i: Any) -> list[Any]:
        scale = load(builder, in_tile(builder, kind, tile, "scales", times(builder, i, QUAD)), WORDS)
        centers = _of_columns(
            builder, offset(builder, first, times(builder, i, 4)), I32, out.columns, distance
        )
        sums = add_dots(builder, centers, levels, q, distance)
        return [builder.add(total, builder.mul(x, scale)) for total, x in zip(totals, sums, strict=True)]

    return _run_through(builder, out, kind, tile, 16, columns, c, add)


def _less_pairs(builder: Any, out: SumsType, kind: Any, tile: Any, columns: Any, c: Any, total: Any) -> Any:
    """The total less what the zero point makes of the activations' sums, times pairs of scales."""
    if not pairs_are_subtracted(kind.dot):
        return total
    first = offset(builder, columns, field(kind.dot, "sums"), times(builder, c, step(kind.dot)))
    weights = _places(builder, in_tile(builder, kind, tile, "pairs"), 8)
    return less(
        builder, total, sums_of(builder, pair_dots(builder, weights, first, out.columns, step(kind.dot)))
    )


def less(builder: Any, sums: Any, others: Any) -> Any:
    """The difference of two sums."""
    both = zip(_columns_of(builder, sums), _columns_of(builder, others), strict=True)
    return sums_of(builder, [builder.sub(*pair) for pair in both])


def _found_sums(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """The sums of 16 products have been found before."""
    _, tile, columns, c = args
    kind, out, dot = sig.args[1], sig.return_type, sig.args[1].dot
    place, n = in_tile(builder, kind, tile, "products"), dot.partner.block_size // 16
    found = [load(builder, where, WORDS) for where in _places(builder, place, n)]
    if dot.scales is None:
        return sums_of(builder, [reduce(builder.add, found + _of_zero_point(builder, out, dot, columns, c))])
    n_scales, first = SUPER_BLOCK // dot.scales.elements, in_tile(builder, kind, tile, "scales")
    scales = [load(builder, where, WORDS) for where in _places(builder, first, n_scales)]
    parts = [builder.mul(value, scales[16 * i // dot.scales.elements]) for i, value in enumerate(found)]
    total = sums_of(builder, [reduce(builder.add, parts)])
    return _less_pairs(builder, out, kind, tile, columns, c, total)


register(
    products.integer_sums,
    lambda *args: (SumsType("int32", args[0].columns), *args[:3], types.intp),
    (SumsType, TileType, PlaceType, types.Integer),
)(_integer_sums)
lower_builtin(products.integer_sums, SumsType, ProductsType, PlaceType, types.Integer)(_found_sums)


# ---------------------------------------------------------------- minima


def _minima_sums(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Of both digits of the activations' sums."""
    _, tile, columns, c = args
    kind, count, dot = sig.args[1], sig.return_type.columns, sig.args[1].dot
    weights = _places(
        builder, in_tile(builder, kind, tile, "minima"), SUPER_BLOCK // dot.minima.elements // 4
    )
    high, low = (
        dots(
            builder,
            weights,
            offset(builder, columns, field(dot, digit) + first_digit(dot), times(builder, c, step(dot))),
            count,
            step(dot),
            dot.minima.largest,
        )
        for digit in ("high", "low")
    )
    return sums_of(builder, [two_digits(builder, *both) for both in zip(high, low, strict=True)])


def first_digit(dot: BlockDot) -> int:
    """Where the digits of the sums of as many elements begin as share a minimum."""
    assert dot.minima is not None
    return 0 if dot.minima.elements == 16 else SUPER_BLOCK // 16


def two_digits(builder: Any, high: Any, low: Any) -> Any:
    """A number to the base 128."""
    return builder.add(builder.shl(high, ir.Constant(high.type, [7] * ROWS)), low)


register(
    products.minima_sums,
    lambda *args: (SumsType("int32", args[0].columns), *args[:3], types.intp),
    *((SumsType, kind, PlaceType, types.Integer) for kind in TILES),
)(_minima_sums)
