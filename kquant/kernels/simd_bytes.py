"""Teaches Numba the part of `products` that moves bytes and 16-bit integers; and what the CPU has.

Imported by `jit` only, when the first kernel is compiled.  What the CPU has is what LLVM says
it has.  Without any of it, as on ARM, and with the environment variable `KQUANT_PORTABLE` set, LLVM makes
of everything what it can.  The values are the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target

from kquant.kernels import products
from kquant.kernels.simd import I32, LanesType, teach
from kquant.kernels.simd_memory import _pointer

__all__ = ["I8", "I16", "assembly", "has", "is_portable", "register_bits", "shuffle", "side_by_side", "widen"]

llvm.initialize_native_asmparser()  # for `assembly`

I8, I16 = ir.IntType(8), ir.IntType(16)
_FEATURES = frozenset(cpu_target.target_context.codegen().magic_tuple()[2].split(","))


def is_portable() -> bool:
    """Whether kernels are compiled without instructions that only some CPUs have."""
    return os.environ.get("KQUANT_PORTABLE", "") not in ("", "0")


def has(*features: str) -> bool:
    """Whether the CPU has all of these, and kernels may use them."""
    return not is_portable() and all(f"+{name}" in _FEATURES for name in features)


def register_bits(vector: Any) -> int:
    """The widest register whose size divides the vector's and that has what sums need; 0 if none has."""
    bits = vector.count * vector.element.width
    if bits % 512 == 0 and has("avx512bw", "avx512vnni"):
        return 512
    return 256 if bits % 256 == 0 and has("avx2") else 0


def assembly(builder: Any, text: str, constraint: str, *args: Any) -> Any:
    """One instruction that LLVM is to leave as it is; the result has the type of the first operand."""
    signature = ir.FunctionType(args[0].type, [a.type for a in args])
    return builder.asm(signature, text, constraint, args, False)


# ---------------------------------------------------------------- memory


def _bytes_type(element: str) -> Callable[..., Any]:
    def typer(*args: Any) -> Any:
        if not isinstance(args[2], types.IntegerLiteral):
            return None
        return LanesType(element, args[2].literal_value), args[0], types.intp, args[2]

    return typer


