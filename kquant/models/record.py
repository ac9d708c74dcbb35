"""From the metadata and tensors of a file to the program of its forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kquant.errors import ModelError
from kquant.models.architectures import ARCHITECTURES
from kquant.models.graph import Graph
from kquant.models.hyperparameters import Hyperparameters
from kquant.models.operations import Program

__all__ = ["hyperparameters_of", "record"]


def hyperparameters_of(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Hyperparameters:
    """The numbers of a model.  Raises `ModelError` if there is no architecture of its name."""
    name = metadata.get("general.architecture")
    if isinstance(name, str) and name not in ARCHITECTURES:
        raise ModelError(
            f"expected an architecture among {', '.join(sorted(ARCHITECTURES))}, got {name!r:.80}"
        )
    embedding = shapes.get("token_embd.weight")
    if isinstance(name, str) and (embedding is None or len(embedding) != 2):
        got = "a file without it" if embedding is None else embedding
        raise ModelError(f"expected a tensor token_embd.weight of shape (n_vocab, n_embd), got {got}")
    return Hyperparameters(metadata, embedding[0] if embedding else 0, shapes)


def record(h: Hyperparameters, shapes: Mapping[str, tuple[int, ...]], context: int) -> Program:
    """The forward pass of a model, for so many tokens of context at most.

    Raises `ModelError` if a tensor is missing or has another shape.
    """
    return ARCHITECTURES[h.architecture](Graph(h, shapes, context))
