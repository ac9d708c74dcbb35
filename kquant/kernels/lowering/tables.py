"""Lowers `kquant.kernels.language.tables`: a table is a register or two, and an instruction picks from it.

Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_constant
from numba.extending import models, register_model, typeof_impl

from kquant.kernels.language.tables import Table, lookup
from kquant.kernels.lowering.isa.facts import REGISTER_BYTES
from kquant.kernels.lowering.isa.moves import picked_words, shuffled_bytes
from kquant.kernels.lowering.lanes import LanesType, register
from kquant.kernels.lowering.values import I8, shuffle


class TableType(types.Type):
    """The Numba type of a table, entries included: what is looked up is known when a kernel is compiled."""

    def __init__(self, table: Table) -> None:
        super().__init__(name=f"table {table.values}")
        self.values = table.values
        self.is_float = isinstance(table.values[0], float)


register_model(TableType)(models.OpaqueModel)


@typeof_impl.register(Table)  # type: ignore[untyped-decorator]
def _typeof_table(table: Table, context: Any) -> TableType:
    return TableType(table)


@lower_constant(TableType)  # type: ignore[untyped-decorator]
def _constant_table(context: Any, builder: Any, kind: TableType, table: Table) -> Any:
    return context.get_dummy_value()


def _lookup_type(numbers: Any, table: Any) -> Any:
    if not isinstance(numbers, LanesType) or numbers.element not in ("int32", "uint8"):
        return None
    if table.is_float and numbers.element == "uint8":
        return None
    return LanesType("float32" if table.is_float else numbers.element, numbers.width), numbers, table


def _lookup(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """In parts as wide as a register of the processor, or with a comparison for each entry."""
    numbers, out, values = args[0], sig.return_type.llvm, sig.args[1].values
    is_bytes = numbers.type.element == I8
    if not REGISTER_BYTES:
        return _chosen(builder, numbers, out, values)
    width = REGISTER_BYTES if is_bytes else REGISTER_BYTES // 4
    pick = _picked_bytes if is_bytes else _picked_words
    parts = [
        pick(builder, part, ir.VectorType(out.element, width), values)
        for part in _split(builder, numbers, width)
    ]
    return _first_of(builder, parts, numbers.type.count)


register(lookup, _lookup_type, (LanesType, TableType))(_lookup)


def _split(builder: Any, value: Any, width: int) -> list[Any]:
    """Parts of this width; what the last one has too many of are copies."""
    n = value.type.count
    return [
        shuffle(builder, value, value, [min(at + k, n - 1) for k in range(width)])
        for at in range(0, n, width)
    ]


def _first_of(builder: Any, parts: Sequence[Any], n: int) -> Any:
    """The first n lanes of the parts, whose number is a power of two."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [shuffle(builder, a, b, range(2 * a.type.count)) for a, b in pairs]
    return parts[0] if parts[0].type.count == n else shuffle(builder, parts[0], parts[0], range(n))


def _constant(kind: Any, values: Sequence[float]) -> Any:
    """The entries, again and again where a register holds more."""
    return ir.Constant(kind, [values[k % len(values)] for k in range(kind.count)])


def _picked_bytes(builder: Any, numbers: Any, kind: Any, values: Sequence[float]) -> Any:
    """Each quarter or half of the register has a table of its own, of sixteen bytes."""
    return shuffled_bytes(builder, _constant(kind, values), numbers)


def _picked_words(builder: Any, numbers: Any, kind: Any, values: Sequence[float]) -> Any:
    """A narrow register has eight entries: from both halves of a table of sixteen, and then one of both."""
    if kind.count >= len(values):
        return picked_words(builder, _constant(kind, values), numbers)
    low, high = (
        picked_words(builder, _constant(kind, values[at : at + kind.count]), numbers)
        for at in range(0, len(values), kind.count)
    )
    last = ir.Constant(numbers.type, [kind.count - 1] * numbers.type.count)
    return builder.select(builder.icmp_signed(">", numbers, last), high, low)


def _chosen(builder: Any, numbers: Any, kind: Any, values: Sequence[float]) -> Any:
    def later(found: Any, entry: tuple[int, float]) -> Any:
        is_it = builder.icmp_unsigned("==", numbers, ir.Constant(numbers.type, [entry[0]] * kind.count))
        return builder.select(is_it, ir.Constant(kind, [entry[1]] * kind.count), found)

    return reduce(later, enumerate(values[1:], 1), ir.Constant(kind, [values[0]] * kind.count))