def _load_as_is(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer = _pointer(context, builder, sig.args[0], args[0], args[1])
    return builder.load(builder.bitcast(pointer, sig.return_type.llvm.as_pointer()), align=1)


_RUN = (types.Array, types.Integer, types.IntegerLiteral)
teach(products.load_bytes, _bytes_type("uint8"), _RUN)(_load_as_is)
teach(products.load_signed_bytes, _bytes_type("int8"), _RUN)(_load_as_is)
teach(products.load_shorts, _bytes_type("int16"), _RUN)(_load_as_is)


def _run_float_type(*args: Any) -> Any:
    return LanesType("float32", 1), args[0], types.intp


teach(products.run_float, _run_float_type, (types.Array, types.Integer))(_load_as_is)


# ---------------------------------------------------------------- vectors of other vectors


def _no_sum_type(*args: Any) -> Any:
    return LanesType("int32", args[0].literal_value), *args


def _no_sum(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(sig.return_type.llvm, None)


teach(products.no_sum, _no_sum_type, (types.IntegerLiteral,))(_no_sum)


def _same_lanes(element: str) -> Callable[..., Any]:
    return lambda *args: (LanesType(element, args[0].width), *args)


def _reinterpret(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return args[0]


def widen(builder: Any, value: Any, to: Any, *, is_signed: bool) -> Any:
    """The lanes as wider integers."""
    wide = ir.VectorType(to, value.type.count)
    return builder.sext(value, wide) if is_signed else builder.zext(value, wide)


def _shorts_of(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return widen(builder, args[0], I16, is_signed=sig.args[0].element == "int8")


def _bytes_of(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.trunc(args[0], sig.return_type.llvm)


def _ints_of(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.sext(args[0], sig.return_type.llvm)


teach(products.ints_of, _same_lanes("int32"), (LanesType,))(_ints_of)
teach(products.bytes_of, _same_lanes("uint8"), (LanesType,))(_bytes_of)
teach(products.signed, _same_lanes("int8"), (LanesType,))(_reinterpret)
teach(products.shorts_of, _same_lanes("int16"), (LanesType,))(_shorts_of)


def shuffle(builder: Any, a: Any, b: Any, lanes: Sequence[int]) -> Any:
    """These lanes of one vector after the other."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def side_by_side(builder: Any, vectors: list[Any]) -> Any:
    """2**k vectors as one."""
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [shuffle(builder, low, high, range(2 * low.type.count)) for low, high in pairs]
    return vectors[0]


def _joined_type(*args: Any) -> Any:
    return LanesType(args[0].element, args[0].width + args[1].width), *args


def _joined(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return shuffle(builder, args[0], args[1], range(sig.return_type.width))


def _bits_at_type(*args: Any) -> Any:
    return LanesType("uint8", 2 * args[0].width), args[0], types.int32, types.int32, types.uint8


def _bits_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Rotates groups of four bytes, which the processor can by another distance in each half."""
    value, low, high, mask = args
    n = value.type.count
    words, octets = ir.VectorType(I32, n // 2), sig.return_type.llvm
    twice = builder.bitcast(shuffle(builder, value, value, [*range(n), *range(n)]), words)
    distances = ir.Constant(words, ir.Undefined)
    for lane in range(n // 2):
        distances = builder.insert_element(distances, low if lane < n // 4 else high, I32(lane))
    distances = builder.and_(distances, ir.Constant(words, [31] * (n // 2)))
    rotate = ir.FunctionType(words, [words] * 3)
    function = cgutils.get_or_insert_function(builder.module, rotate, f"llvm.fshr.v{n // 2}i32")
    rotated = builder.bitcast(builder.call(function, [twice, twice, distances]), octets)
    masks = ir.Constant(octets, ir.Undefined)
    for lane in range(2 * n):
        masks = builder.insert_element(masks, mask, I32(lane))
    return builder.and_(rotated, masks)


teach(products.bits_at, _bits_at_type, (LanesType, types.Integer, types.Integer, types.Integer))(_bits_at)


def _folded_type(*args: Any) -> Any:
    return LanesType("int32", args[0].width // 2), *args


def _folded(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    half = sig.return_type.width
    return builder.add(
        shuffle(builder, args[0], args[0], range(half)),
        shuffle(builder, args[0], args[0], range(half, 2 * half)),
    )


teach(products.folded, _folded_type, (LanesType,))(_folded)
teach(products.joined, _joined_type, (LanesType, LanesType))(_joined)


def _repeated_type(*args: Any) -> Any:
    if any(not isinstance(t, types.IntegerLiteral) for t in args[2:]):
        return None
    width = args[2].literal_value * args[3].literal_value
    return LanesType(args[0].element, width), args[0], types.intp, *args[2:]


def _within_quarters(builder: Any, value: Any, at: Any, each: int, out: Any) -> Any:
    """`repeated` of 8 int16 by their bytes, which are in every 128 bits of a register: one instruction.

    LLVM would make a shuffle across the quarters of it, which is twice as slow on many processors.
    """
    n = register_bits(out) // 16
    octets, results = ir.VectorType(I8, 2 * n), []
    source = builder.bitcast(shuffle(builder, value, value, [*range(8)] * (n // 8)), octets)
    for k in range(out.count // n):
        lanes = [(i // 2 + k * n) // each * 2 + i % 2 for i in range(2 * n)]
        offset = builder.trunc(builder.shl(at, ir.Constant(at.type, 1)), I8)
        start = builder.insert_element(ir.Constant(octets, ir.Undefined), offset, I32(0))
        start = builder.shuffle_vector(start, start, ir.Constant(ir.VectorType(I32, 2 * n), None))
        mask = builder.add(ir.Constant(octets, lanes), start)
        moved = assembly(builder, "vpshufb $2, $1, $0", "=v,v,v" if n == 32 else "=x,x,x", source, mask)
        results.append(builder.bitcast(moved, ir.VectorType(I16, n)))
    return side_by_side(builder, results)


def _repeated(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    count, each = (t.literal_value for t in sig.args[2:])
    out = sig.return_type.llvm
    if sig.args[0].element == "int16" and sig.args[0].width == 8 and register_bits(out):
        return _within_quarters(builder, args[0], args[1], each, out)
    result = ir.Constant(sig.return_type.llvm, ir.Undefined)
    for k in range(count):
        element = builder.extract_element(args[0], builder.add(args[1], ir.Constant(args[1].type, k)))
        for lane in range(k * each, k * each + each):
            result = builder.insert_element(result, element, I32(lane))
    return result


teach(
    products.repeated,
    _repeated_type,
    (LanesType, types.Integer, types.IntegerLiteral, types.IntegerLiteral),
)(_repeated)


def _sum_lanes_type(*args: Any) -> Any:
    return types.float32, *args


def _sum_lanes(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    (value,) = args
    while value.type.count > 1:
        half = value.type.count // 2
        low = shuffle(builder, value, value, range(half))
        value = builder.fadd(low, shuffle(builder, value, value, range(half, 2 * half)))
    return builder.extract_element(value, I32(0))


teach(products.sum_lanes, _sum_lanes_type, (LanesType,))(_sum_lanes)
