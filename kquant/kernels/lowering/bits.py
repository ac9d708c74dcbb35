"""Lowers what of `language.products` that takes levels out of packed bytes.

Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from kquant.kernels.language import products
from kquant.kernels.language.products import ROWS
from kquant.kernels.lowering.isa.facts import HAS_BIT_MATRICES
from kquant.kernels.lowering.lanes import LanesType, teach
from kquant.kernels.lowering.rows import LITERAL, lane_of
from kquant.kernels.lowering.vectors import I16, placed_bits, shuffle


def _has_matrices(value: Any) -> bool:
    return HAS_BIT_MATRICES and value.type.count % 64 == 0


def _masked(builder: Any, value: Any, mask: int) -> Any:
    return builder.and_(value, ir.Constant(value.type, [mask] * value.type.count))


def bits(builder: Any, value: Any, first: int, n: int, to: int) -> Any:
    """See `products.moved`.

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


def _moved(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return bits(builder, args[0], *(t.literal_value for t in sig.args[1:]))


teach(products.moved, lambda *args: args[:1] + args, (LanesType, LITERAL, LITERAL, LITERAL))(_moved)


# ---------------------------------------------------------------- levels in two parts


def _halves_of(builder: Any, low: Any, high: Any) -> Any:
    """The low four bits of one register's bytes, and the high four of another's."""
    return builder.or_(_masked(builder, low, 15), _masked(builder, high, 240))


def _nibble_with(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """A matrix: one instruction moves the bits of `high` for both nibbles."""
    q, _, high = args[:3]
    i, n, first, second = (sig.args[k].literal_value for k in (1, 3, 4, 5))
    if not _has_matrices(q):
        parts = (bits(builder, q, 4 * i, 4, 0), bits(builder, high, second if i else first, n, 4))
        return builder.or_(*parts)
    fields = {to + k: at + k for to, at in ((4, first), (0, second)) for k in range(n)}
    both = placed_bits(builder, high, fields)
    if i == 0:
        return _halves_of(builder, q, both)
    above = {4 + k: k for k in range(n)}
    return placed_bits(builder, _halves_of(builder, both, q), {k: 4 + k for k in range(4)} | above)


teach(
    products.nibble_with,
    lambda *args: args[:1] + args,
    (LanesType, LITERAL, LanesType, LITERAL, LITERAL, LITERAL),
)(_nibble_with)


def _pair_with(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Matrices: both are put into halves of bytes; if they are in the same half, one changes its own."""
    q, _, high = args[:3]
    i, at = (sig.args[k].literal_value for k in (1, 3))
    if not _has_matrices(q):
        return builder.or_(bits(builder, q, 2 * i, 2, 0), bits(builder, high, at, 1, 2))
    if at // 4 == i // 2:
        high, at = placed_bits(builder, high, {k: (k + 4) % 8 for k in range(8)}), (at + 4) % 8
    both = _halves_of(builder, *((high, q) if i // 2 else (q, high)))
    return placed_bits(builder, both, {0: 2 * i, 1: 2 * i + 1, 2: at})


teach(
    products.pair_with,
    lambda *args: args[:1] + args,
    (LanesType, LITERAL, LanesType, LITERAL),
)(_pair_with)


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


teach(
    products.bits_at,
    lambda *args: (LanesType("uint8", 16 * ROWS), *args),
    (LanesType, LITERAL, LITERAL),
)(_bits_at)
