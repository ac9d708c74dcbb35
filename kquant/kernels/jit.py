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
_ready: dict[Any, Any] = {}


def lane_count() -> int:
    """Blocks that a compiled kernel works on at a time."""
    from kquant.kernels.simd import LANES

    return LANES


def passes_cache() -> bool:
    """Whether the CPU gains by storing large results past its caches."""
    from kquant.kernels.simd_memory import IS_ZEN

    return IS_ZEN


def column_count() -> tuple[int, int]:
    """Columns that a compiled product works on at a time, and how many of those that are left."""
    from kquant.kernels.simd_sums import FEW, MANY

    return MANY, FEW


def group_size() -> int:
    """Super-blocks that a register holds levels of, to be multiplied as they are read; none without AVX2."""
    from kquant.kernels.simd_strips import PER
    from kquant.kernels.simd_vectors import HAS_AVX2

    return PER if HAS_AVX2 else 0


def compiled(driver: Callable[..., Any], signature: str, name: str, **names: Any) -> Any:
    """Machine code of `driver` for one signature, out of the cache on disk where it is there.

    Args:
        driver: A kernel that calls others by the names of its own module.
        signature: Numba's text for its argument types, with `R` for a read-only C-contiguous array:
            "R(float32, 1), intp".
        name: Tells this use of the driver from others, in the cache.
        names: What some names of its module stand for: kernels, or whole numbers.  They stand for it in
            kernels of the same module that it calls, too.
    """
    with _lock:
        if name not in _ready:
            import numba

            from kquant.kernels import simd_blocks, simd_half, simd_small, simd_turns  # noqa: F401  teach Numba the words
            from kquant.kernels.kernel_cache import KernelCache

            function = _linked(driver, names)
            dispatcher = numba.njit(**_OPTIONS)(function)
            dispatcher._cache = KernelCache(name)
            dispatcher.compile(_parse(signature))
            dispatcher.disable_compile()
            _ready[name] = dispatcher
        return _ready[name]


def _parse(signature: str) -> Any:
    from numba import types as nb

    def read_only(dtype: Any, ndim: int) -> Any:
        return nb.Array(dtype, ndim, "C", readonly=True)

    return eval(f"({signature},)", {"R": read_only, **vars(nb)})  # noqa: S307


def _linked(function: Callable[..., Any], names: dict[str, Any]) -> Callable[..., Any]:
    """A copy of the function in which the kernels that it calls are compiled, and inlined, ones."""
    namespace = dict(function.__globals__)
    for name in function.__code__.co_names:
        value: Any = names.get(name, namespace.get(name))
        if name in namespace:
            here = names if getattr(value, "__globals__", None) is function.__globals__ else {}
            namespace[name] = _inner(value, here) if getattr(value, "__kernel__", False) else value
    copy = types.FunctionType(function.__code__, namespace, function.__name__, function.__defaults__)
    copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
    return copy


def _inner(function: Callable[..., Any], names: dict[str, Any]) -> Any:
    """A kernel that other kernels call; kept, so that it is typed once for all that do."""
    used = _used(function)
    names = {name: value for name, value in names.items() if name in used}
    key = function, *names.items()
    if key not in _ready:
        import numba

        _ready[key] = numba.njit(**_OPTIONS, forceinline=True)(_linked(function, names))
    return _ready[key]


def _used(function: Callable[..., Any]) -> set[str]:
    """The names that a kernel, or what it calls in its own module, looks up."""
    found = set(function.__code__.co_names)
    for name in function.__code__.co_names:
        value: Any = function.__globals__.get(name)
        if getattr(value, "__kernel__", False) and value.__globals__ is function.__globals__:
            found |= _used(value)
    return found
