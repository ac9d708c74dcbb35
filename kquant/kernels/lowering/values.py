"""The integers and the small steps that every lowering is made of.

Nothing here knows a processor: `kquant.kernels.lowering.isa` uses it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

__all__ = ["I8", "I16", "I32", "I64", "intrinsic", "load", "offset", "shuffle", "splat", "store"]

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def shuffle(builder: Any, a: Any, b: Any, lanes: Sequence[int]) -> Any:
    """These lanes of one vector after the other."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def splat(builder: Any, value: Any, n: int) -> Any:
    """A scalar in each of n lanes."""
    kind = ir.VectorType(value.type, n)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    return shuffle(builder, first, first, [0] * n)


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


def intrinsic(builder: Any, name: str, result: Any, *args: Any) -> Any:
    """A call of what LLVM has under this name."""
    signature = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)
