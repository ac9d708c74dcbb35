"""OLMo 1 to 3 and OLMoE.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/olmo.cpp, olmo2.cpp and olmoe.cpp
"""

from __future__ import annotations

from dataclasses import replace

from kquant.models.blocks import attention, feed_forward, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing

__all__ = ["olmo", "olmo2", "olmoe"]


def olmo(g: Graph) -> Program:
    """As Llama, with layer norms that have no weights; queries, keys and values are clamped."""
    h, rope = g.h, g.h.rope("adjacent", context=g.context)
    x = g.embed()
    for layer in range(h.n_layer):
        q, k, v = queries_keys_values(g, g.layer_norm(x, None), layer)
        x = g.add(attention(g, q, k, v, layer, rope), x)
        x = g.add(feed_forward(g, g.layer_norm(x, None), layer, scaled=False), x)
    x = g.layer_norm(g.select(x), None)
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
        y = attention(
            g, q, k, v, layer, local if slides else rope, window=h.window if slides else 0
        )
        x = g.add(g.rms_norm(y, f"{block}.post_attention_norm"), x)
        y = feed_forward(g, x, layer, scaled=False)
        x = g.add(g.rms_norm(y, f"{block}.post_ffw_norm"), x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))


def olmoe(g: Graph) -> Program:
    """Norms of queries and keys, and experts whose weights are what a softmax over all of them gives."""
    h, rope = g.h, g.h.rope("halves", context=g.context)
    x = g.embed()
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        q, k, v = queries_keys_values(g, g.rms_norm(x, f"{block}.attn_norm"), layer)
        q, k = g.rms_norm(q, f"{block}.attn_q_norm"), g.rms_norm(k, f"{block}.attn_k_norm")
        x = g.add(attention(g, q, k, v, layer, rope), x)
        y = g.rms_norm(x, f"{block}.ffn_norm")
        x = g.add(g.experts(y, block, Routing(h.n_expert_used, "softmax"), scaled=False), x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
