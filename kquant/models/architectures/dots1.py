"""dots.llm1.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/dots1.cpp
"""

from __future__ import annotations

from typing import Literal

from kquant.models.blocks import (
    attention,
    decoder,
    experts_and_shared,
    feed_forward,
    logits,
    queries_keys_values,
)
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing, Value

__all__ = ["dots1"]


def dots1(g: Graph) -> Program:
    """Norms of the heads of queries and keys; experts as in DeepSeek V3, after some dense layers."""
    h, rope = g.h, g.h.rope("halves", context=g.context)
    n_dense = h.integer("leading_dense_block_count", 0)
    n_ff_shared = h.integer("expert_shared_count") * h.integer("expert_feed_forward_length")
    gating: Literal["softmax", "sigmoid"] = (
        "sigmoid" if h.integer("expert_gating_func", 0) == 2 else "softmax"
    )

    def attend(x: Value, layer: int) -> Value:
        q, k, v = queries_keys_values(g, x, layer)
        q = g.rms_norm(q, f"blk.{layer}.attn_q_norm", heads=h.n_head(layer))
        k = g.rms_norm(k, f"blk.{layer}.attn_k_norm", heads=h.n_head_kv(layer))
        return attention(g, q, k, v, layer, rope)

    def transform(x: Value, layer: int) -> Value:
        if layer < n_dense:
            return feed_forward(g, x, layer, scaled=False)
        bias = f"blk.{layer}.exp_probs_b.bias"
        routing = Routing(
            h.n_expert_used,
            gating,
            is_normalized=h.flag("expert_weights_norm", False),
            factor=h.number("expert_weights_scale", 0.0) or 1.0,
            selection_bias=bias if g.has(bias) else None,
        )
        return experts_and_shared(g, x, layer, routing, n_ff_shared, scaled=False)

    x = decoder(g, g.embed(), attend, transform)
    return g.program(x, logits(g, x))
