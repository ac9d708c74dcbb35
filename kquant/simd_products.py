"""Teaches Numba the vocabulary of `kquant.products`: sums of products in as few instructions as there are.

Imported by `kquant.jit` only, when the first kernel is compiled.  What the CPU has is what LLVM says
it has.  Without any of it, as on ARM, and with the environment variable `KQUANT_PORTABLE` set, the sums
are spelled out and LLVM makes of them what it can.  The integers are the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target

from kquant import products
from kquant.simd import I32, LanesType, teach
from kquant.simd_memory import _pointer

__all__ = ["has", "is_portable"]

llvm.initialize_native_asmparser()  # for `_assembly`

I8, I16 = ir.IntType(8), ir.IntType(16)
_FEATURES = frozenset(cpu_target.target_context.codegen().magic_tuple()[2].split(","))


def is_portable() -> bool:
    """Whether kernels are compiled without instructions that only some CPUs have."""
    return os.environ.get("KQUANT_PORTABLE", "") not in ("", "0")


def has(*features: str) -> bool:
    """Whether the CPU has all of these, and kernels may use them."""
    return not is_portable() and all(f"+{name}" in _FEATURES for name in features)


def _register_bits(vector: Any) -> int:
    """The widest register whose size divides the vector's and that has what sums need; 0 if none has."""
    bits = vector.count * vector.element.width
    if bits % 512 == 0 and has("avx512bw", "avx512vnni"):
        return 512
    return 256 if bits % 256 == 0 and has("avx2") else 0


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


def _widen(builder: Any, value: Any, to: Any, *, is_signed: bool) -> Any:
    wide = ir.VectorType(to, value.type.count)
    return builder.sext(value, wide) if is_signed else builder.zext(value, wide)


