"""Loads, stores and hints that are more than LLVM's plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from kquant.kernels.lowering.isa import models
from kquant.kernels.lowering.isa.choice import CHOICE
from kquant.kernels.lowering.values import I8, I32, I64, intrinsic, splat

__all__ = ["before_loads", "fence", "gathered_words", "load_where", "prefetch", "store_past_cache"]


def load_where(builder: Any, pointer: Any, lanes: Sequence[int], otherwise: Any) -> Any:
    """These lanes from memory, where a pointer to the first lane leads; the others from a vector.

    Memory of the other lanes is not touched.
    """
    if CHOICE.is_model:
        return models.load_where(builder, pointer, list(lanes), otherwise)
    kind = otherwise.type
    place = builder.bitcast(pointer, kind.as_pointer())
    mask = ir.Constant(ir.VectorType(ir.IntType(1), kind.count), [int(k in lanes) for k in range(kind.count)])
    name = f"llvm.masked.load.v{kind.count}{kind.element}.p0"
    return intrinsic(builder, name, kind, place, I32(1), mask, otherwise)


def gathered_words(builder: Any, pointer: Any, index: Any) -> Any:
    """The words of 32 bits at `pointer + 4 * index`, for each lane of the index."""
    if CHOICE.is_model:
        return models.gathered_words(builder, pointer, index)
    n = index.type.count
    distances = builder.shl(
        builder.zext(index, ir.VectorType(I64, n)), ir.Constant(ir.VectorType(I64, n), [2] * n)
    )
    addresses = builder.add(splat(builder, builder.ptrtoint(pointer, I64), n), distances)
    places = builder.inttoptr(addresses, ir.VectorType(I32.as_pointer(), n))
    mask = ir.Constant(ir.VectorType(ir.IntType(1), n), [1] * n)
    name = f"llvm.masked.gather.v{n}i32.v{n}p0"
    return intrinsic(builder, name, index.type, places, I32(1), mask, ir.Constant(index.type, ir.Undefined))


def before_loads(builder: Any, value: Any) -> Any:
    """LLVM computes the value before it loads what comes later: else it mixes more than registers hold."""
    if CHOICE.is_model:
        return value
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", "=v,0,~{memory}", [value], True)


def prefetch(builder: Any, pointer: Any, level: int, *, to_write: bool = False) -> None:
    """Have a line of memory brought to a cache: a hint, which may point anywhere.

    LLVM has it for every processor, and leaves it out where there is none; so it has the next two.
    """
    line = builder.bitcast(pointer, I8.as_pointer())
    intrinsic(builder, "llvm.prefetch.p0i8", ir.VoidType(), line, I32(int(to_write)), I32(level), I32(1))


def store_past_cache(builder: Any, pointer: Any, value: Any) -> None:
    """Store a vector at a multiple of its size; no cache keeps it.  `fence` has to follow the last one."""
    n_bytes = value.type.count * _bytes_of(value.type.element)
    stored = builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=n_bytes)
    stored.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))


def fence(builder: Any) -> None:
    """What was stored before is stored for all threads before what comes later."""
    builder.fence("seq_cst")


def _bytes_of(element: Any) -> int:
    return 4 if isinstance(element, ir.FloatType) else int(element.width) // 8
