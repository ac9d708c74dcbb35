"""An attribute that is made when it is first asked for, without a lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

__all__ = ["lazily"]

_T = TypeVar("_T")


class lazily(Generic[_T]):
    """What `functools.cached_property` is from Python 3.12 on.

    Before, that holds a lock for all objects of a class, which hangs a child that was forked meanwhile.
    Two threads that ask at the same time both make the value; all get the one that was first.

    >>> from kquant.parallel.lazily import lazily
    >>> class Circle:
    ...     @lazily
    ...     def area(self):
    ...         print("once")
    ...         return 3
    >>> circle = Circle()
    >>> circle.area + circle.area
    once
    6
    """

    def __init__(self, make: Callable[[Any], _T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, thing: None, owner: type) -> lazily[_T]: ...

    @overload
    def __get__(self, thing: object, owner: type) -> _T: ...

    def __get__(self, thing: object | None, owner: type) -> lazily[_T] | _T:
        if thing is None:
            return self
        made: _T = vars(thing).setdefault(self._make.__name__, self._make(thing))
        return made
