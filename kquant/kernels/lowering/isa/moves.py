"""Bytes and bits that change their places within a register."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from kquant.kernels.lowering.isa import models
from kquant.kernels.lowering.isa.choice import CHOICE
from kquant.kernels.lowering.values import I8, intrinsic

__all__ = ["matrix_of_bits", "opaque", "picked_words", "shuffled_bytes"]


def shuffled_bytes(builder: Any, value: Any, index: Any) -> Any:
    """In each 16 bytes the bytes of the same 16 that `index` tells; 0 where it is 128 or more.

    For <32 x i8> with `facts.HAS_BYTE_PAIRS`, for <64 x i8> with `facts.HAS_BYTE_DOTS`.
    """
    if CHOICE.is_model:
        return models.called(builder, models.shuffled_bytes, value.type, value, index)
    name = "llvm.x86.avx512.pshuf.b.512" if value.type.count == 64 else "llvm.x86.avx2.pshuf.b"
    return intrinsic(builder, name, value.type, value, index)


def matrix_of_bits(builder: Any, value: Any, matrix: Any) -> Any:
    """Each byte times the 8 x 8 bits in the same eight bytes of `matrix`, whose last row makes bit 0.

    For <64 x i8> with `facts.HAS_BIT_MATRICES`.
    """
    if CHOICE.is_model:
        return models.called(builder, models.matrix_of_bits, value.type, value, matrix)
    return intrinsic(builder, "llvm.x86.vgf2p8affineqb.512", value.type, value, matrix, I8(0))


def picked_words(builder: Any, table: Any, index: Any) -> Any:
    """The lanes of a table of 32-bit numbers that `index` tells, of which the low bits count.

    For eight lanes with `facts.HAS_BYTE_PAIRS`, for sixteen with `facts.HAS_BYTE_DOTS`.
    """
    if CHOICE.is_model:
        return models.called(builder, models.picked_words, table.type, table, index)
    is_int = isinstance(table.type.element, ir.IntType)
    if table.type.count == 16:
        name = f"llvm.x86.avx512.permvar.{'si' if is_int else 'sf'}.512"
    else:
        name = f"llvm.x86.avx2.perm{'d' if is_int else 'ps'}"
    return intrinsic(builder, name, table.type, table, index)


def opaque(builder: Any, value: Any) -> Any:
    """The value, of which LLVM does not see any more how it was made: what follows is not mixed with it."""
    if CHOICE.is_model:
        return value
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", "=v,0", [value], False)
