"""Sums of products of bytes, in as few instructions as the CPU has for them.

Without any of these, as on ARM, the sums are spelled out, and LLVM makes of them what it can.  The integers
are the same.  Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from kquant.kernels.layout import ROWS
from kquant.kernels.lowering.lanes import I32
from kquant.kernels.lowering.memory import IS_ZEN
from kquant.kernels.lowering.vectors import (
    HALF,
    HAS_AVX2,
    HAS_VNNI,
    I8,
    I16,
    OCTETS,
    SHORTS,
    WORDS,
    everywhere,
    intrinsic,
    load,
    offset,
    shuffle,
)

llvm.initialize_native_asmparser()  # for the instructions that are written out below

FEW_PRODUCTS = 16
"""Whose sum may fit 16 bits."""
MANY, FEW = (12, 4) if HAS_VNNI else (2, 1)
"""Columns whose sums stay in registers, and a number of them for what is left."""


# ---------------------------------------------------------------- sums of four products


def dots(builder: Any, weights: Sequence[Any], q: Any, columns: int, step: int, top: int) -> list[Any]:
    """For each column, int32 of each row: the sum of the products of bytes.

    weights: four bytes of each row, up to `top`, or where they are; q: where the first column's signed bytes
    for them are, `step` bytes before the next column's.
    """
    if HAS_VNNI:
        return _at_once(builder, "vpdpbusd", weights, q, columns, step)
    emit = _dots_in_pairs if HAS_AVX2 else _dots_spelled_out
    weights = [_in_register(builder, weight) for weight in weights]
    return [emit(builder, weights, _quads(builder, q, len(weights), step * c), top) for c in range(columns)]


def add_dots(builder: Any, totals: list[Any], weights: Sequence[Any], q: Any, step: int) -> list[Any]:
    """For each column, the total and the sum of the products of bytes, with VNNI: see `dots`."""
    return _at_once(builder, "vpdpbusd", weights, q, len(totals), step, totals)


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


def _in_register(builder: Any, weight: Any) -> Any:
    return load(builder, weight, WORDS) if isinstance(weight.type, ir.PointerType) else weight


def _at_once(
    builder: Any,
    instruction: str,
    weights: Sequence[Any],
    first: Any,
    columns: int,
    step: int,
    totals: Sequence[Any] = (),
) -> list[Any]:
    """One column after the other, four bytes after four: no sum waits for the one before it.

    LLVM would order them anew, by column, and take half as long again.  Hence volatile instructions.  Weights
    are loaded where they are needed: all of them before would leave too few registers for the sums.
    """
    chains = 2 if columns == 1 and len(weights) > 4 else 1
    totals = [*totals, *[ir.Constant(WORDS, None)] * (columns * chains - len(totals))]
    signature = ir.FunctionType(WORDS, [WORDS, WORDS, first.type])
    for i, place in enumerate(weights):
        weight = _in_register(builder, place)
        for c in range(columns):
            which = c * chains + i % chains
            text = f"{instruction} {step * c + 4 * i}($3){{1to{ROWS}}}, $2, $0"
            totals[which] = builder.asm(signature, text, "=v,0,v,r", [totals[which], weight, first], True)
    return [reduce(builder.add, totals[chains * c : chains * (c + 1)]) for c in range(columns)]


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
        sums = [intrinsic(builder, "llvm.x86.avx2.pmadd.ub.sw", shorts, u, s) for u, s in pairs]
        parts = [reduce(builder.add, sums[at : at + together]) for at in range(0, len(sums), together)]
        ones = ir.Constant(shorts, [1] * (2 * HALF))
        wide = [intrinsic(builder, "llvm.x86.avx2.pmadd.wd", words, part, ones) for part in parts]
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
    weights = [_in_register(builder, weight) for weight in weights]
    found = []
    for c in range(columns):
        both = zip(weights, _quads(builder, sums, len(weights), step * c), strict=True)
        found.append(reduce(builder.add, [emit(builder, *pair) for pair in both]))
    return found


def _pairs_at_once(builder: Any, x: Any, y: Any) -> Any:
    words = ir.VectorType(I32, HALF)
    halves = _halves(builder, (x, y), 2, I16)
    return _whole(builder, [intrinsic(builder, "llvm.x86.avx2.pmadd.wd", words, *half) for half in halves])


def _pairs_spelled_out(builder: Any, x: Any, y: Any) -> Any:
    wide = ir.VectorType(I32, 2 * ROWS)
    product = builder.mul(*(builder.sext(builder.bitcast(v, SHORTS), wide) for v in (x, y)))
    return builder.add(*(shuffle(builder, product, product, range(k, 2 * ROWS, 2)) for k in (0, 1)))


# ---------------------------------------------------------------- rows that lie side by side


def add_pairs_of_bytes(builder: Any, levels: Any, x: Any) -> Any:
    """int16: level * activation, two neighbours added; AVX2's half of it or all of AVX-512's."""
    name = "llvm.x86.avx512.pmaddubs.w.512" if levels.type.count == 64 else "llvm.x86.avx2.pmadd.ub.sw"
    return intrinsic(builder, name, ir.VectorType(I16, levels.type.count // 2), levels, x)


def add_fours_of_bytes(builder: Any, levels: Any, x: Any) -> Any:
    """int32: level * activation, four neighbours added, with VNNI."""
    words = ir.VectorType(I32, levels.type.count // 4)
    given = ir.Constant(words, None), *(builder.bitcast(value, words) for value in (levels, x))
    return intrinsic(builder, "llvm.x86.avx512.vpdpbusd.512", words, *given)


def add_fours_by_lane(builder: Any, total: Any, weights: Any, x: Any) -> Any:
    """int32 of each row: the total and the sum of the products of four bytes, all of them below 128."""
    weights = builder.bitcast(weights, WORDS)
    if HAS_VNNI:
        return intrinsic(builder, "llvm.x86.avx512.vpdpbusd.512", WORDS, total, weights, x)
    return builder.add(total, _dots_in_pairs(builder, [weights], [x], 127))


def narrowed(builder: Any, first: Any, second: Any) -> Any:
    """int16: in each quarter four lanes of the first, then four of the second; they fit."""
    shorts = ir.VectorType(I16, 2 * first.type.count)
    return intrinsic(builder, "llvm.x86.avx512.packssdw.512", shorts, first, second)


def add_pairs_of_shorts(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """int32: the total and x * y, two neighbours added."""
    if HAS_VNNI:
        signature = ir.FunctionType(total.type, [total.type, x.type, y.type])
        return builder.asm(signature, "vpdpwssd $3, $2, $0", "=v,0,v,v", [total, x, y], False)
    if total.type.count > HALF:
        return builder.add(total, _pairs_at_once(builder, *(builder.bitcast(v, WORDS) for v in (x, y))))
    return builder.add(total, intrinsic(builder, "llvm.x86.avx2.pmadd.wd", total.type, x, y))
