"""Sums of products of bytes, in as few instructions as the processor has for them.

Where it has none, the sums are spelled out, and LLVM makes of them what it can.  The integers
are the same.  Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from llvmlite import ir

from kquant.kernels.layout import ROWS
from kquant.kernels.lowering.isa.dots import (
    add_dots_of_bytes,
    add_dots_of_shorts,
    add_dots_with_memory,
    narrowed,
    pairs_of_bytes,
    pairs_of_shorts,
)
from kquant.kernels.lowering.isa.facts import HAS_BYTE_DOTS, HAS_BYTE_PAIRS, SUMS_BY_TURNS, TUNING
from kquant.kernels.lowering.values import I8, I16, I32, load, offset, shuffle
from kquant.kernels.lowering.vectors import HALF, OCTETS, SHORTS, WORDS, everywhere

__all__ = [
    "add_dots",
    "add_fours_by_lane",
    "add_fours_of_bytes",
    "add_pairs_of_shorts",
    "add_scaled",
    "dots",
    "narrowed",
    "pair_dots",
    "pairs_of_bytes",
]

FEW_PRODUCTS = 16
"""Whose sum may fit 16 bits."""


# ---------------------------------------------------------------- sums of four products


def dots(builder: Any, weights: Sequence[Any], q: Any, columns: int, step: int, top: int) -> list[Any]:
    """For each column, int32 of each row: the sum of the products of bytes.

    weights: four bytes of each row, up to `top`, or where they are; q: where the first column's signed bytes
    for them are, `step` bytes before the next column's.
    """
    if HAS_BYTE_DOTS:
        return _at_once(builder, 8, weights, q, columns, step)
    emit = _dots_in_pairs if HAS_BYTE_PAIRS else _dots_spelled_out
    weights = [_in_register(builder, weight) for weight in weights]
    return [emit(builder, weights, _quads(builder, q, len(weights), step * c), top) for c in range(columns)]


def add_dots(builder: Any, totals: list[Any], weights: Sequence[Any], q: Any, step: int) -> list[Any]:
    """For each column, the total and the sum of the products of bytes: see `dots`.

    Where `HAS_BYTE_DOTS`.
    """
    return _at_once(builder, 8, weights, q, len(totals), step, totals)


def add_scaled(
    builder: Any, totals: list[Any], weights: Sequence[Any], scale: Any, first: Any, step: int, top: int
) -> list[Any]:
    """For each column, the total and the scale times the sum of the products of bytes: see `dots`."""
    columns = len(totals)
    in_words = TUNING.multiplies_fast and 4 * len(weights) > FEW_PRODUCTS  # one product for two sums of pairs
    if not HAS_BYTE_DOTS or in_words or top * FEW_PRODUCTS * 128 > 32767:
        sums = dots(builder, weights, first, columns, step, top)
        return [
            builder.add(total, builder.mul(value, scale)) for total, value in zip(totals, sums, strict=True)
        ]
    low = builder.and_(scale, ir.Constant(WORDS, [0xFFFF] * ROWS))  # a pair of int16, the second of them zero
    for at in range(0, len(weights), FEW_PRODUCTS // 4):
        some, q = weights[at : at + FEW_PRODUCTS // 4], offset(builder, first, 4 * at)
        sums = _at_once(builder, 8, some, q, columns, step)
        totals = [
            add_dots_of_shorts(builder, total, value, low, in_order=True)
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
    bits: int,
    weights: Sequence[Any],
    first: Any,
    columns: int,
    step: int,
    totals: Sequence[Any] = (),
) -> list[Any]:
    """One column after the other, four bytes after four: no sum waits for the one before it.

    The four bytes are integers of so many bits.  LLVM would order them anew, by column, and take half as long
    again: hence instructions that stay in order.  Weights are loaded where they are needed: all of them
    before would leave too few registers for the sums.
    """
    chains = SUMS_BY_TURNS if columns == 1 and len(weights) > 4 else 1
    totals = [*totals, *[ir.Constant(WORDS, None)] * (columns * chains - len(totals))]
    for i, place in enumerate(weights):
        weight = _in_register(builder, place)
        for c in range(columns):
            which = c * chains + i % chains
            distance = step * c + 4 * i
            totals[which] = add_dots_with_memory(builder, bits, totals[which], weight, first, distance)
    return [reduce(builder.add, totals[chains * c : chains * (c + 1)]) for c in range(columns)]


def _halves(builder: Any, vectors: Sequence[Any], each: int, kind: Any) -> list[list[Any]]:
    """The vectors' shares of registers half as wide, as lanes of this kind."""
    part = ir.VectorType(kind, HALF * each)
    return [
        [builder.bitcast(shuffle(builder, v, v, range(at, at + HALF)), part) for v in vectors]
        for at in (0, HALF)
    ]


