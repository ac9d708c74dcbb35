"""Nemotron 3 and 4, Minitron.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/nemotron.cpp
"""

from __future__ import annotations

from kquant.models.blocks import logits, plain_decoder
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["nemotron"]


def nemotron(g: Graph) -> Program:
    """As StarCoder 2, with the square of ReLU."""
    rope = g.h.rope("halves", context=g.context)
    x = plain_decoder(g, g.embed(), rope, "relu_squared", gate=None, norm=g.layer_norm)
    return g.program(x, logits(g, x))