def _shorts_of(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _widen(builder, args[0], I16, is_signed=sig.args[0].element == "int8")


def _bytes_of(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.trunc(args[0], sig.return_type.llvm)


def _ints_of(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.sext(args[0], sig.return_type.llvm)


teach(products.ints_of, _same_lanes("int32"), (LanesType,))(_ints_of)
teach(products.bytes_of, _same_lanes("uint8"), (LanesType,))(_bytes_of)
teach(products.signed, _same_lanes("int8"), (LanesType,))(_reinterpret)
teach(products.shorts_of, _same_lanes("int16"), (LanesType,))(_shorts_of)


def _shuffle(builder: Any, a: Any, b: Any, lanes: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def _joined_type(*args: Any) -> Any:
    return LanesType(args[0].element, args[0].width + args[1].width), *args


def _joined(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _shuffle(builder, args[0], args[1], range(sig.return_type.width))


def _bits_at_type(*args: Any) -> Any:
    return LanesType("uint8", 2 * args[0].width), args[0], types.int32, types.int32, types.uint8


def _bits_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Rotates groups of four bytes, which the processor can by another distance in each half."""
    value, low, high, mask = args
    n = value.type.count
    words, octets = ir.VectorType(I32, n // 2), sig.return_type.llvm
    twice = builder.bitcast(_shuffle(builder, value, value, [*range(n), *range(n)]), words)
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
        _shuffle(builder, args[0], args[0], range(half)),
        _shuffle(builder, args[0], args[0], range(half, 2 * half)),
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
    n = _register_bits(out) // 16
    octets, results = ir.VectorType(I8, 2 * n), []
    source = builder.bitcast(_shuffle(builder, value, value, [*range(8)] * (n // 8)), octets)
    for k in range(out.count // n):
        lanes = [(i // 2 + k * n) // each * 2 + i % 2 for i in range(2 * n)]
        offset = builder.trunc(builder.shl(at, ir.Constant(at.type, 1)), I8)
        start = builder.insert_element(ir.Constant(octets, ir.Undefined), offset, I32(0))
        start = builder.shuffle_vector(start, start, ir.Constant(ir.VectorType(I32, 2 * n), None))
        mask = builder.add(ir.Constant(octets, lanes), start)
        moved = _assembly(builder, "vpshufb $2, $1, $0", "=v,v,v" if n == 32 else "=x,x,x", source, mask)
        results.append(builder.bitcast(moved, ir.VectorType(I16, n)))
    return _side_by_side(builder, results)


def _repeated(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    count, each = (t.literal_value for t in sig.args[2:])
    out = sig.return_type.llvm
    if sig.args[0].element == "int16" and sig.args[0].width == 8 and _register_bits(out):
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
        low = _shuffle(builder, value, value, range(half))
        value = builder.fadd(low, _shuffle(builder, value, value, range(half, 2 * half)))
    return builder.extract_element(value, I32(0))


teach(products.sum_lanes, _sum_lanes_type, (LanesType,))(_sum_lanes)


# ---------------------------------------------------------------- sums of products


def _side_by_side(builder: Any, vectors: list[Any]) -> Any:
    """2**k vectors as one."""
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [_shuffle(builder, low, high, range(2 * low.type.count)) for low, high in pairs]
    return vectors[0]


def _in_registers(builder: Any, out: Any, vectors: Sequence[Any], emit: Callable[..., Any]) -> Any:
    """`emit` for each register's share of the vectors."""
    pieces = out.count * out.element.width // _register_bits(out)
    results = []
    for k in range(pieces):
        shares = [
            _shuffle(builder, v, v, range(k * v.type.count // pieces, (k + 1) * v.type.count // pieces))
            for v in vectors
        ]
        results.append(emit(*shares))
    return _side_by_side(builder, results)


def _intrinsic(builder: Any, name: str, result: Any, *args: Any) -> Any:
    signature = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


def _assembly(builder: Any, text: str, constraint: str, *args: Any) -> Any:
    """One instruction that LLVM is to leave as it is; the result has the type of the first operand."""
    signature = ir.FunctionType(args[0].type, [a.type for a in args])
    return builder.asm(signature, text, constraint, args, False)


def _every(builder: Any, value: Any, step: int) -> list[Any]:
    """Lanes 0, step, ..; lanes 1, step + 1, ..; and so on."""
    return [_shuffle(builder, value, value, range(k, value.type.count, step)) for k in range(step)]


def _pair_sums(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    out = sig.return_type.llvm
    if bits := _register_bits(out):
        name = "llvm.x86.avx512.pmaddubs.w.512" if bits == 512 else "llvm.x86.avx2.pmadd.ub.sw"
        piece = ir.VectorType(I16, bits // 16)
        return _in_registers(builder, out, args, lambda u, s: _intrinsic(builder, name, piece, u, s))
    u, s = (_widen(builder, v, I16, is_signed=k == 1) for k, v in enumerate(args))
    even, odd = _every(builder, builder.mul(u, s), 2)
    return builder.add(even, odd)


def _add_products(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    out = sig.return_type.llvm
    if bits := _register_bits(out):
        piece = ir.VectorType(I32, bits // 32)

        def emit(total: Any, x: Any, y: Any) -> Any:
            if bits == 512 or has("avx512vnni", "avx512vl"):
                return _assembly(builder, "vpdpwssd $3, $2, $0", "=v,0,v,v", total, x, y)
            return builder.add(total, _intrinsic(builder, "llvm.x86.avx2.pmadd.wd", piece, x, y))

        return _in_registers(builder, out, args, emit)
    total, x, y = args
    wide = (_widen(builder, v, I32, is_signed=True) for v in (x, y))
    even, odd = _every(builder, builder.mul(*wide), 2)
    return builder.add(total, builder.add(even, odd))


def _add_quads(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    out = sig.return_type.llvm
    bits = _register_bits(out)
    if bits == 512 or (bits and has("avx512vnni", "avx512vl")):

        def emit(total: Any, u: Any, s: Any) -> Any:
            return _assembly(builder, "vpdpbusd $3, $2, $0", "=v,0,v,v", total, u, s)

        return _in_registers(builder, out, args, emit)
    total, u, s = args
    product = builder.mul(_widen(builder, u, I32, is_signed=False), _widen(builder, s, I32, is_signed=True))
    for share in _every(builder, product, 4):
        total = builder.add(total, share)
    return total


def _pair_sums_type(*args: Any) -> Any:
    return LanesType("int16", args[0].width // 2), *args


def _total_type(*args: Any) -> Any:
    return args[0], *args


teach(products.pair_sums, _pair_sums_type, (LanesType, LanesType))(_pair_sums)
teach(products.add_products, _total_type, (LanesType, LanesType, LanesType))(_add_products)
teach(products.add_quads, _total_type, (LanesType, LanesType, LanesType))(_add_quads)
