"""Leaving layers out: which tensors remain, what they are called then, and what the metadata says of them.

Facts from `remap_layer` in https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from kquant.errors import OptionError
from kquant.gguf import GGUFValueType, Metadata

__all__ = ["prune", "prune_arrays"]

_NOT_OF_LAYERS: Final = ("rope.dimension_sections",)
"""Arrays of numbers that stand for something else than layers, whatever their length."""

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


def prune_arrays(
    metadata: Metadata, architecture: str, n_layers: object, layers: Collection[int]
) -> list[str]:
    """Takes the entries of `layers` from the arrays that have one for each layer; returns their keys.

    Those are the arrays of numbers or truth values of the architecture with `n_layers` elements, such as
    `attention.head_count_kv`.  llama-quantize leaves them as they are, and llama.cpp then refuses the
    file, or gives the values of one layer to another.

    >>> from kquant.gguf import GGUFValueType, Metadata
    >>> md = Metadata()
    >>> md.set(
    ...     "lfm2.attention.head_count_kv", [0, 8, 4], GGUFValueType.ARRAY, element_type=GGUFValueType.INT32
    ... )
    >>> prune_arrays(md, "lfm2", 3, [1]), md["lfm2.attention.head_count_kv"].tolist()
    (['lfm2.attention.head_count_kv'], [0, 4])
    """
    prefix = f"{architecture}."
    changed = []
    for key in list(metadata):
        name = key.removeprefix(prefix)
        if not key.startswith(prefix) or name in _NOT_OF_LAYERS:
            continue
        if (
            metadata.type_of(key) != GGUFValueType.ARRAY
            or metadata.array_type_of(key) == GGUFValueType.STRING
        ):
            continue
        count = len(metadata[key])
        if count == n_layers and any(layer < count for layer in layers):
            metadata.pick(key, [i for i in range(count) if i not in layers])
            changed.append(key)
    return changed
