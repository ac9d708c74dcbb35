"""Has LLVM leave out instructions that the processor has and the choice has not.

Numba compiles for all that the processor has, for everybody in the process.  So each function of a kernel
says for itself what LLVM may use.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from kquant.kernels.lowering.isa.choice import CHOICE

__all__ = ["KernelCompiler", "limited"]


def limited(module: str, features: str) -> str:
    """The text of an LLVM module in which each function says what it may use."""
    lines = module.splitlines()
    for i, line in enumerate(lines):
        if line.startswith("define "):
            at = _end_of_arguments(line)
            lines[i] = f'{line[:at]} "target-features"="{features}"{line[at:]}'
    return "\n".join(lines) + "\n"


def _end_of_arguments(line: str) -> int:
    """Where the attributes of a function may begin."""
    depth, quoted, named = 0, False, False
    for at, letter in enumerate(line):
        quoted ^= letter == '"'
        named |= letter == "@"
        if quoted or not named or letter not in "()":
            continue
        depth += 1 if letter == "(" else -1
        if not depth:
            rest = line[at + 1 :]
            known = (word for word in (" local_unnamed_addr", " unnamed_addr") if rest.startswith(word))
            return at + 1 + len(next(known, ""))
    raise AssertionError(f"no arguments: {line}")


class _LimitedLibrary(JITCodeLibrary):  # type: ignore[misc]
    """A kernel, with all that it calls, before LLVM optimizes it as a whole."""

    _final_module: Any

    def _optimize_final_module(self) -> None:
        self._final_module = llvm.parse_assembly(limited(str(self._final_module), CHOICE.features))
        self._final_module.name = self.name
        super()._optimize_final_module()


class KernelCompiler(Compiler):  # type: ignore[misc]
    """Numba's compiler, for the choice."""

    def compile_extra(self, func: Any) -> Any:
        """See `numba.core.compiler.CompilerBase`."""
        if CHOICE.is_limited:
            self.state.library = _LimitedLibrary(self.state.targetctx.codegen(), func.__qualname__)
            self.state.library.enable_object_caching()
        return super().compile_extra(func)
