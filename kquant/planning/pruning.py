"""Leaving layers out: which tensors remain and what they are called then.

Facts from `remap_layer` in https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from kquant.errors import OptionError

__all__ = ["prune"]

_LAYER: Final = re.compile(r"blk\.([0-9]+)\.")


def prune(names: Iterable[str], layers: Collection[int]) -> tuple[dict[str, str], int | None]:
    """The names that remain without `layers`, each with its new name, and the number of layers then.

    Layers below the first that goes keep their number; those above close the gaps.  Where none goes,
    nothing is counted: None.

    Raises `OptionError` if a layer number is negative, or no layer remains.

    >>> prune(["output.weight", "blk.0.a", "blk.1.a", "blk.2.a"], [1])
    ({'output.weight': 'output.weight', 'blk.0.a': 'blk.0.a', 'blk.2.a': 'blk.1.a'}, 2)
    """
    if not layers:
        return {name: name for name in names}, None
    if min(layers) < 0:
        raise OptionError(f"prune_layers: expected layer numbers of 0 or more, got {sorted(layers)}")
    matches = {name: _LAYER.search(name) for name in names}
    found = {int(match[1]) for match in matches.values() if match}
    numbers: dict[int, int] = {}
    following = 0
    for layer in sorted(found.difference(layers)):
        numbers[layer] = layer if layer < min(layers) else following
        following = numbers[layer] + 1
    if not numbers:
        raise OptionError(f"prune_layers: expected a layer to remain of {len(found)}, got none")

    kept = {}
    for name, match in matches.items():
        if match is None:
            kept[name] = name
        elif (layer := int(match[1])) in numbers:
            kept[name] = f"{name[: match.start(1)]}{numbers[layer]}{name[match.end(1) :]}"
    return kept, following
