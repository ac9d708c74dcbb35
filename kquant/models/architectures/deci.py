"""Llama-Nemotron: Llamas from which a search took away what was of least use.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/deci.cpp
"""

from __future__ import annotations

from kquant.models.blocks import attention, feed_forward, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["deci"]


def deci(g: Graph) -> Program:
    """As Llama; a layer may lack its attention, or have one matrix in its place, and lack its network."""
    h, rope = g.h, g.h.rope("adjacent", context=g.context)
    x = g.embed()
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        if g.has(f"{block}.attn_norm.weight"):
            y = g.rms_norm(x, f"{block}.attn_norm")
            if h.per_layer("attention.head_count_kv", layer, 0):
                y = attention(g, *queries_keys_values(g, y, layer), layer, rope)
            else:
                y = g.linear(y, f"{block}.attn_output", h.n_embd, scaled=False)
            x = g.add(y, x)
        if h.n_ff(layer):
            x = g.add(feed_forward(g, g.rms_norm(x, f"{block}.ffn_norm"), layer, scaled=False), x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
