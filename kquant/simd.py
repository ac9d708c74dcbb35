"""Teaches Numba the vocabulary of `kquant.lanes`: a vector of lanes is an LLVM vector register.

Imported by `kquant.jit` only, when the first kernel is compiled.  Nothing here knows a CPU: LLVM
lowers a vector that is wider than a register to several registers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import models, register_model

from kquant import lanes

__all__ = ["LANES", "LanesType"]

LANES = 32 if llvm.get_host_cpu_features().get("avx512f") else 16
"""Blocks that a search works on at a time; the results do not depend on it."""

I32 = ir.IntType(32)
_ELEMENTS = {"float32": ir.FloatType(), "int32": I32, "bool": ir.IntType(1)}


class LanesType(types.Type):
    """The Numba type of a vector: `element` is float32, int32 or bool."""

    def __init__(self, element: str, width: int) -> None:
        super().__init__(name=f"{element}x{width}")
        self.element, self.width = element, width
        self.llvm = ir.VectorType(_ELEMENTS[element], width)


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: LanesType) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


def _is(t: Any, *elements: str) -> bool:
    return isinstance(t, LanesType) and (not elements or t.element in elements)


# ---------------------------------------------------------------- how a function is taught

_Typer = Callable[..., Any]


def _teach(function: Any, typer: _Typer, *patterns: tuple[Any, ...]) -> Callable[[Any], Any]:
    """Register `typer` (argument types -> result and argument types, or None) and a lowering."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        prefer_literal = True

        def generic(self, args: Any, kws: Any) -> Any:
            typed = typer(*args)
            return typed and signature(*typed)

    infer_global(function)(Template)

    def register(lowering: Any) -> Any:
        for pattern in patterns:
            lower_builtin(function, *pattern)(lowering)
        return lowering

    return register


def _splat(builder: Any, scalar: Any, width: int) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, width), ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, width), [0] * width))


def _vector(context: Any, builder: Any, have: Any, want: LanesType, value: Any) -> Any:
    """A value as the vector `want`: as it is, a one-lane vector widened, or a scalar in every lane."""
    if have == want:
        return value
    if isinstance(have, LanesType):
        return _splat(builder, builder.extract_element(value, I32(0)), want.width)
    scalar_type = types.float32 if want.element == "float32" else types.int32
    return _splat(builder, context.cast(builder, value, have, scalar_type), want.width)


def _common(args: tuple[Any, ...]) -> LanesType | None:
    """The vector type that all arguments fit: same elements, one-lane vectors and scalars widened."""
    vectors = [t for t in args if isinstance(t, LanesType)]
    if not vectors or any(not isinstance(t, (LanesType, types.Number)) for t in args):
        return None
    elements = {t.element for t in vectors}
    width = max(t.width for t in vectors)
    if len(elements) != 1 or any(t.width not in (1, width) for t in vectors):
        return None
    return LanesType(elements.pop(), width)


_PAIRS = [(LanesType, LanesType), (LanesType, types.Number), (types.Number, LanesType)]


def _binary(function: Any, elements: dict[str, Callable[[Any, Any, Any], Any]], result: str | None = None) -> None:
    def typer(*args: Any) -> Any:
        common = _common(args) if len(args) == 2 else None
        if common is None or common.element not in elements:
            return None
        return (LanesType(result, common.width) if result else common, *args)

    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        common = _common(sig.args)
        assert common is not None
        x, y = (_vector(context, builder, t, common, v) for t, v in zip(sig.args, args, strict=True))
        return elements[common.element](builder, x, y)

    _teach(function, typer, *_PAIRS)(lowering)


def _compare(function: Any, symbol: str) -> None:
    ordered = (lambda b, x, y: b.fcmp_unordered("!=", x, y)) if symbol == "!=" else (
        lambda b, x, y: b.fcmp_ordered(symbol, x, y)
    )
    _binary(function, {"float32": ordered, "int32": lambda b, x, y: b.icmp_signed(symbol, x, y)}, "bool")


