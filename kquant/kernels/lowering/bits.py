"""Lowers the part of `language.packed` that takes levels out of packed bytes.

Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from kquant.kernels.language import packed
from kquant.kernels.layout import ROWS
from kquant.kernels.lowering.isa.facts import HAS_BIT_MATRICES
from kquant.kernels.lowering.isa.memory import gathered_words
from kquant.kernels.lowering.lanes import LanesType, register
from kquant.kernels.lowering.rows import LITERAL, QUAD, in_array, lane_of, number_from
from kquant.kernels.lowering.vectors import I16, WORDS, placed_bits, shuffle


def _has_matrices(value: Any) -> bool:
    return HAS_BIT_MATRICES and value.type.count % 64 == 0


def _masked(builder: Any, value: Any, mask: int) -> Any:
    return builder.and_(value, ir.Constant(value.type, [mask] * value.type.count))


def bits(builder: Any, value: Any, first: int, n: int, to: int) -> Any:
    """n bits of each byte, from bit `first` on, moved to bit `to`; the others are zero.

    A matrix of bits moves and masks at once, but shares its ports with products, so it is not for what a mask
    does, nor for the top bits.  Shifts are of 16 bits: of 8, LLVM would make a matrix again.
    """
    there, mask = value, ((1 << n) - 1) << to
    if first != to:
        if _has_matrices(value) and (to or first + n < 8):
            return placed_bits(builder, value, {to + k: first + k for k in range(n)})
        shorts = ir.VectorType(I16, value.type.count // 2)
        shift = builder.lshr if first > to else builder.shl
        there = shift(builder.bitcast(value, shorts), ir.Constant(shorts, [abs(first - to)] * shorts.count))
    return _masked(builder, builder.bitcast(there, value.type), mask)


def _bits(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    first, n = (t.literal_value for t in sig.args[1:])
    return bits(builder, args[0], first, n, 0)


register(packed.bits, lambda *args: args[:1] + args, (LanesType, LITERAL, LITERAL))(_bits)


# ---------------------------------------------------------------- levels in two parts


def _halves_of(builder: Any, low: Any, high: Any) -> Any:
    """The low four bits of one register's bytes, and the high four of another's."""
    return builder.or_(_masked(builder, low, 15), _masked(builder, high, 240))


def _joined(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    low, _, _, high = args[:4]
    first, n, second, m = (sig.args[k].literal_value for k in (1, 2, 4, 5))
    in_halves = all(at // 4 == (at + count - 1) // 4 for at, count in ((first, n), (second, m)))
    if not (_has_matrices(low) and in_halves):
        return builder.or_(bits(builder, low, first, n, 0), bits(builder, high, second, m, n))
    return _in_one_move(builder, low, first, n, high, second, m)


def _in_one_move(builder: Any, low: Any, first: int, n: int, high: Any, second: int, m: int) -> Any:
    """Matrices: both are put into halves of bytes; if they are in the same half, one changes its own."""
    if first // 4 == second // 4:
        high = placed_bits(builder, high, {k: (k + 4) % 8 for k in range(8)})
        second = (second + 4) % 8
    both = _halves_of(builder, *((high, low) if first // 4 else (low, high)))
    return placed_bits(
        builder, both, {k: first + k for k in range(n)} | {n + k: second + k for k in range(m)}
    )


register(
    packed.joined,
    lambda *args: args[:1] + args,
    (LanesType, LITERAL, LITERAL, LanesType, LITERAL, LITERAL),
)(_joined)


def _nibbles_joined(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """A matrix: one instruction moves the bits of `high` for both nibbles."""
    low, high = args[:2]
    first, second, m = (t.literal_value for t in sig.args[2:])
    if _has_matrices(low):
        fields = {to + k: at + k for to, at in ((4, first), (0, second)) for k in range(m)}
        both = placed_bits(builder, high, fields)
        above = {k: 4 + k for k in range(4)} | {4 + k: k for k in range(m)}
        found = _halves_of(builder, low, both), placed_bits(builder, _halves_of(builder, both, low), above)
    else:
        found = tuple(
            builder.or_(bits(builder, low, 4 * i, 4, 0), bits(builder, high, at, m, 4))
            for i, at in enumerate((first, second))
        )
    return context.make_tuple(builder, sig.return_type, found)


register(
    packed.nibbles_joined,
    lambda *args: (types.Tuple((args[0], args[0])), *args),
    (LanesType, LanesType, LITERAL, LITERAL, LITERAL),
)(_nibbles_joined)


def _bits_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Each byte with 8 of the bits is repeated, and of each copy one bit looked at."""
    at, worth = (t.literal_value for t in sig.args[1:])
    out = sig.return_type.llvm
    wanted = [bit for first in range(at, at + 16, 4) for bit in ROWS * list(range(first, first + 4))]
    order = [lane_of(bit // 8, k // 4 % ROWS) for k, bit in enumerate(wanted)]
    masks = [1 << bit % 8 for bit in wanted]
    copies = shuffle(builder, args[0], args[0], order)
    some = builder.icmp_unsigned("!=", builder.and_(copies, ir.Constant(out, masks)), ir.Constant(out, None))
    return builder.select(some, ir.Constant(out, [worth] * out.count), ir.Constant(out, None))


register(
    packed.bits_at,
    lambda *args: (LanesType("uint8", 16 * ROWS), *args),
    (LanesType, LITERAL, LITERAL),
)(_bits_at)


# ---------------------------------------------------------------- digits to other bases, grids


def _high_product(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    wide = ir.VectorType(I16, args[0].type.count)
    number = ir.Constant(wide, [sig.args[1].literal_value] * wide.count)
    product = builder.mul(builder.zext(args[0], wide), number)
    return builder.trunc(builder.lshr(product, ir.Constant(wide, [8] * wide.count)), args[0].type)


register(packed.high_product, lambda *args: args[:1] + args, (LanesType, LITERAL))(_high_product)


def _gather_type(grid: Any, low: Any, high: Any) -> Any:
    return LanesType("uint8", 4 * low.width) if grid.ndim == 2 else None, grid, low, high


def _gather(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Four bytes of a grid are a word, which processors gather for all rows at once."""
    first = in_array(context, builder, sig.args[0], args[0])
    words = []
    for i in range(args[1].type.count // QUAD * 4):
        low, high = (number_from(builder, LanesType("uint8", QUAD), value, i, 8) for value in args[1:])
        index = builder.or_(low, builder.shl(high, ir.Constant(WORDS, [8] * ROWS)))
        words.append(gathered_words(builder, first, index))
    while len(words) > 1:
        pairs = zip(words[::2], words[1::2], strict=True)
        words = [shuffle(builder, a, b, range(2 * a.type.count)) for a, b in pairs]
    return builder.bitcast(words[0], sig.return_type.llvm)


register(packed.gather, _gather_type, (types.Array, LanesType, LanesType))(_gather)
