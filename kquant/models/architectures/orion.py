"""Orion.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/orion.cpp
"""

from __future__ import annotations

from functools import partial

from kquant.models.blocks import decoder, feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["orion"]


def orion(g: Graph) -> Program:
    """As Llama, with layer norms, and pairs in halves."""
    attend = partial(self_attention, g, rope=g.h.rope("halves", context=g.context))
    x = decoder(g, g.embed(), attend, partial(feed_forward, g, scaled=False), norm=g.layer_norm)
    return g.program(x, logits(g, x))
