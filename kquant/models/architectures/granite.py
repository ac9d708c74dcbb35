"""Granite 3 and 4, dense and with experts.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/granite.cpp
"""

from __future__ import annotations

from kquant.models.blocks import (
    decoder,
    experts_and_shared,
    feed_forward,
    logits,
    self_attention,
)
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing, Value

__all__ = ["granite"]


def granite(g: Graph) -> Program:
    """As Llama, with embeddings, what is added to them, and logits scaled."""
    h = g.h
    rope = h.rope("adjacent", context=g.context) if h.flag("rope.scaling.finetuned", True) else None
    routing = Routing(h.n_expert_used, "softmax", is_normalized=True)
    n_ff_shared = h.integer("expert_shared_feed_forward_length", 0)

    def attend(x: Value, layer: int) -> Value:
        return self_attention(g, x, layer, rope)

    def transform(x: Value, layer: int) -> Value:
        if h.n_expert:
            return experts_and_shared(g, x, layer, routing, n_ff_shared, scaled=False)
        return feed_forward(g, x, layer, scaled=False)

    x = g.scale(g.embed(), h.number("embedding_scale", 0.0) or 1.0)
    x = decoder(g, x, attend, transform, residual=h.number("residual_scale", 0.0) or 1.0)
    return g.program(x, g.scale(logits(g, x), 1 / (h.number("logit_scale") or 1.0)))
