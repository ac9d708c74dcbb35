"""StableLM and StableLM 2.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/stablelm.cpp
"""

from __future__ import annotations

from kquant.models.blocks import attention, feed_forward, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["stablelm"]


def stablelm(g: Graph) -> Program:
    """As Llama, with layer norms and pairs in halves.

    StableLM 2 12B has norms of queries and keys, and one norm for attention and network, side by side.
    """
    h, rope = g.h, g.h.rope("halves", context=g.context)
    x = g.embed()
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        y = g.layer_norm(x, f"{block}.attn_norm")
        q, k, v = queries_keys_values(g, y, layer)
        if g.has(f"{block}.attn_q_norm.weight"):
            q = g.layer_norm(q, f"{block}.attn_q_norm", heads=h.n_head(layer))
            k = g.layer_norm(k, f"{block}.attn_k_norm", heads=h.n_head_kv(layer))
        x = g.add(attention(g, q, k, v, layer, rope), x)
        if g.has(f"{block}.ffn_norm.weight"):
            y = g.layer_norm(x, f"{block}.ffn_norm")
        x = g.add(feed_forward(g, y, layer, scaled=False), x)
    x = g.layer_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
