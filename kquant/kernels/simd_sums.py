"""Sums of products of bytes, in as few instructions as the CPU has for them.

Imported by `kquant.kernels.jit` only, when the first kernel is compiled.  What the CPU has is what LLVM says
it has.  Without any of it, as on ARM, and with the environment variable `KQUANT_PORTABLE` set, the sums are
spelled out, and LLVM makes of them what it can.  The integers are the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target

from kquant.kernels.products import ROWS
from kquant.kernels.simd import I32
from kquant.kernels.simd_memory import IS_ZEN

__all__ = [
    *("FEW", "HALF", "HAS_GFNI", "HAS_VNNI", "I8", "I16", "I64", "MANY", "WORDS"),
    *("add_fours_of_bytes", "add_pairs_of_bytes", "add_pairs_of_shorts", "add_scaled", "narrowed"),
    *(
        "dots",
        "everywhere",
        "load",
        "move_bits",
        "offset",
        "pair_dots",
        "shuffle",
        "spread_short",
        "spread_shorts",
    ),
    *("store", "widened_once"),
]

llvm.initialize_native_asmparser()  # for the instructions that are written out below

I8, I16, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(64)
OCTETS, SHORTS, WORDS = ir.VectorType(I8, 4 * ROWS), ir.VectorType(I16, 2 * ROWS), ir.VectorType(I32, ROWS)
"""Four bytes of each row, as what they are taken for."""
FEW_PRODUCTS = 16
"""Whose sum may fit 16 bits."""
HALF = ROWS // 2
"""Rows in a register of AVX2, and in either half of a tile."""


def is_portable() -> bool:
    """Whether kernels are compiled without instructions that only some CPUs have."""
    return os.environ.get("KQUANT_PORTABLE", "") not in ("", "0")


def _has(*features: str) -> bool:
    of_cpu = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return not is_portable() and all(f"+{name}" in of_cpu for name in features)


HAS_VNNI, HAS_AVX2, HAS_GFNI = _has("avx512bw", "avx512vnni"), _has("avx2"), _has("avx512bw", "gfni")
MANY, FEW = (12, 4) if HAS_VNNI else (2, 1)
"""Columns whose sums stay in registers, and a number of them for what is left."""


# ---------------------------------------------------------------- what every lowering needs


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


def store(builder: Any, pointer: Any, value: Any) -> None:
    """Have it stored there."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=1)


# ---------------------------------------------------------------- sums of four products


def dots(builder: Any, weights: Sequence[Any], q: Any, columns: int, step: int, top: int) -> list[Any]:
    """For each column, int32 of each row: the sum of the products of bytes.

    weights: four bytes of each row, up to `top`; q: where the first column's signed bytes for them are,
    `step` bytes before the next column's.
    """
    if HAS_VNNI:
        return _at_once(builder, "vpdpbusd", weights, q, columns, step)
    emit = _dots_in_pairs if HAS_AVX2 else _dots_spelled_out
    return [emit(builder, weights, _quads(builder, q, len(weights), step * c), top) for c in range(columns)]


