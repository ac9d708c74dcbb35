"""Has Numba compile kernels when they are first needed: the door to all that imports it.

`compiled` gives machine code of a kernel's text, with every kernel that it calls compiled into it.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from threading import RLock
from typing import Any

__all__ = ["column_count", "compiled", "group_size", "lane_count", "passes_cache"]

_OPTIONS = {"error_model": "numpy", "nogil": True, "boundscheck": False}

_lock = RLock()
_ready: dict[tuple[Callable[..., Any], str], Any] = {}
_inlined: dict[Callable[..., Any], Any] = {}


def lane_count() -> int:
    """Blocks that a compiled kernel works on at a time."""
    from kquant.kernels.lowering.isa.facts import SEARCH_LANES

    return SEARCH_LANES


def passes_cache() -> bool:
    """Whether the CPU gains by storing large results past its caches."""
    from kquant.kernels.lowering.isa.facts import TUNING

    return TUNING.streams_past_cache


def column_count() -> tuple[int, int]:
    """Columns that a compiled product works on at a time, and how many of those that are left."""
    from kquant.kernels.lowering.isa.facts import COLUMNS_IN_REGISTERS, COLUMNS_LEFT

    return COLUMNS_IN_REGISTERS, COLUMNS_LEFT


def group_size() -> int:
    """Super-blocks that a register holds levels of, to be multiplied as they are read; 0 if they are not."""
    from kquant.kernels.lowering.isa.facts import BLOCKS_PER_REGISTER, HAS_BYTE_PAIRS

    return BLOCKS_PER_REGISTER if HAS_BYTE_PAIRS else 0


def compiled(driver: Callable[..., Any], signature: str, name: str) -> Any:
    """Machine code of `driver` for one signature, out of the cache on disk where it is there.

    Args:
        driver: A kernel; it may call others, from its module or from the function that made it.
        signature: Numba's text for its argument types, with `R` for a read-only C-contiguous array:
            "R(float32, 1), intp".
        name: Names the driver in the cache: no two drivers have the same.
    """
    ready = _ready.get((driver, signature))
    if ready is not None:
        return ready
    with _lock:
        if (driver, signature) not in _ready:
            import numba

            from kquant.kernels.cache import KernelCache
            from kquant.kernels.lowering import (  # noqa: F401  tell Numba what the language's words mean
                bits,
                blocks,
                groups,
                halves,
                tables,
                transposes,
            )
            from kquant.kernels.lowering.isa.target import KernelCompiler

            dispatcher = numba.njit(**_OPTIONS, pipeline_class=KernelCompiler)(_linked(driver))
            dispatcher._cache = KernelCache(name)
            dispatcher.compile(_parse(signature))
            dispatcher.disable_compile()
            _ready[driver, signature] = dispatcher
        return _ready[driver, signature]


def _parse(signature: str) -> Any:
    from numba import types as nb

    def read_only(dtype: Any, ndim: int) -> Any:
        return nb.Array(dtype, ndim, "C", readonly=True)

    return eval(f"({signature},)", {"R": read_only, **vars(nb)})  # noqa: S307


def _linked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of the function in which the kernels that it calls are compiled, and inlined, ones."""
    code = function.__code__
    namespace = dict(function.__globals__)
    for name in code.co_names:
        if name in namespace:
            namespace[name] = _callable(namespace[name])
    cells = tuple(types.CellType(_callable(cell.cell_contents)) for cell in function.__closure__ or ())
    copy = types.FunctionType(code, namespace, function.__name__, function.__defaults__, cells)
    copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
    return copy


def _callable(value: Any) -> Any:
    """A kernel that other kernels call, inlined, typed once for all that do; anything else as it is."""
    if not getattr(value, "__kernel__", False):
        return value
    if value not in _inlined:
        import numba

        from kquant.kernels.lowering.isa.target import KernelCompiler

        _inlined[value] = numba.njit(**_OPTIONS, forceinline=True, pipeline_class=KernelCompiler)(
            _linked(value)
        )
    return _inlined[value]
