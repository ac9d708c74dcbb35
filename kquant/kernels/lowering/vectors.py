"""What every lowering needs: which instructions the CPU has, and vectors in memory and in registers.

What the CPU has is what LLVM says it has; with the environment variable `KQUANT_PORTABLE` set, it has
nothing.  Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target

from kquant.kernels.language.products import ROWS
from kquant.kernels.lowering.lanes import I32

I8, I16, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(64)
OCTETS, SHORTS, WORDS = ir.VectorType(I8, 4 * ROWS), ir.VectorType(I16, 2 * ROWS), ir.VectorType(I32, ROWS)
"""Four bytes of each row, as what they are taken for."""
HALF = ROWS // 2
"""Rows in a register of AVX2, and in either half of a tile."""


def is_portable() -> bool:
    """Whether kernels are compiled without instructions that only some CPUs have."""
    return os.environ.get("KQUANT_PORTABLE", "") not in ("", "0")


def _has(*features: str) -> bool:
    of_cpu = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return not is_portable() and all(f"+{name}" in of_cpu for name in features)


HAS_VNNI, HAS_AVX2, HAS_GFNI = _has("avx512bw", "avx512vnni"), _has("avx2"), _has("avx512bw", "gfni")
HAS_AVX512 = _has("avx512bw")


# ---------------------------------------------------------------- vectors


def shuffle(builder: Any, a: Any, b: Any, lanes: Sequence[int]) -> Any:
    """These lanes of one vector after the other."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def everywhere(builder: Any, value: Any) -> Any:
    """A scalar for each row."""
    kind = ir.VectorType(value.type, ROWS)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    return shuffle(builder, first, first, [0] * ROWS)


def offset(builder: Any, pointer: Any, *distances: Any) -> Any:
    """A pointer so many bytes further."""
    for distance in distances:
        pointer = builder.gep(pointer, [I64(distance) if isinstance(distance, int) else distance])
    return pointer


def load(builder: Any, pointer: Any, kind: Any) -> Any:
    """What is stored there."""
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=1)


def load_behind(builder: Any, first: Any, pointer: Any) -> Any:
    """The vector, and as much again from memory behind it, as Zen has it without a shuffle.

    A load as wide as both, from so far before the pointer, writes the second half only.  It is slow where
    its lanes of 32 bits lie across the borders of cache lines.
    """
    n = first.type.count
    kind = ir.VectorType(I32, n // 2)
    lower = shuffle(builder, first, ir.Constant(first.type, ir.Undefined), range(2 * n))
    before = builder.bitcast(offset(builder, pointer, -n), kind.as_pointer())
    is_second = ir.Constant(ir.VectorType(ir.IntType(1), n // 2), [0] * (n // 4) + [1] * (n // 4))
    args = before, I32(1), is_second, builder.bitcast(lower, kind)
    both = intrinsic(builder, f"llvm.masked.load.v{n // 2}i32.p0", kind, *args)
    return builder.bitcast(both, ir.VectorType(I8, 2 * n))


def store(builder: Any, pointer: Any, value: Any) -> None:
    """Have it stored there."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=1)


def finished(builder: Any, value: Any) -> Any:
    """LLVM computes this before it loads what comes later: else it mixes more than registers hold."""
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", "=v,0,~{memory}", [value], True)


def intrinsic(builder: Any, name: str, result: Any, *args: Any) -> Any:
    """A call of what LLVM has under this name."""
    signature = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


# ---------------------------------------------------------------- bits and places in a register


def placed_bits(builder: Any, value: Any, sources: Mapping[int, int]) -> Any:
    """Each byte's bits anew, with GFNI: `sources` says which bit goes to a place; other places are zero."""
    octets = ir.VectorType(I8, 64)
    matrix = [1 << sources[place] if place in sources else 0 for place in reversed(range(8))]
    by = ir.Constant(octets, matrix * 8)
    name = "llvm.x86.vgf2p8affineqb.512"
    parts = [
        intrinsic(builder, name, octets, shuffle(builder, value, value, range(at, at + 64)), by, I8(0))
        for at in range(0, value.type.count, 64)
    ]
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [shuffle(builder, a, b, range(2 * a.type.count)) for a, b in pairs]
    return parts[0]


TOGETHER = 2 if HAS_VNNI else 1
"""Registers whose products are scaled in one instruction."""
ZERO = 128
"""The place of no byte."""


def spread_scales(builder: Any, value: Any, i: Any) -> Any:
    """Of the eight int16 in each quarter or half the next one or two, in as many places as there are."""
    order = [at for k in range(TOGETHER) for at in 8 // TOGETHER * [2 * k, 2 * k + 1]]
    return _spread(builder, value, builder.shl(i, I64(TOGETHER)), order)


def spread_bytes(builder: Any, value: Any, i: Any) -> Any:
    """The same of 16 bytes: the even ones for the first quarter or half, the odd ones for the next."""
    order = [at for odd in (0, 1) for k in range(TOGETHER) for at in 8 // TOGETHER * [2 * k + odd, ZERO]]
    return _spread(builder, value, builder.shl(i, I64(TOGETHER)), order)


def _spread(builder: Any, value: Any, first: Any, order: list[int]) -> Any:
    """The bytes of each quarter or half in this order, which counts from byte `first` there, as int16."""
    n = 2 * value.type.count if value.type.element == I16 else value.type.count
    octets = ir.VectorType(I8, n)
    one = builder.insert_element(ir.Constant(octets, ir.Undefined), builder.trunc(first, I8), I32(0))
    index = builder.add(shuffle(builder, one, one, [0] * n), ir.Constant(octets, order * (n // len(order))))
    name = "llvm.x86.avx512.pshuf.b.512" if n == 64 else "llvm.x86.avx2.pshuf.b"
    found = intrinsic(builder, name, octets, builder.bitcast(value, octets), index)
    return builder.bitcast(found, ir.VectorType(I16, n // 2))


def widened_once(builder: Any, value: Any) -> Any:
    """LLVM does not see through this: it would spread the bytes and then widen each, twice the work."""
    if not HAS_VNNI:
        return value
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", "=v,0", [value], False)
