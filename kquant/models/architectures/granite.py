"""Granite 3 and 4, dense and with experts.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/granite.cpp
"""

from __future__ import annotations

from kquant.models.blocks import (
    attention,
    experts_and_shared,
    feed_forward,
    logits,
    queries_keys_values,
)
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing

__all__ = ["granite"]


def granite(g: Graph) -> Program:
    """As Llama, with embeddings, what is added to them, and logits scaled."""
    h = g.h
    rope = h.rope("adjacent", context=g.context) if h.flag("rope.scaling.finetuned", True) else None
    routing = Routing(
        h.n_expert_used, "softmax", is_normalized=True, factor=h.number("expert_weights_scale", 0.0) or 1.0
    )
    n_ff_shared = h.integer("expert_shared_feed_forward_length", 0)
    residual = h.number("residual_scale", 0.0) or 1.0
    x = g.scale(g.embed(), h.number("embedding_scale", 0.0) or 1.0)
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        q, k, v = queries_keys_values(g, g.rms_norm(x, f"{block}.attn_norm"), layer)
        x = g.add(g.scale(attention(g, q, k, v, layer, rope), residual), x)
        y = g.rms_norm(x, f"{block}.ffn_norm")
        if h.n_expert:
            y = experts_and_shared(g, y, layer, routing, n_ff_shared, scaled=False)
        else:
            y = feed_forward(g, y, layer, scaled=False)
        x = g.add(g.scale(y, residual), x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, g.scale(logits(g, x), 1 / (h.number("logit_scale") or 1.0)))
