"""Phi 3 and 4, with LongRoPE; Phi 3.5 MoE.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/phi3.cpp, phimoe.cpp
"""

from __future__ import annotations

from functools import partial

from kquant.models.blocks import decoder, feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing, Value

__all__ = ["phi3"]


def phi3(g: Graph) -> Program:
    """As Llama, with pairs in halves, one matrix for queries, keys and values, and one for gate and up.

    A sliding window that the file may speak of is not heeded, as in llama.cpp.
    """
    h = g.h
    attend = partial(self_attention, g, rope=h.rope("halves", context=g.context))
    routing = Routing(
        h.n_expert_used, "softmax", is_normalized=True, factor=h.number("expert_weights_scale", 0.0) or 1.0
    )

    def transform(x: Value, layer: int) -> Value:
        if h.n_expert:
            return g.experts(x, f"blk.{layer}", routing, scaled=False)
        return feed_forward(g, x, layer, scaled=False)

    x = decoder(g, g.embed(), attend, transform)
    return g.program(x, logits(g, x))
