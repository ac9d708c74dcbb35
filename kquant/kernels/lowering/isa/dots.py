"""Sums of products: the instructions that processors have for products of bytes.

Each is there where `facts` says so: those in fours with `HAS_BYTE_DOTS`, those in pairs with
`HAS_BYTE_PAIRS`.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from kquant.kernels.lowering.isa import models
from kquant.kernels.lowering.isa.choice import CHOICE
from kquant.kernels.lowering.values import I16, I32, intrinsic

__all__ = [
    "add_dots_of_bytes",
    "add_dots_of_shorts",
    "add_dots_with_memory",
    "narrowed",
    "pairs_of_bytes",
    "pairs_of_shorts",
]

if CHOICE.name == "vnni" and not CHOICE.is_model:
    llvm.initialize_native_asmparser()  # for the instructions that are written out below

_DOTS = {8: ("vpdpbusd", models.dots_of_bytes), 16: ("vpdpwssd", models.dots_of_shorts)}
"""For integers of so many bits, the instruction and its model."""


def add_dots_of_bytes(builder: Any, total: Any, u: Any, s: Any) -> Any:
    """int32: the total plus four unsigned bytes of `u` times the signed bytes of `s` (all <16 x i32>)."""
    if CHOICE.is_model:
        return models.called(builder, models.dots_of_bytes, total.type, total, u, s)
    return intrinsic(builder, "llvm.x86.avx512.vpdpbusd.512", total.type, total, u, s)


def add_dots_of_shorts(builder: Any, total: Any, x: Any, y: Any, *, in_order: bool = False) -> Any:
    """int32: the total plus two int16 of `x` times those of `y`; the sum wraps around.

    in_order: LLVM leaves the instruction where it is among others that are `in_order`.
    """
    if CHOICE.is_model:
        return models.called(builder, models.dots_of_shorts, total.type, total, x, y)
    signature = ir.FunctionType(total.type, [total.type, x.type, y.type])
    return builder.asm(signature, "vpdpwssd $3, $2, $0", "=v,0,v,v", [total, x, y], in_order)


def add_dots_with_memory(
    builder: Any, bits: int, total: Any, weights: Any, pointer: Any, distance: int
) -> Any:
    """The same two, for integers of 8 or 16 bits; those of all lanes are the four bytes behind a pointer.

    In order: LLVM leaves the instruction where it is.
    """
    instruction, model = _DOTS[bits]
    if CHOICE.is_model:
        other = models.repeated(builder, pointer, distance, total.type.count)
        return models.called(builder, model, total.type, total, weights, other)
    signature = ir.FunctionType(total.type, [total.type, weights.type, pointer.type])
    text = f"{instruction} {distance}($3){{1to{total.type.count}}}, $2, $0"
    return builder.asm(signature, text, "=v,0,v,r", [total, weights, pointer], True)


def pairs_of_bytes(builder: Any, u: Any, s: Any) -> Any:
    """int16: two unsigned bytes of `u` times the signed bytes of `s`, kept within int16 (<32 x i8>)."""
    shorts = ir.VectorType(I16, u.type.count // 2)
    if CHOICE.is_model:
        return models.called(builder, models.pairs_of_bytes, shorts, u, s)
    return intrinsic(builder, "llvm.x86.avx2.pmadd.ub.sw", shorts, u, s)


def pairs_of_shorts(builder: Any, x: Any, y: Any) -> Any:
    """int32: two int16 of `x` times those of `y`; the sum wraps around (<16 x i16>)."""
    words = ir.VectorType(I32, x.type.count // 2)
    if CHOICE.is_model:
        return models.called(builder, models.pairs_of_shorts, words, x, y)
    return intrinsic(builder, "llvm.x86.avx2.pmadd.wd", words, x, y)


def narrowed(builder: Any, first: Any, second: Any) -> Any:
    """int16 of int32 (<16 x i32>), kept within their range.

    In each quarter of the register four lanes of the first, then four of the second.
    """
    shorts = ir.VectorType(I16, 2 * first.type.count)
    if CHOICE.is_model:
        return models.called(builder, models.narrowed, shorts, first, second)
    return intrinsic(builder, "llvm.x86.avx512.packssdw.512", shorts, first, second)
