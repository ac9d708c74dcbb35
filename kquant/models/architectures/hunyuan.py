"""Hunyuan, dense and with experts.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/hunyuan-vl.cpp and hunyuan-moe.cpp
"""

from __future__ import annotations

from dataclasses import replace

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
from kquant.models.rope import Rope

__all__ = ["hunyuan_dense", "hunyuan_moe"]


def hunyuan_dense(g: Graph) -> Program:
    """As Llama; the heads of queries and keys are normalized after their rotation."""
    h, rope = g.h, g.h.rope("halves", context=g.context)
    alpha, size = h.number("rope.scaling.alpha", 0.0), h.head_size
    if alpha > 0 and size > 2:
        rope = replace(rope, base=rope.base * alpha ** (size / (size - 2)))

    def transform(x: Value, layer: int) -> Value:
        return feed_forward(g, x, layer, scaled=False)

    x = decoder(g, g.embed(), lambda x, layer: _attention(g, x, layer, rope), transform)
    return g.program(x, logits(g, x))


def hunyuan_moe(g: Graph) -> Program:
    """The same with experts, and one for every token."""
    h, rope = g.h, g.h.rope("halves", context=g.context)
    routing = Routing(h.n_expert_used, "softmax", is_normalized=True)

    def transform(x: Value, layer: int) -> Value:
        n_ff_shared = h.integer("expert_shared_feed_forward_length", 0) or h.n_ff(layer)
        return experts_and_shared(g, x, layer, routing, n_ff_shared, scaled=False)

    x = decoder(g, g.embed(), lambda x, layer: _attention(g, x, layer, rope), transform)
    return g.program(x, logits(g, x))


def _attention(g: Graph, x: Value, layer: int, rope: Rope) -> Value:
    n_head, n_head_kv = g.h.n_head(layer), g.h.n_head_kv(layer)
    q, k, v = queries_keys_values(g, x, layer)
    q = g.rms_norm(g.rotate(q, n_head, rope), f"blk.{layer}.attn_q_norm", heads=n_head)
    k = g.rms_norm(g.rotate(k, n_head_kv, rope), f"blk.{layer}.attn_k_norm", heads=n_head_kv)
    return attention(g, q, k, v, layer)
