"""Grok 1 and 2.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/grok.cpp
"""

from __future__ import annotations

import math
from dataclasses import replace

from kquant.models.blocks import attention, feed_forward, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing

__all__ = ["grok"]


def grok(g: Graph) -> Program:
    """Norms before and after each part; experts, in Grok 2 beside a dense network; caps and scales."""
    h = g.h
    rope = h.rope("halves", context=g.context)
    rope = replace(rope, beta_fast=h.number("rope.scaling.yarn_beta_fast", 8.0))
    routing = Routing(h.n_expert_used, "softmax", is_normalized=True)
    scale = h.number("attention.output_scale", 0.08838834764831845)
    soft_cap = h.number("attn_logit_softcapping", 30.0)
    x = g.scale(g.embed(), h.number("embedding_scale", 78.38367176906169))
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        q, k, v = queries_keys_values(g, g.rms_norm(x, f"{block}.attn_norm"), layer)
        y = attention(g, q, k, v, layer, rope, scale=scale, soft_cap=soft_cap)
        x = g.add(g.rms_norm(y, f"{block}.attn_output_norm"), x)
        y = g.rms_norm(x, f"{block}.ffn_norm")
        chosen = g.experts(y, block, routing, "gelu", scaled=False)
        if g.has(f"{block}.ffn_up.weight"):
            dense = feed_forward(g, y, layer, "gelu", scaled=False)
            chosen = g.scale(g.add(dense, chosen), math.sqrt(2) / 2)
        last = "layer_output_norm" if g.has(f"{block}.layer_output_norm.weight") else "post_ffw_norm"
        x = g.add(g.rms_norm(chosen, f"{block}.{last}"), x)
    x = g.rms_norm(g.select(x), "output_norm")
    y = g.scale(logits(g, x), h.number("logit_scale", 0.5773502691896257))
    return g.program(x, g.soft_cap(y, h.number("final_logit_softcapping", 0.0)))
