"""Arcee's AFM.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/arcee.cpp
"""

from __future__ import annotations

from kquant.models.blocks import logits, plain_decoder
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["arcee"]


def arcee(g: Graph) -> Program:
    """As Llama, with the square of ReLU and no gate."""
    rope = g.h.rope("adjacent", context=g.context)
    x = plain_decoder(g, g.embed(), rope, "relu_squared", gate=None)
    return g.program(x, logits(g, x))
