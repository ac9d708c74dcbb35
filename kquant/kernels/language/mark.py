"""Marks kernels: text that both NumPy and Numba can run.

A kernel stays the plain Python function that it is, and NumPy executes it by calling it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Any, TypeVar

__all__ = ["LOADED", "kernel"]

LOADED = time()
"""When this process began to load kernels: sources that are younger are not those that it runs."""

_F = TypeVar("_F", bound=Callable[..., Any])


def kernel(function: _F) -> _F:
    """Mark a function as a kernel."""
    function.__kernel__ = True  # type: ignore[attr-defined]
    return function