_binary(operator.add, {"float32": lambda b, x, y: b.fadd(x, y), "int32": lambda b, x, y: b.add(x, y)})
_binary(operator.sub, {"float32": lambda b, x, y: b.fsub(x, y), "int32": lambda b, x, y: b.sub(x, y)})
_binary(operator.mul, {"float32": lambda b, x, y: b.fmul(x, y), "int32": lambda b, x, y: b.mul(x, y)})
_binary(operator.truediv, {"float32": lambda b, x, y: b.fdiv(x, y)})
_binary(operator.and_, {"int32": lambda b, x, y: b.and_(x, y), "bool": lambda b, x, y: b.and_(x, y)})
_binary(operator.or_, {"int32": lambda b, x, y: b.or_(x, y), "bool": lambda b, x, y: b.or_(x, y)})
_binary(operator.lshift, {"int32": lambda b, x, y: b.shl(x, y)})
_binary(operator.rshift, {"int32": lambda b, x, y: b.ashr(x, y)})
for _function, _symbol in (
    (operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"),
    (operator.ge, ">="), (operator.eq, "=="), (operator.ne, "!="),
):  # fmt: skip
    _compare(_function, _symbol)
_choose = {
    symbol: {
        "float32": lambda b, x, y, s=symbol: b.select(b.fcmp_ordered(s, x, y), x, y),
        "int32": lambda b, x, y, s=symbol: b.select(b.icmp_signed(s, x, y), x, y),
    }
    for symbol in "<>"
}
_binary(lanes.smaller, _choose["<"])
_binary(lanes.larger, _choose[">"])


def _unary(function: Any, element: str, result: str, emit: Callable[[Any, Any, Any], Any]) -> None:
    def typer(*args: Any) -> Any:
        if len(args) != 1 or not _is(args[0], element):
            return None
        return LanesType(result, args[0].width), *args

    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, args[0], sig.return_type.llvm)

    _teach(function, typer, (LanesType,))(lowering)


def _call(name: str) -> Callable[[Any, Any, Any], Any]:
    def emit(builder: Any, x: Any, out: Any) -> Any:
        mangled = f"llvm.{name}.v{x.type.count}f32"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(x.type, [x.type]), mangled)
        return builder.call(function, [x])

    return emit


def _constant(vector: Any, value: Any) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


_unary(np.abs, "float32", "float32", _call("fabs"))
_unary(np.sqrt, "float32", "float32", _call("sqrt"))
_unary(operator.neg, "float32", "float32", lambda b, x, out: b.fneg(x))
_unary(operator.invert, "bool", "bool", lambda b, x, out: b.not_(x))
_unary(lanes.as_float, "int32", "float32", lambda b, x, out: b.sitofp(x, out))
_unary(lanes.as_int, "float32", "int32", lambda b, x, out: b.fptosi(x, out))
_unary(lanes.bits_of_float, "float32", "int32", lambda b, x, out: b.bitcast(x, out))
_unary(lanes.float_of_bits, "int32", "float32", lambda b, x, out: b.bitcast(x, out))


def _round_even(builder: Any, x: Any, out: Any) -> Any:
    magic = _constant(out, float(lanes.ROUND))
    return builder.fsub(builder.fadd(x, magic), magic)


def _nearest_int(builder: Any, x: Any, out: Any) -> Any:
    integers = ir.VectorType(I32, out.count)
    bits = builder.bitcast(builder.fadd(x, _constant(out, float(lanes.ROUND))), integers)
    low = builder.and_(bits, _constant(integers, 0x7FFFFF))
    return builder.sitofp(builder.sub(low, _constant(integers, 0x400000)), out)


def _half_bits(builder: Any, x: Any, out: Any) -> Any:
    halves = ir.VectorType(ir.HalfType(), out.count)
    patterns = builder.bitcast(builder.fptrunc(x, halves), ir.VectorType(ir.IntType(16), out.count))
    bits = builder.zext(patterns, out)
    nan = builder.or_(builder.and_(bits, _constant(out, 0x8000)), _constant(out, 0x7E00))
    return builder.select(builder.fcmp_unordered("uno", x, x), nan, bits)


def _float_of_half(builder: Any, x: Any, out: Any) -> Any:
    patterns = builder.trunc(x, ir.VectorType(ir.IntType(16), out.count))
    return builder.fpext(builder.bitcast(patterns, ir.VectorType(ir.HalfType(), out.count)), out)


