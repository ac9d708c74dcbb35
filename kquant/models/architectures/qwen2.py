"""Qwen 1.5 to 2.5; also EXAONE 3.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/qwen2.cpp, exaone.cpp
"""

from __future__ import annotations

from functools import partial

from kquant.models.blocks import decoder, feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["qwen2"]


def qwen2(g: Graph) -> Program:
    """As Llama, with pairs in halves, and biases of queries, keys and values."""
    attend = partial(self_attention, g, rope=g.h.rope("halves", context=g.context))
    x = decoder(g, g.embed(), attend, partial(feed_forward, g, scaled=False))
    return g.program(x, logits(g, x))
