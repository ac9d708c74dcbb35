"""The one place that imports Numba: marks kernels, compiles them when first needed, keeps the result.

A kernel stays the plain Python function that it is; NumPy executes it by calling it.  `compiled`
gives the machine code of the same text, with every kernel that it calls compiled into it.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["compiled", "kernel"]

_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = {"error_model": "numpy", "nogil": True, "boundscheck": False}


def kernel(function: _F) -> _F:
    """Mark a function as a kernel: text that both NumPy and Numba can run."""
    function.__kernel__ = True  # type: ignore[attr-defined]
    return function


_compiled: dict[Any, Any] = {}


def compiled(function: Callable[..., Any], **bindings: Callable[..., Any]) -> Any:
    """A Numba dispatcher for `function`, in which the global names in `bindings` mean other kernels."""
    return _build(function, bindings)


def _build(function, bindings):
    import numba

    from kquant import simd  # noqa: F401

    key = (function, tuple(sorted(bindings.items())))
    if key not in _compiled:
        space = dict(function.__globals__)
        for name in _names(function.__code__):
            value = bindings.get(name, space.get(name))
            if getattr(value, "__kernel__", False):
                space[name] = _inner(value)
        _compiled[key] = numba.njit(**_OPTIONS)(_rebound(function, space))
    return _compiled[key]


def _inner(function):
    import numba

    key = ("inner", function)
    if key not in _compiled:
        space = dict(function.__globals__)
        for name in _names(function.__code__):
            if getattr(space.get(name), "__kernel__", False):
                space[name] = _inner(space[name])
        _compiled[key] = numba.njit(**_OPTIONS, forceinline=True)(_rebound(function, space))
    return _compiled[key]


def _names(code):
    return code.co_names


def _rebound(function, space):
    clone = types.FunctionType(
        function.__code__, space, function.__name__, function.__defaults__, function.__closure__
    )
    clone.__qualname__ = function.__qualname__
    clone.__module__ = function.__module__
    return clone
