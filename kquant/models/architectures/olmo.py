"""OLMo 1 to 3 and OLMoE.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/olmo.cpp, olmo2.cpp and olmoe.cpp
"""

from __future__ import annotations

from dataclasses import replace

from kquant.models.blocks import (
    attention,
    decoder,
    feed_forward,
    logits,
    plain_decoder,
    queries_keys_values,
)
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing, Value

__all__ = ["olmo", "olmo2", "olmoe"]


def olmo(g: Graph) -> Program:
    """As Llama, with layer norms that have no weights; queries, keys and values are clamped."""
    rope = g.h.rope("adjacent", context=g.context)
    x = plain_decoder(g, g.embed(), rope, norm=lambda x, _: g.layer_norm(x, None))
    return g.program(x, logits(g, x))


def olmo2(g: Graph) -> Program:
    """Norms after each part alone, and of queries and keys; OLMo 3 has layers with a window."""
    h, rope = g.h, g.h.rope("halves", context=g.context)
    local = replace(rope, scale=1.0, magnitude=1.0, extrapolation=0.0)
    x = g.embed()
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        slides = h.window > 0 and h.slides(layer, 4)
        q, k, v = queries_keys_values(g, x, layer)
        q, k = g.rms_norm(q, f"{block}.attn_q_norm"), g.rms_norm(k, f"{block}.attn_k_norm")
        y = attention(g, q, k, v, layer, local if slides else rope, window=h.window if slides else 0)
        x = g.add(g.rms_norm(y, f"{block}.post_attention_norm"), x)
        y = feed_forward(g, x, layer, scaled=False)
        x = g.add(g.rms_norm(y, f"{block}.post_ffw_norm"), x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))


def olmoe(g: Graph) -> Program:
    """Norms of queries and keys, and experts whose weights are what a softmax over all of them gives."""
    h, rope = g.h, g.h.rope("halves", context=g.context)

    def attend(x: Value, layer: int) -> Value:
        q, k, v = queries_keys_values(g, x, layer)
        q = g.rms_norm(q, f"blk.{layer}.attn_q_norm")
        k = g.rms_norm(k, f"blk.{layer}.attn_k_norm")
        return attention(g, q, k, v, layer, rope)

    def transform(x: Value, layer: int) -> Value:
        return g.experts(x, f"blk.{layer}", Routing(h.n_expert_used, "softmax"), scaled=False)

    x = decoder(g, g.embed(), attend, transform)
    return g.program(x, logits(g, x))
