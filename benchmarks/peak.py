"""The core's peak for sums of products of bytes: a loop that touches registers only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["PRODUCTS", "peak_loop"]

SUMS = 16
"""Independent sums: more than there are instructions in flight."""
PRODUCTS = SUMS * 64
"""Of two bytes, in each iteration of the loop."""


def peak_loop() -> Callable[[int], Any] | None:
    """A function that runs a number of iterations, or None where the CPU has no 512-bit VNNI."""
    if not llvm.get_host_cpu_features().get("avx512vnni"):
        return None
    llvm.initialize_native_asmparser()
    sums = "\n".join(f"vpdpbusd %zmm{31 - i % 4}, %zmm{31 - i % 4}, %zmm{i}" for i in range(SUMS))
    used = ",".join(f"~{{xmm{i}}}" for i in [*range(SUMS), 28, 29, 30, 31])

    @intrinsic  # type: ignore[untyped-decorator]
    def loop(context: Any, turns: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            signature = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
            text = f"1:\n{sums}\ndec $0\njnz 1b"
            return builder.asm(signature, text, f"=r,0,{used},~{{cc}}", args, True)

        return types.int64(types.int64), emit

    @numba.njit  # type: ignore[untyped-decorator]
    def run(turns: int) -> int:
        return loop(turns)  # type: ignore[no-any-return]

    return run  # type: ignore[no-any-return]
