"""What callers give for options that take several values: a single value is a list of one."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index
from typing import Any

from kquant.errors import OptionError

__all__ = ["count_of", "layers_of", "several", "texts_of"]


def count_of(option: str, given: Any, least: int = 1) -> int:
    """How many of something: a whole number of at least 1, or another least.

    Raises `OptionError` for anything else.

    >>> count_of("threads", 2)
    2
    """
    try:
        count = index(given)
    except TypeError:
        raise OptionError(f"{option}: expected a whole number, got {given!r}") from None
    if count < least:
        raise OptionError(f"{option}: expected at least {least}, got {count}")
    return count


def several(option: str, given: Any, expected: str) -> list[Any]:
    """The values of an option; a string or another single value is a list of one.

    Raises `OptionError` for what is no value at all.

    >>> several("types", "Q4_K", "tensor types"), several("types", ["Q4_K", "Q8_0"], "tensor types")
    (['Q4_K'], ['Q4_K', 'Q8_0'])
    """
    if isinstance(given, str):
        return [given]
    if given is None or isinstance(given, (bytes, bytearray)):
        raise OptionError(f"{option}: expected {expected}, got {given!r}")
    return list(given) if isinstance(given, Iterable) else [given]


def texts_of(option: str, given: Any) -> list[str]:
    """The strings of an option; one string is a list of one.

    Raises `OptionError` if something is not a string.

    >>> texts_of("include_weights", "ffn")
    ['ffn']
    """
    texts = several(option, given, "a string or a list of strings")
    for text in texts:
        if not isinstance(text, str):
            raise OptionError(f"{option}: expected a string or a list of strings, got {text!r}")
    return texts


def layers_of(option: str, given: Any) -> list[int]:
    """Layer numbers: one, several, or text as `--prune-layers` takes it.

    Raises `OptionError` for what is no layer number.

    >>> layers_of("prune_layers", "3,5"), layers_of("prune_layers", 7), layers_of("prune_layers", [1, 2])
    ([3, 5], [7], [1, 2])
    """
    items = several(option, given, "layer numbers")
    words = [w for item in items for w in (item.split(",") if isinstance(item, str) else [item])]
    return [_layer(option, word) for word in words]


def _layer(option: str, word: Any) -> int:
    if isinstance(word, str) and word.strip().isdecimal():
        return int(word)
    try:
        return int(index(word))  # any kind of integer, and nothing else
    except TypeError:
        raise OptionError(f"{option}: expected layer numbers, got {word!r}") from None
