"""EXAONE 4.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/exaone4.cpp
"""

from __future__ import annotations

from dataclasses import replace

from kquant.models.blocks import attention, feed_forward, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["exaone4"]

LARGE = 64
"""Layers of the model of 32 billion weights, which alone has windows; its other layers do not rotate."""


def exaone4(g: Graph) -> Program:
    """Norms after each part alone, and of the heads of queries and keys."""
    h, rope = g.h, g.h.rope("halves", context=g.context)
    local = replace(rope, base=h.number("rope.freq_base_swa", rope.base))
    window = (h.window or 4096) if h.n_layer == LARGE else 0
    x = g.embed()
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        q, k, v = queries_keys_values(g, x, layer)
        q = g.rms_norm(q, f"{block}.attn_q_norm", heads=h.n_head(layer))
        k = g.rms_norm(k, f"{block}.attn_k_norm", heads=h.n_head_kv(layer))
        if not window:
            y = attention(g, q, k, v, layer, rope)
        elif h.slides(layer, 4):
            y = attention(g, q, k, v, layer, local, window=window)
        else:
            y = attention(g, q, k, v, layer)
        x = g.add(g.rms_norm(y, f"{block}.post_attention_norm"), x)
        y = feed_forward(g, x, layer, scaled=False)
        x = g.add(g.rms_norm(y, f"{block}.post_ffw_norm"), x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