def _whole(builder: Any, halves: Sequence[Any]) -> Any:
    return shuffle(builder, halves[0], halves[1], range(ROWS))


def _dots_in_pairs(builder: Any, weights: Sequence[Any], activations: Sequence[Any], top: int) -> Any:
    """Sums of two products in 16 bits, which are added as long as they fit."""
    shorts = ir.VectorType(I16, 2 * HALF)
    masks = (127,) if top < 128 else (127, 128)
    together = max(1, 32767 // (2 * 128 * min(top, 127)))
    found = []
    for share in _halves(builder, [*weights, *activations], 4, I8):
        pairs = list(zip(share[: len(weights)], share[len(weights) :], strict=True))
        if len(masks) > 1:
            pairs = [
                (builder.and_(u, ir.Constant(u.type, [m] * (4 * HALF))), s) for u, s in pairs for m in masks
            ]
        sums = [pairs_of_bytes(builder, u, s) for u, s in pairs]
        parts = [reduce(builder.add, sums[at : at + together]) for at in range(0, len(sums), together)]
        ones = ir.Constant(shorts, [1] * (2 * HALF))
        wide = [pairs_of_shorts(builder, part, ones) for part in parts]
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
    if HAS_BYTE_DOTS:
        return _at_once(builder, 16, weights, sums, columns, step)
    emit = _pairs_at_once if HAS_BYTE_PAIRS else _pairs_spelled_out
    weights = [_in_register(builder, weight) for weight in weights]
    found = []
    for c in range(columns):
        both = zip(weights, _quads(builder, sums, len(weights), step * c), strict=True)
        found.append(reduce(builder.add, [emit(builder, *pair) for pair in both]))
    return found


def _pairs_at_once(builder: Any, x: Any, y: Any) -> Any:
    halves = _halves(builder, (x, y), 2, I16)
    return _whole(builder, [pairs_of_shorts(builder, *half) for half in halves])


def _pairs_spelled_out(builder: Any, x: Any, y: Any) -> Any:
    wide = ir.VectorType(I32, 2 * ROWS)
    product = builder.mul(*(builder.sext(builder.bitcast(v, SHORTS), wide) for v in (x, y)))
    return builder.add(*(shuffle(builder, product, product, range(k, 2 * ROWS, 2)) for k in (0, 1)))


# ---------------------------------------------------------------- rows that lie side by side


def add_fours_of_bytes(builder: Any, levels: Any, x: Any) -> Any:
    """int32: level * activation, four neighbours added; where `HAS_BYTE_DOTS`."""
    words = ir.VectorType(I32, levels.type.count // 4)
    u, s = (builder.bitcast(value, words) for value in (levels, x))
    return add_dots_of_bytes(builder, ir.Constant(words, None), u, s)


def add_fours_by_lane(builder: Any, total: Any, weights: Any, x: Any) -> Any:
    """int32 of each row: the total and the sum of the products of four bytes, all of them below 128."""
    weights = builder.bitcast(weights, WORDS)
    if HAS_BYTE_DOTS:
        return add_dots_of_bytes(builder, total, weights, x)
    return builder.add(total, _dots_in_pairs(builder, [weights], [x], 127))


def add_pairs_of_shorts(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """int32: the total and x * y, two neighbours added."""
    if HAS_BYTE_DOTS:
        return add_dots_of_shorts(builder, total, x, y)
    if total.type.count > HALF:
        return builder.add(total, _pairs_at_once(builder, *(builder.bitcast(v, WORDS) for v in (x, y))))
    return builder.add(total, pairs_of_shorts(builder, x, y))
