"""Lowers `gather_tile` and `scatter_tile`: squares of 16 by 16 numbers, transposed.

Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from kquant.kernels.language import lanes
from kquant.kernels.lowering.isa.memory import prefetch
from kquant.kernels.lowering.isa.tuning import SECOND_LEVEL
from kquant.kernels.lowering.lanes import I32, LANES, register
from kquant.kernels.lowering.memory import pointer_to

TILE = 16
"""Rows and columns of the squares."""


def _turn(builder: Any, rows: list[Any]) -> list[Any]:
    """The transpose of 16 vectors of 16 words: first within quarters of registers, then quarters as a whole.

    Each round is one instruction for each vector, and overwrites none that is still needed.
    """
    if rows[0].type.element == ir.IntType(8):
        return _turn_bytes(builder, rows)

    def lanes(*words: int) -> list[int]:
        return [quarter + word for quarter in range(0, TILE, 4) for word in words]

    even, odd = ([at + word for at in range(first, 2 * TILE, 8) for word in range(4)] for first in (0, 4))
    rounds = [
        (1, lanes(0, TILE, 1, TILE + 1), lanes(2, TILE + 2, 3, TILE + 3)),
        (2, lanes(0, 1, TILE, TILE + 1), lanes(2, 3, TILE + 2, TILE + 3)),
        (4, even, odd),
        (8, even, odd),
    ]
    for distance, low, high in rounds:
        masks = [ir.Constant(ir.VectorType(I32, TILE), order) for order in (low, high)]
        for i in (i for i in range(TILE) if not i & distance):
            pair = rows[i], rows[i + distance]
            rows[i], rows[i + distance] = (builder.shuffle_vector(*pair, mask) for mask in masks)
    return [rows[i & 12 | i >> 1 & 1 | i << 1 & 2] for i in range(TILE)]


def _turn_bytes(builder: Any, rows: list[Any]) -> list[Any]:
    """Four rounds of interleaving vectors that lie apart."""
    distance = TILE // 2
    low = ir.Constant(ir.VectorType(I32, TILE), [i // 2 + TILE * (i % 2) for i in range(TILE)])
    high = ir.Constant(ir.VectorType(I32, TILE), [TILE // 2 + i // 2 + TILE * (i % 2) for i in range(TILE)])
    for _ in range(4):
        transposed = []
        for i in range(distance):
            pair = rows[i], rows[i + distance]
            transposed += [builder.shuffle_vector(*pair, low), builder.shuffle_vector(*pair, high)]
        rows = transposed
    return rows


def _offset(context: Any, builder: Any, array_type: Any, array: Any, lane: Any, k: int) -> Any:
    return builder.load(
        pointer_to(context, builder, array_type, array, builder.add(lane, ir.Constant(lane.type, k)))
    )


def _tile_type(*args: Any) -> Any:
    return types.none, args[0], args[1], types.intp, types.intp, args[4]


def _tile_in(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    flat_type, starts_type, _, _, rows_type = sig.args
    flat, starts, lane, column, rows = args
    read = []
    height = builder.extract_value(context.make_array(rows_type)(context, builder, rows).shape, 0)
    group = builder.mul(height, ir.Constant(height.type, LANES))
    for k in range(TILE):
        start = _offset(context, builder, starts_type, starts, lane, k)
        pointer = pointer_to(context, builder, flat_type, flat, builder.add(start, column))
        read.append(_read_raw(builder, pointer))
        prefetch(builder, builder.gep(pointer, [group]), SECOND_LEVEL)  # for the next group, in most cases
    for k, value in enumerate(_turn(builder, read)):
        row = builder.mul(builder.add(column, ir.Constant(column.type, k)), ir.Constant(column.type, LANES))
        _write_raw(builder, pointer_to(context, builder, rows_type, rows, builder.add(row, lane)), value)
    return context.get_dummy_value()


def _tile_out(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    flat_type, starts_type, _, _, rows_type = sig.args
    flat, starts, lane, column, rows = args
    read = []
    for k in range(TILE):
        row = builder.mul(builder.add(column, ir.Constant(column.type, k)), ir.Constant(column.type, LANES))
        read.append(_read_raw(builder, pointer_to(context, builder, rows_type, rows, builder.add(row, lane))))
    for k, value in enumerate(_turn(builder, read)):
        start = _offset(context, builder, starts_type, starts, lane, k)
        _write_raw(builder, pointer_to(context, builder, flat_type, flat, builder.add(start, column)), value)
    return context.get_dummy_value()


def _read_raw(builder: Any, pointer: Any) -> Any:
    return builder.load(
        builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, TILE).as_pointer()), align=1
    )


def _write_raw(builder: Any, pointer: Any, value: Any) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=1)


_PATTERN = (types.Array, types.Array, types.Integer, types.Integer, types.Array)
register(lanes.gather_tile, _tile_type, _PATTERN)(_tile_in)
register(lanes.scatter_tile, _tile_type, _PATTERN)(_tile_out)
