"""Teaches Numba the sums of `kquant.kernels.products`, in as few instructions as the CPU has for them.

Imported by `jit` only, when the first kernel is compiled.  Where there are no such instructions the
sums are spelled out.  The integers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from kquant.kernels import products
from kquant.kernels.simd import I32, LanesType, teach
from kquant.kernels.simd_bytes import I16, assembly, has, register_bits, shuffle, side_by_side, widen


def _intrinsic(builder: Any, name: str, result: Any, *args: Any) -> Any:
    signature = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


def _in_registers(builder: Any, out: Any, vectors: Sequence[Any], emit: Callable[..., Any]) -> Any:
    """`emit` for each register's share of the vectors."""
    pieces = out.count * out.element.width // register_bits(out)
    results = []
    for k in range(pieces):
        shares = [
            shuffle(builder, v, v, range(k * v.type.count // pieces, (k + 1) * v.type.count // pieces))
            for v in vectors
        ]
        results.append(emit(*shares))
    return side_by_side(builder, results)


def _every(builder: Any, value: Any, step: int) -> list[Any]:
    """Lanes 0, step, ..; lanes 1, step + 1, ..; and so on."""
    return [shuffle(builder, value, value, range(k, value.type.count, step)) for k in range(step)]


def _pair_sums(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    out = sig.return_type.llvm
    if bits := register_bits(out):
        name = "llvm.x86.avx512.pmaddubs.w.512" if bits == 512 else "llvm.x86.avx2.pmadd.ub.sw"
        piece = ir.VectorType(I16, bits // 16)
        return _in_registers(builder, out, args, lambda u, s: _intrinsic(builder, name, piece, u, s))
    u, s = (widen(builder, v, I16, is_signed=k == 1) for k, v in enumerate(args))
    even, odd = _every(builder, builder.mul(u, s), 2)
    return builder.add(even, odd)


def _add_products(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    out = sig.return_type.llvm
    if bits := register_bits(out):
        piece = ir.VectorType(I32, bits // 32)

        def emit(total: Any, x: Any, y: Any) -> Any:
            if bits == 512 or has("avx512vnni", "avx512vl"):
                return assembly(builder, "vpdpwssd $3, $2, $0", "=v,0,v,v", total, x, y)
            return builder.add(total, _intrinsic(builder, "llvm.x86.avx2.pmadd.wd", piece, x, y))

        return _in_registers(builder, out, args, emit)
    total, x, y = args
    wide = (widen(builder, v, I32, is_signed=True) for v in (x, y))
    even, odd = _every(builder, builder.mul(*wide), 2)
    return builder.add(total, builder.add(even, odd))


def _pair_sums_type(*args: Any) -> Any:
    return LanesType("int16", args[0].width // 2), *args


def _total_type(*args: Any) -> Any:
    return args[0], *args


teach(products.pair_sums, _pair_sums_type, (LanesType, LanesType))(_pair_sums)
teach(products.add_products, _total_type, (LanesType, LanesType, LanesType))(_add_products)
