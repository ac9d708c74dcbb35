"""What every lowering of products needs: vectors in memory and in registers.

Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llvmlite import ir

from kquant.kernels.layout import ROWS
from kquant.kernels.lowering.isa.facts import HAS_BYTE_DOTS
from kquant.kernels.lowering.isa.memory import load_where
from kquant.kernels.lowering.isa.moves import matrix_of_bits, opaque, shuffled_bytes
from kquant.kernels.lowering.values import I8, I16, I32, I64, load, offset, shuffle, splat, store

__all__ = [
    "HALF",
    "I8",
    "I16",
    "I64",
    "OCTETS",
    "SHORTS",
    "WORDS",
    "everywhere",
    "load",
    "load_behind",
    "offset",
    "placed_bits",
    "shuffle",
    "spread_bytes",
    "spread_scales",
    "store",
    "widened_once",
]

OCTETS, SHORTS, WORDS = ir.VectorType(I8, 4 * ROWS), ir.VectorType(I16, 2 * ROWS), ir.VectorType(I32, ROWS)
"""Four bytes of each row, as what they are taken for."""
HALF = ROWS // 2
"""Rows in half a register of 64 bytes, and in either half of a tile."""


# ---------------------------------------------------------------- vectors


def everywhere(builder: Any, value: Any) -> Any:
    """A scalar for each row."""
    return splat(builder, value, ROWS)


def load_behind(builder: Any, first: Any, pointer: Any) -> Any:
    """The vector, and as much again from memory behind it, without a shuffle.

    A load as wide as both, from so far before the pointer, writes the second half only.  It is slow where
    its lanes of 32 bits lie across the borders of cache lines.
    """
    n = first.type.count
    kind = ir.VectorType(I32, n // 2)
    lower = shuffle(builder, first, ir.Constant(first.type, ir.Undefined), range(2 * n))
    second_half = range(n // 4, n // 2)
    both = load_where(builder, offset(builder, pointer, -n), second_half, builder.bitcast(lower, kind))
    return builder.bitcast(both, ir.VectorType(I8, 2 * n))


# ---------------------------------------------------------------- bits and places in a register


def placed_bits(builder: Any, value: Any, sources: Mapping[int, int]) -> Any:
    """Each byte's bits anew: `sources` says which bit goes to a place; other places are zero."""
    octets = ir.VectorType(I8, 64)
    matrix = [1 << sources[place] if place in sources else 0 for place in reversed(range(8))]
    by = ir.Constant(octets, matrix * 8)
    parts = [
        matrix_of_bits(builder, shuffle(builder, value, value, range(at, at + 64)), by)
        for at in range(0, value.type.count, 64)
    ]
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [shuffle(builder, a, b, range(2 * a.type.count)) for a, b in pairs]
    return parts[0]


TOGETHER = 2 if HAS_BYTE_DOTS else 1
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
    found = shuffled_bytes(builder, builder.bitcast(value, octets), index)
    return builder.bitcast(found, ir.VectorType(I16, n // 2))


def widened_once(builder: Any, value: Any) -> Any:
    """LLVM would spread the bytes and then widen each, twice the work, if it saw through this."""
    return opaque(builder, value) if HAS_BYTE_DOTS else value