_unary(lanes.round_even, "float32", "float32", _round_even)
_unary(lanes.nearest_int, "float32", "float32", _nearest_int)
_unary(lanes.half_bits, "float32", "int32", _half_bits)
_unary(lanes.float_of_half, "int32", "float32", _float_of_half)


# ---------------------------------------------------------------- np.where, np.all


def _where_type(*args: Any) -> Any:
    if len(args) != 3 or not _is(args[0], "bool"):
        return None
    common = _common(args[1:])
    if common is None:
        if not all(isinstance(t, types.Number) for t in args[1:]):
            return None
        common = LanesType("float32", args[0].width)
    return common, *args


def _where(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    want = sig.return_type
    condition = _vector(context, builder, sig.args[0], LanesType("bool", want.width), args[0])
    x, y = (_vector(context, builder, t, want, v) for t, v in zip(sig.args[1:], args[1:], strict=True))
    return builder.select(condition, x, y)


_teach(
    np.where,
    _where_type,
    *((LanesType, a, b) for a in (LanesType, types.Number) for b in (LanesType, types.Number)),
)(_where)


def _all_type(*args: Any) -> Any:
    return (types.boolean, *args) if len(args) == 1 and _is(args[0], "bool") else None


def _all(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    mask = ir.IntType(sig.args[0].width)
    return builder.icmp_unsigned("==", builder.bitcast(args[0], mask), ir.Constant(mask, -1))


_teach(np.all, _all_type, (LanesType,))(_all)


# ---------------------------------------------------------------- memory


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _read(builder: Any, pointer: Any, width: int, signed: bool = False) -> Any:
    """`width` elements from `pointer` on; integers widened to int32."""
    element = pointer.type.pointee
    value = builder.load(builder.bitcast(pointer, ir.VectorType(element, width).as_pointer()), align=1)
    if isinstance(element, ir.FloatType):
        return value
    wide = ir.VectorType(I32, width)
    if element.width == 32:
        return value
    return builder.sext(value, wide) if signed else builder.zext(value, wide)


def _write(builder: Any, pointer: Any, value: Any) -> None:
    """The vector from `pointer` on; integers cut to the width of the memory."""
    element, source = pointer.type.pointee, value.type
    memory = ir.VectorType(element, source.count)
    if isinstance(source.element, ir.FloatType) and not isinstance(element, ir.FloatType):
        value = builder.fptosi(value, ir.VectorType(I32, source.count))
    if value.type != memory:
        value = builder.trunc(value, memory)
    builder.store(value, builder.bitcast(pointer, memory.as_pointer()), align=1)


def _element_of(array: Any) -> str | None:
    if not isinstance(array, types.Array) or array.layout != "C":
        return None
    return "float32" if array.dtype == types.float32 else "int32"


def _row_index(context: Any, builder: Any, index_type: Any, index: Any) -> Any:
    wide = context.cast(builder, index, index_type, types.intp)
    return builder.mul(wide, ir.Constant(wide.type, LANES))


def _load_type(*args: Any) -> Any:
    element = _element_of(args[0])
    return (LanesType(element, LANES), args[0], types.intp) if element else None


def _load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    index = _row_index(context, builder, sig.args[1], args[1])
    return _read(builder, _pointer(context, builder, sig.args[0], args[0], index), LANES)


_teach(lanes.load, _load_type, (types.Array, types.Integer))(_load)


def _zeros_type(*args: Any) -> Any:
    return LanesType("float32", LANES), args[0]


def _zeros(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(sig.return_type.llvm, [0.0] * LANES)


_teach(lanes.zeros, _zeros_type, (types.Array,))(_zeros)


def _store_type(*args: Any) -> Any:
    if _element_of(args[0]) is None or not isinstance(args[2], (LanesType, types.Number)):
        return None
    return types.none, args[0], types.intp, args[2]


def _store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    array, _, have = sig.args
    want = have if isinstance(have, LanesType) and have.width == LANES else LanesType(_element_of(array) or "", LANES)
    value = _vector(context, builder, have, want, args[2])
    index = _row_index(context, builder, sig.args[1], args[1])
    _write(builder, _pointer(context, builder, array, args[0], index), value)
    return context.get_dummy_value()


_teach(lanes.store, _store_type, (types.Array, types.Integer, LanesType), (types.Array, types.Integer, types.Number))(
    _store
)


def _run_type(*args: Any) -> Any:
    element = _element_of(args[0])
    if element is None or not isinstance(args[2], types.IntegerLiteral):
        return None
    return LanesType(element, args[2].literal_value), args[0], types.intp, args[2]


def _run(signed: bool) -> Callable[..., Any]:
    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1])
        return _read(builder, pointer, sig.return_type.width, signed)

    return lowering


for _function, _signed in (lanes.load_run, False), (lanes.load_run_signed, True):
    _teach(_function, _run_type, (types.Array, types.Integer, types.IntegerLiteral))(_run(_signed))


def _count_up_type(*args: Any) -> Any:
    return (LanesType("int32", args[0].literal_value), *args) if isinstance(args[0], types.IntegerLiteral) else None


def _count_up(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(sig.return_type.llvm, list(range(sig.return_type.width)))


_teach(lanes.count_up, _count_up_type, (types.IntegerLiteral,))(_count_up)


def _store_run_type(*args: Any) -> Any:
    return (types.none, args[0], types.intp, args[2]) if _element_of(args[0]) and _is(args[2]) else None


def _store_run(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _write(builder, _pointer(context, builder, sig.args[0], args[0], args[1]), args[2])
    return context.get_dummy_value()


_teach(lanes.store_run, _store_run_type, (types.Array, types.Integer, LanesType))(_store_run)


# ---------------------------------------------------------------- 16 x 16 tiles, turned

TILE = 16


def _turn(builder: Any, rows: list[Any]) -> list[Any]:
    """The transpose of 16 vectors of 16 elements: four rounds of pairwise interleaving."""
    distance = TILE // 2
    low = ir.Constant(ir.VectorType(I32, TILE), [i // 2 + TILE * (i % 2) for i in range(TILE)])
    high = ir.Constant(ir.VectorType(I32, TILE), [TILE // 2 + i // 2 + TILE * (i % 2) for i in range(TILE)])
    for _ in range(4):
        turned = []
        for i in range(distance):
            pair = rows[i], rows[i + distance]
            turned += [builder.shuffle_vector(*pair, low), builder.shuffle_vector(*pair, high)]
        rows = turned
    return rows


def _offset(context: Any, builder: Any, array_type: Any, array: Any, lane: Any, k: int) -> Any:
    return builder.load(_pointer(context, builder, array_type, array, builder.add(lane, ir.Constant(lane.type, k))))


def _tile_type(*args: Any) -> Any:
    return types.none, args[0], args[1], types.intp, types.intp, args[4]


def _tile_in(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    flat_type, starts_type, _, _, rows_type = sig.args
    flat, starts, lane, column, rows = args
    read = []
    for k in range(TILE):
        start = _offset(context, builder, starts_type, starts, lane, k)
        read.append(_read_raw(builder, _pointer(context, builder, flat_type, flat, builder.add(start, column))))
    for k, value in enumerate(_turn(builder, read)):
        row = builder.mul(builder.add(column, ir.Constant(column.type, k)), ir.Constant(column.type, LANES))
        _write_raw(builder, _pointer(context, builder, rows_type, rows, builder.add(row, lane)), value)
    return context.get_dummy_value()


def _tile_out(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    flat_type, starts_type, _, _, rows_type = sig.args
    flat, starts, lane, column, rows = args
    read = []
    for k in range(TILE):
        row = builder.mul(builder.add(column, ir.Constant(column.type, k)), ir.Constant(column.type, LANES))
        read.append(_read_raw(builder, _pointer(context, builder, rows_type, rows, builder.add(row, lane))))
    for k, value in enumerate(_turn(builder, read)):
        start = _offset(context, builder, starts_type, starts, lane, k)
        _write_raw(builder, _pointer(context, builder, flat_type, flat, builder.add(start, column)), value)
    return context.get_dummy_value()


def _read_raw(builder: Any, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, TILE).as_pointer()), align=1)


def _write_raw(builder: Any, pointer: Any, value: Any) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=1)


_PATTERN = (types.Array, types.Array, types.Integer, types.Integer, types.Array)
_teach(lanes.tile_in, _tile_type, _PATTERN)(_tile_in)
_teach(lanes.tile_out, _tile_type, _PATTERN)(_tile_out)
