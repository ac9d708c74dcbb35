"""Jais.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/jais.cpp
"""

from __future__ import annotations

from functools import partial

from kquant.models.blocks import decoder, feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["jais"]


def jais(g: Graph) -> Program:
    """As GPT-2, with ALiBi, a gate with SiLU, and products of attention divided by the size of a head."""
    alibi = g.h.number("attention.max_alibi_bias", 0.0)
    attend = partial(self_attention, g, scale=1 / g.h.head_size, max_alibi_bias=alibi)
    x = decoder(g, g.embed(), attend, partial(feed_forward, g, scaled=False), norm=g.layer_norm)
    return g.program(x, logits(g, x))
