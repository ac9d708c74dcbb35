"""Operations in plain LLVM IR: what each means, for any processor.

A model is a function of its own in the LLVM module, so that code stays small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from kquant.kernels.lowering.values import I8, I16, I32, I64, load, offset, shuffle, splat

__all__ = [
    "called",
    "dots_of_bytes",
    "dots_of_shorts",
    "gathered_words",
    "load_where",
    "matrix_of_bits",
    "narrowed",
    "pairs_of_bytes",
    "pairs_of_shorts",
    "picked_words",
    "shuffled_bytes",
]

QUARTER = 16
"""Bytes that byte shuffles and narrowing do not leave."""

_Model = Callable[..., Any]


def called(builder: Any, model: _Model, result: Any, *args: Any) -> Any:
    """A call of the function that `model`, given a builder and arguments, writes for these types."""
    kinds = "-".join(f"{arg.type.count}x{arg.type.element}" for arg in args)
    name = f"kquant-model-{model.__name__}-{kinds}"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(result, [arg.type for arg in args]), name)
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        inner = ir.IRBuilder(function.append_basic_block())
        inner.ret(model(inner, *function.args))
    return builder.call(function, args)


def _as(builder: Any, value: Any, element: Any) -> Any:
    """The same bits, as lanes of this kind."""
    bits = value.type.count * value.type.element.width
    return builder.bitcast(value, ir.VectorType(element, bits // element.width))


def _wide(value: Any, element: Any) -> Any:
    return ir.VectorType(element, value.type.count)


def _sums(builder: Any, products: Any, each: int) -> Any:
    """Neighbours added, so many of them."""
    total = None
    for k in range(each):
        part = shuffle(builder, products, products, range(k, products.type.count, each))
        total = part if total is None else builder.add(total, part)
    return total


def _within_shorts(builder: Any, words: Any) -> Any:
    """int32 as int16: the nearest that it has."""
    for bound, symbol in ((32767, "<"), (-32768, ">")):
        limit = ir.Constant(words.type, [bound] * words.type.count)
        words = builder.select(builder.icmp_signed(symbol, words, limit), words, limit)
    return builder.trunc(words, _wide(words, I16))


# ---------------------------------------------------------------- sums of products


def dots_of_bytes(builder: Any, total: Any, u: Any, s: Any) -> Any:
    """See `dots.add_dots_of_bytes`."""
    u, s = (_as(builder, value, I8) for value in (u, s))
    products = builder.mul(builder.zext(u, _wide(u, I32)), builder.sext(s, _wide(s, I32)))
    return builder.add(total, _sums(builder, products, 4))


def dots_of_shorts(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """See `dots.add_dots_of_shorts`."""
    return builder.add(total, pairs_of_shorts(builder, x, y))


def pairs_of_bytes(builder: Any, u: Any, s: Any) -> Any:
    """See `dots.pairs_of_bytes`."""
    products = builder.mul(builder.zext(u, _wide(u, I32)), builder.sext(s, _wide(s, I32)))
    return _within_shorts(builder, _sums(builder, products, 2))


def pairs_of_shorts(builder: Any, x: Any, y: Any) -> Any:
    """See `dots.pairs_of_shorts`."""
    x, y = (_as(builder, value, I16) for value in (x, y))
    return _sums(builder, builder.mul(builder.sext(x, _wide(x, I32)), builder.sext(y, _wide(y, I32))), 2)


def narrowed(builder: Any, first: Any, second: Any) -> Any:
    """See `dots.narrowed`."""
    n = first.type.count
    order = [side + lane for at in range(0, n, 4) for side in (0, n) for lane in range(at, at + 4)]
    return shuffle(builder, _within_shorts(builder, first), _within_shorts(builder, second), order)


# ---------------------------------------------------------------- bytes and bits


def shuffled_bytes(builder: Any, value: Any, index: Any) -> Any:
    """See `moves.shuffled_bytes`."""
    memory = builder.alloca(value.type)
    builder.store(value, memory)
    octets = builder.bitcast(memory, I8.as_pointer())
    found = ir.Constant(value.type, None)
    for i in range(value.type.count):
        at = builder.zext(builder.extract_element(index, I32(i)), I64)
        place = builder.or_(builder.and_(at, I64(QUARTER - 1)), I64(i // QUARTER * QUARTER))
        octet = builder.load(builder.gep(octets, [place]))
        kept = builder.select(builder.icmp_unsigned("<", at, I64(128)), octet, I8(0))
        found = builder.insert_element(found, kept, I32(i))
    return found


def picked_words(builder: Any, table: Any, index: Any) -> Any:
    """See `moves.picked_words`."""
    memory, n = builder.alloca(table.type), table.type.count
    builder.store(table, memory)
    words = builder.bitcast(memory, table.type.element.as_pointer())
    found = ir.Constant(table.type, ir.Undefined)
    for i in range(n):
        at = builder.and_(builder.extract_element(index, I32(i)), I32(n - 1))
        word = builder.load(builder.gep(words, [builder.zext(at, I64)]))
        found = builder.insert_element(found, word, I32(i))
    return found


def matrix_of_bits(builder: Any, value: Any, matrix: Any) -> Any:
    """See `moves.matrix_of_bits`."""
    n = value.type.count

    def constant(number: int) -> Any:
        return ir.Constant(value.type, [number] * n)

    found = ir.Constant(value.type, None)
    for bit in range(8):
        row = shuffle(builder, matrix, matrix, [i // 8 * 8 + 7 - bit for i in range(n)])
        parity = builder.and_(value, row)
        for distance in (4, 2, 1):
            parity = builder.xor(parity, builder.lshr(parity, constant(distance)))
        found = builder.or_(found, builder.shl(builder.and_(parity, constant(1)), constant(bit)))
    return found


# ---------------------------------------------------------------- memory


def load_where(builder: Any, pointer: Any, lanes: list[int], otherwise: Any) -> Any:
    """See `memory.load_where`."""
    size = otherwise.type.element.width // 8
    for lane in lanes:
        value = load(builder, offset(builder, pointer, size * lane), otherwise.type.element)
        otherwise = builder.insert_element(otherwise, value, I32(lane))
    return otherwise


def gathered_words(builder: Any, pointer: Any, index: Any) -> Any:
    """See `memory.gathered_words`."""
    found = ir.Constant(index.type, None)
    for lane in range(index.type.count):
        at = builder.shl(builder.zext(builder.extract_element(index, I32(lane)), I64), I64(2))
        found = builder.insert_element(found, load(builder, offset(builder, pointer, at), I32), I32(lane))
    return found


def repeated(builder: Any, pointer: Any, distance: int, n: int) -> Any:
    """The four bytes so far behind a pointer, n times."""
    return splat(builder, load(builder, offset(builder, pointer, distance), I32), n)