def add_scaled(
    builder: Any, totals: list[Any], weights: Sequence[Any], scale: Any, first: Any, step: int, top: int
) -> list[Any]:
    """For each column, the total and the scale times the sum of the products of bytes: see `dots`."""
    columns = len(totals)
    multiplies_fast = IS_ZEN and 4 * len(weights) > FEW_PRODUCTS  # one product for two sums of pairs
    if not HAS_VNNI or multiplies_fast or top * FEW_PRODUCTS * 128 > 32767:
        sums = dots(builder, weights, first, columns, step, top)
        return [
            builder.add(total, builder.mul(value, scale)) for total, value in zip(totals, sums, strict=True)
        ]
    low = builder.and_(scale, ir.Constant(WORDS, [0xFFFF] * ROWS))  # a pair of int16, the second of them zero
    signature = ir.FunctionType(WORDS, [WORDS, WORDS, WORDS])
    for at in range(0, len(weights), FEW_PRODUCTS // 4):
        some, q = weights[at : at + FEW_PRODUCTS // 4], offset(builder, first, 4 * at)
        sums = _at_once(builder, "vpdpbusd", some, q, columns, step)
        totals = [
            builder.asm(signature, "vpdpwssd $3, $2, $0", "=v,0,v,v", [total, value, low], True)
            for total, value in zip(totals, sums, strict=True)
        ]
    return totals


def _quads(builder: Any, first: Any, n: int, distance: int) -> list[Any]:
    """n times four bytes, for each row."""
    return [
        everywhere(builder, load(builder, offset(builder, first, distance + 4 * i), I32)) for i in range(n)
    ]


def _at_once(
    builder: Any, instruction: str, weights: Sequence[Any], first: Any, columns: int, step: int
) -> list[Any]:
    """One column after the other, four bytes after four: no sum waits for the one before it.

    LLVM would order them anew, by column, and take half as long again.  Hence volatile instructions.
    """
    chains = 2 if columns == 1 and len(weights) > 4 else 1
    totals = [ir.Constant(WORDS, None)] * (columns * chains)
    signature = ir.FunctionType(WORDS, [WORDS, WORDS, first.type])
    for i, weight in enumerate(weights):
        for c in range(columns):
            which = c * chains + i % chains
            text = f"{instruction} {step * c + 4 * i}($3){{1to{ROWS}}}, $2, $0"
            totals[which] = builder.asm(signature, text, "=v,0,v,r", [totals[which], weight, first], True)
    return [reduce(builder.add, totals[chains * c : chains * (c + 1)]) for c in range(columns)]


def _intrinsic(builder: Any, name: str, result: Any, *args: Any) -> Any:
    signature = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


def _halves(builder: Any, vectors: Sequence[Any], each: int, kind: Any) -> list[list[Any]]:
    """The vectors' shares of AVX2's registers, as lanes of this kind."""
    part = ir.VectorType(kind, HALF * each)
    return [
        [builder.bitcast(shuffle(builder, v, v, range(at, at + HALF)), part) for v in vectors]
        for at in (0, HALF)
    ]


def _whole(builder: Any, halves: Sequence[Any]) -> Any:
    return shuffle(builder, halves[0], halves[1], range(ROWS))


def _dots_in_pairs(builder: Any, weights: Sequence[Any], activations: Sequence[Any], top: int) -> Any:
    """Sums of two products in 16 bits, which are added as long as they fit."""
    shorts, words = ir.VectorType(I16, 2 * HALF), ir.VectorType(I32, HALF)
    masks = (127,) if top < 128 else (127, 128)
    together = max(1, 32767 // (2 * 128 * min(top, 127)))
    found = []
    for share in _halves(builder, [*weights, *activations], 4, I8):
        pairs = list(zip(share[: len(weights)], share[len(weights) :], strict=True))
        if len(masks) > 1:
            pairs = [
                (builder.and_(u, ir.Constant(u.type, [m] * (4 * HALF))), s) for u, s in pairs for m in masks
            ]
        sums = [_intrinsic(builder, "llvm.x86.avx2.pmadd.ub.sw", shorts, u, s) for u, s in pairs]
        parts = [reduce(builder.add, sums[at : at + together]) for at in range(0, len(sums), together)]
        ones = ir.Constant(shorts, [1] * (2 * HALF))
        wide = [_intrinsic(builder, "llvm.x86.avx2.pmadd.wd", words, part, ones) for part in parts]
        found.append(reduce(builder.add, wide))
    return _whole(builder, found)


def _dots_spelled_out(builder: Any, weights: Sequence[Any], activations: Sequence[Any], top: int) -> Any:
    shorts = ir.VectorType(I16, 4 * ROWS)
    total = ir.Constant(WORDS, None)
    for u, s in zip(weights, activations, strict=True):
        wide = (
            builder.zext(builder.bitcast(u, OCTETS), shorts),
            builder.sext(builder.bitcast(s, OCTETS), shorts),
        )
        total = builder.add(total, _neighbours(builder, builder.mul(*wide)))
    return total


def _neighbours(builder: Any, value: Any) -> Any:
    """The sum of each row's lanes, as int32."""
    each = value.type.count // ROWS
    parts = (shuffle(builder, value, value, range(k, value.type.count, each)) for k in range(each))
    return reduce(builder.add, [builder.sext(part, WORDS) for part in parts])


# ---------------------------------------------------------------- sums of two products


def pair_dots(builder: Any, weights: Sequence[Any], sums: Any, columns: int, step: int) -> list[Any]:
    """The same for pairs of int16."""
    if HAS_VNNI:
        return _at_once(builder, "vpdpwssd", weights, sums, columns, step)
    emit = _pairs_at_once if HAS_AVX2 else _pairs_spelled_out
    found = []
    for c in range(columns):
        both = zip(weights, _quads(builder, sums, len(weights), step * c), strict=True)
        found.append(reduce(builder.add, [emit(builder, *pair) for pair in both]))
    return found


def _pairs_at_once(builder: Any, x: Any, y: Any) -> Any:
    words = ir.VectorType(I32, HALF)
    halves = _halves(builder, (x, y), 2, I16)
    return _whole(builder, [_intrinsic(builder, "llvm.x86.avx2.pmadd.wd", words, *half) for half in halves])


def _pairs_spelled_out(builder: Any, x: Any, y: Any) -> Any:
    wide = ir.VectorType(I32, 2 * ROWS)
    product = builder.mul(*(builder.sext(builder.bitcast(v, SHORTS), wide) for v in (x, y)))
    return builder.add(*(shuffle(builder, product, product, range(k, 2 * ROWS, 2)) for k in (0, 1)))


# ---------------------------------------------------------------- bits


def move_bits(builder: Any, value: Any, first: int, n: int, to: int) -> Any:
    """In one instruction, which multiplies the bits of each byte with a matrix; 64 bytes at a time."""
    octets = ir.VectorType(I8, 64)
    matrix = [0] * 8
    for bit in range(n):
        matrix[7 - (to + bit)] = 1 << (first + bit)
    by = ir.Constant(octets, matrix * 8)
    name = "llvm.x86.vgf2p8affineqb.512"
    parts = [
        _intrinsic(builder, name, octets, shuffle(builder, value, value, range(at, at + 64)), by, I8(0))
        for at in range(0, value.type.count, 64)
    ]
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [shuffle(builder, a, b, range(2 * a.type.count)) for a, b in pairs]
    return parts[0]


# ---------------------------------------------------------------- rows that lie side by side


def add_pairs_of_bytes(builder: Any, levels: Any, x: Any) -> Any:
    """int16: level * activation, two neighbours added; AVX2's half of it or all of AVX-512's."""
    name = "llvm.x86.avx512.pmaddubs.w.512" if levels.type.count == 64 else "llvm.x86.avx2.pmadd.ub.sw"
    return _intrinsic(builder, name, ir.VectorType(I16, levels.type.count // 2), levels, x)


def add_fours_of_bytes(builder: Any, levels: Any, x: Any) -> Any:
    """int32: level * activation, four neighbours added, with VNNI."""
    words = ir.VectorType(I32, levels.type.count // 4)
    given = ir.Constant(words, None), *(builder.bitcast(value, words) for value in (levels, x))
    return _intrinsic(builder, "llvm.x86.avx512.vpdpbusd.512", words, *given)


def narrowed(builder: Any, first: Any, second: Any) -> Any:
    """int16: in each quarter four lanes of the first, then four of the second; they fit."""
    shorts = ir.VectorType(I16, 2 * first.type.count)
    return _intrinsic(builder, "llvm.x86.avx512.packssdw.512", shorts, first, second)


def add_pairs_of_shorts(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """int32: the total and x * y, two neighbours added."""
    if HAS_VNNI:
        signature = ir.FunctionType(total.type, [total.type, x.type, y.type])
        return builder.asm(signature, "vpdpwssd $3, $2, $0", "=v,0,v,v", [total, x, y], False)
    if total.type.count > HALF:
        return builder.add(total, _pairs_at_once(builder, *(builder.bitcast(v, WORDS) for v in (x, y))))
    return builder.add(total, _intrinsic(builder, "llvm.x86.avx2.pmadd.wd", total.type, x, y))


def spread_short(builder: Any, value: Any, i: Any) -> Any:
    """Number i of the eight int16 in each quarter or half, in all places there."""
    n = 2 * value.type.count
    octets = ir.VectorType(I8, n)
    name = "llvm.x86.avx512.pshuf.b.512" if n == 64 else "llvm.x86.avx2.pshuf.b"
    at = builder.trunc(builder.shl(i, I64(1)), I8)
    first = builder.insert_element(ir.Constant(octets, ir.Undefined), at, I32(0))
    order = builder.add(shuffle(builder, first, first, [0] * n), ir.Constant(octets, [0, 1] * (n // 2)))
    found = _intrinsic(builder, name, octets, builder.bitcast(value, octets), order)
    return builder.bitcast(found, value.type)


def spread_shorts(builder: Any, value: Any, i: Any) -> Any:
    """Numbers 2 i and 2 i + 1 of the eight int16 in each quarter, in four places each."""
    n = 2 * value.type.count
    octets = ir.VectorType(I8, n)
    at = builder.trunc(builder.shl(i, I64(2)), I8)
    first = builder.insert_element(ir.Constant(octets, ir.Undefined), at, I32(0))
    order = [0, 1] * 4 + [2, 3] * 4
    order = builder.add(shuffle(builder, first, first, [0] * n), ir.Constant(octets, order * (n // 16)))
    found = _intrinsic(builder, "llvm.x86.avx512.pshuf.b.512", octets, builder.bitcast(value, octets), order)
    return builder.bitcast(found, value.type)


def widened_once(builder: Any, value: Any) -> Any:
    """LLVM does not see through this: it would spread the bytes and then widen each, twice the work."""
    if not HAS_VNNI:
        return value
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", "=v,0", [value], False)
