"""Lowers `kquant.kernels.language.lanes`: a vector of lanes is an LLVM vector register.

Imported by `kquant.kernels.compile` only, when the first kernel is compiled.  Nothing here knows a CPU: LLVM
lowers a vector that is wider than a register to several registers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import models, overload, register_model

from kquant.kernels.language import lanes
from kquant.kernels.lowering.isa.facts import CONVERTS_HALVES
from kquant.kernels.lowering.isa.facts import SEARCH_LANES as LANES
from kquant.kernels.lowering.values import I32

__all__ = ["I32", "LANES", "LanesType", "register", "vector"]

_ELEMENTS = {
    "float32": ir.FloatType(),
    "int32": I32,
    "int8": ir.IntType(8),
    "uint8": ir.IntType(8),
    "bool": ir.IntType(1),
}


class LanesType(types.Type):
    """The Numba type of a vector: `element` is one of `_ELEMENTS`."""

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


# ---------------------------------------------------------------- how an operation is registered

_Typer = Callable[..., Any]


def register(function: Any, typer: _Typer, *patterns: tuple[Any, ...]) -> Callable[[Any], Any]:
    """Tell Numba of an operation: its `typer` (argument types -> result and argument types, or None).

    The result takes the lowering, for arguments of these patterns.
    """

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = function
        prefer_literal = True

        def generic(self, args: Any, kws: Any) -> Any:
            typed = typer(*args)
            return typed and signature(*typed)

    infer_global(function, types.Function(Template))

    def add(lowering: Any) -> Any:
        for pattern in patterns:
            lower_builtin(function, *pattern)(lowering)
        return lowering

    return add


def _splat(builder: Any, scalar: Any, width: int) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, width), ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, width), [0] * width))


def vector(context: Any, builder: Any, have: Any, want: LanesType, value: Any) -> Any:
    """A value as the vector `want`: as it is, a one-lane vector widened, or a scalar in every lane."""
    if have == want:
        return value
    if isinstance(have, LanesType):
        return _splat(builder, builder.extract_element(value, I32(0)), want.width)
    return _splat(builder, context.cast(builder, value, have, getattr(types, want.element)), want.width)


def _common(args: tuple[Any, ...]) -> LanesType | None:
    """The vector type that all arguments fit: same elements, one-lane vectors and scalars widened."""
    vectors = [t for t in args if isinstance(t, LanesType)]
    if not vectors or any(not isinstance(t, (LanesType, types.Number)) for t in args):
        return None
    elements = {t.element for t in vectors}
    width = max(t.width for t in vectors)
    if len(elements) != 1 or any(t.width not in (1, width) for t in vectors):
        return None
    if elements != {"float32"} and any(isinstance(t, types.Float) for t in args):
        return None  # NumPy would make floats of them
    return LanesType(elements.pop(), width)


_PAIRS = [(LanesType, LanesType), (LanesType, types.Number), (types.Number, LanesType)]


def _binary(function: Any, elements: Mapping[str, Callable[..., Any]], result: str | None = None) -> None:
    def typer(*args: Any) -> Any:
        common = _common(args) if len(args) == 2 else None
        if common is None or common.element not in elements:
            return None
        return (LanesType(result, common.width) if result else common, *args)

    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        common = _common(sig.args)
        assert common is not None
        x, y = (vector(context, builder, t, common, v) for t, v in zip(sig.args, args, strict=True))
        return elements[common.element](builder, x, y)

    register(function, typer, *_PAIRS)(lowering)


def _compare(function: Any, symbol: str) -> None:
    ordered = (
        (lambda b, x, y: b.fcmp_unordered("!=", x, y))
        if symbol == "!="
        else (lambda b, x, y: b.fcmp_ordered(symbol, x, y))
    )
    _binary(function, {"float32": ordered, "int32": lambda b, x, y: b.icmp_signed(symbol, x, y)}, "bool")


def _integers(emit: Callable[..., Any], *elements: str) -> Mapping[str, Callable[..., Any]]:
    return dict.fromkeys(elements, emit)


_SUMS = ("int32", "uint8")
_binary(
    operator.add, {"float32": lambda b, x, y: b.fadd(x, y), **_integers(lambda b, x, y: b.add(x, y), *_SUMS)}
)
_binary(
    operator.sub, {"float32": lambda b, x, y: b.fsub(x, y), **_integers(lambda b, x, y: b.sub(x, y), *_SUMS)}
)
_binary(
    operator.mul, {"float32": lambda b, x, y: b.fmul(x, y), **_integers(lambda b, x, y: b.mul(x, y), *_SUMS)}
)
_binary(operator.truediv, {"float32": lambda b, x, y: b.fdiv(x, y)})
_binary(operator.and_, _integers(lambda b, x, y: b.and_(x, y), "int32", "uint8", "bool"))
_binary(operator.or_, _integers(lambda b, x, y: b.or_(x, y), "int32", "uint8", "bool"))
_binary(operator.lshift, _integers(lambda b, x, y: b.shl(x, y), "int32", "uint8"))
_binary(operator.rshift, {"int32": lambda b, x, y: b.ashr(x, y), "uint8": lambda b, x, y: b.lshr(x, y)})
for _function, _symbol in (
    (operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"),
    (operator.ge, ">="), (operator.eq, "=="), (operator.ne, "!="),
):  # fmt: skip
    _compare(_function, _symbol)


def _pick(symbol: str) -> Mapping[str, Callable[..., Any]]:
    """The first operand where the comparison holds, else the second."""
    return {
        "float32": lambda b, x, y: b.select(b.fcmp_ordered(symbol, x, y), x, y),
        "int32": lambda b, x, y: b.select(b.icmp_signed(symbol, x, y), x, y),
    }


_binary(lanes.smaller, _pick("<"))
_binary(lanes.larger, _pick(">"))
_binary(np.minimum, _pick("<"))
_binary(np.maximum, _pick(">"))
_binary(np.fmax, _pick(">"))


def _copysign(builder: Any, x: Any, sign: Any) -> Any:
    signature = ir.FunctionType(x.type, [x.type, x.type])
    name = f"llvm.copysign.v{x.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [x, sign])


_binary(np.copysign, {"float32": _copysign})


def _unary(function: Any, element: str, result: str, emit: Callable[[Any, Any, Any], Any]) -> None:
    def typer(*args: Any) -> Any:
        if len(args) != 1 or not _is(args[0], element):
            return None
        return LanesType(result, args[0].width), *args

    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, args[0], sig.return_type.llvm)

    register(function, typer, (LanesType,))(lowering)


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
    return builder.zext(patterns, out)


def _float_of_half(builder: Any, x: Any, out: Any) -> Any:
    patterns = builder.trunc(x, ir.VectorType(ir.IntType(16), out.count))
    return builder.fpext(builder.bitcast(patterns, ir.VectorType(ir.HalfType(), out.count)), out)


_unary(lanes.round_even, "float32", "float32", _round_even)
_unary(lanes.nearest_int, "float32", "float32", _nearest_int)
if CONVERTS_HALVES:
    _unary(lanes.half_bits_of_number, "float32", "int32", _half_bits)
    _unary(lanes.float_of_half, "int32", "float32", _float_of_half)


# ---------------------------------------------------------------- where, np.all


def _where_type(*args: Any) -> Any:
    if len(args) != 3 or not _is(args[0], "bool"):
        return None
    common = _common(args[1:])
    if common is None:
        if any(t != types.float32 for t in args[1:]):
            return None
        common = LanesType("float32", args[0].width)
    return common, *args


def _where(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    want = sig.return_type
    condition = vector(context, builder, sig.args[0], LanesType("bool", want.width), args[0])
    x, y = (vector(context, builder, t, want, v) for t, v in zip(sig.args[1:], args[1:], strict=True))
    return builder.select(condition, x, y)


register(
    lanes.where,
    _where_type,
    *((LanesType, a, b) for a in (LanesType, types.Number) for b in (LanesType, types.Number)),
)(_where)


def _choose(condition: Any, new: Any, old: Any) -> Any:
    """`where` for each vector of a tuple; exists when compiled only."""


@overload(lanes.update)  # type: ignore[untyped-decorator]
def _update(condition: Any, kernel: Any, state: Any, given: Any, constant: Any) -> Any:
    return _update_as_it_stands


def _update_as_it_stands(condition: Any, kernel: Any, state: Any, given: Any, constant: Any) -> Any:
    return _choose(condition, kernel(*state, *given, constant), state)


@overload(lanes.update_rows)  # type: ignore[untyped-decorator]
def _update_rows(condition: Any, kernel: Any, state: Any, rows: Any, given: Any, constant: Any) -> Any:
    return _update_rows_as_it_stands


def _update_rows_as_it_stands(
    condition: Any, kernel: Any, state: Any, rows: Any, given: Any, constant: Any
) -> Any:
    return _choose(condition, kernel(*state, *rows, *given, constant), state)


def _choose_type(*args: Any) -> Any:
    return args[2], *args


def _lower_choose(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    new, old = (cgutils.unpack_tuple(builder, value) for value in args[1:])
    chosen = [builder.select(args[0], x, y) for x, y in zip(new, old, strict=True)]
    return context.make_tuple(builder, sig.return_type, chosen)


_TUPLE = types.BaseTuple  # type: ignore[attr-defined]
register(_choose, _choose_type, (LanesType, _TUPLE, _TUPLE))(_lower_choose)


def _all_type(*args: Any) -> Any:
    return (types.boolean, *args) if len(args) == 1 and _is(args[0], "bool") else None


def _all(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    mask = ir.IntType(sig.args[0].width)
    return builder.icmp_unsigned("==", builder.bitcast(args[0], mask), ir.Constant(mask, -1))


register(np.all, _all_type, (LanesType,))(_all)


# ---------------------------------------------------------------- nearest_int(a / b)

_ONE, _SURE, _EXACT = np.float32(1), np.float32(0.4999), np.float32(400)


@overload(lanes.nearest_quotient)  # type: ignore[untyped-decorator]
def _nearest_quotient(a: Any, b: Any) -> Any:
    return _nearest_quotient_as_it_stands


def _nearest_quotient_as_it_stands(a: Any, b: Any) -> Any:
    """Multiplies by the reciprocal, which a loop computes once; divides where that could round otherwise.

    Up to 400 the two differ by 1e-4 at most.
    """
    quotient = a * (_ONE / b)
    rounded = lanes.round_even(quotient)
    if np.all((np.abs(quotient - rounded) < _SURE) & (np.abs(quotient) < _EXACT)):
        return rounded
    return lanes.nearest_int(a / b)
