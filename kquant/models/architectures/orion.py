"""Orion.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/orion.cpp
"""

from __future__ import annotations

from kquant.models.blocks import logits, plain_decoder
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["orion"]


def orion(g: Graph) -> Program:
    """As Llama, with layer norms, and pairs in halves."""
    rope = g.h.rope("halves", context=g.context)
    x = plain_decoder(g, g.embed(), rope, norm=g.layer_norm)
    return g.program(x, logits(g, x))
