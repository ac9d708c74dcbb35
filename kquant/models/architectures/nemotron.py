"""Nemotron 3 and 4, Minitron.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/nemotron.cpp
"""

from __future__ import annotations

from functools import partial

from kquant.models.blocks import decoder, feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["nemotron"]


def nemotron(g: Graph) -> Program:
    """As StarCoder 2, with the square of ReLU."""
    attend = partial(self_attention, g, rope=g.h.rope("halves", context=g.context))
    transform = partial(feed_forward, g, activation="relu_squared", gate=None, scaled=False)
    x = decoder(g, g.embed(), attend, transform, norm=g.layer_norm)
    return g.program(x, logits(g, x))
