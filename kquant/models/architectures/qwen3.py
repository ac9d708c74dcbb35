"""Qwen 3, dense and with experts.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/qwen3.cpp, qwen3moe.cpp
"""

from __future__ import annotations

from kquant.models.blocks import attention, decoder, feed_forward, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing, Value

__all__ = ["qwen3"]


def qwen3(g: Graph) -> Program:
    """As Llama, with pairs in halves; each head's queries and keys are normalized before they rotate."""
    h, rope = g.h, g.h.rope("halves", context=g.context)
    routing = Routing(
        h.n_expert_used, "softmax", is_normalized=True, factor=h.number("expert_weights_scale", 0.0) or 1.0
    )

    def attend(x: Value, layer: int) -> Value:
        q, k, v = queries_keys_values(g, x, layer)
        q = g.rms_norm(q, f"blk.{layer}.attn_q_norm", heads=h.n_head(layer))
        k = g.rms_norm(k, f"blk.{layer}.attn_k_norm", heads=h.n_head_kv(layer))
        return attention(g, q, k, v, layer, rope)

    def transform(x: Value, layer: int) -> Value:
        return g.experts(x, f"blk.{layer}", routing) if h.n_expert else feed_forward(g, x, layer)

    x = decoder(g, g.embed(), attend, transform)
    return g.program(x, logits(g, x))
