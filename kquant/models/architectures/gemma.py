"""Gemma 1, 2 and 3.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/gemma.cpp, gemma2.cpp and gemma3.cpp
"""

from __future__ import annotations

import math
from dataclasses import replace

from kquant.models.blocks import attention, feed_forward, logits, plain_decoder, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["gemma", "gemma2", "gemma3"]


def gemma(g: Graph) -> Program:
    """As Llama, with scaled embeddings and GELU as the gate."""
    rope = g.h.rope("halves", context=g.context)
    x = plain_decoder(g, g.scale(g.embed(), math.sqrt(g.h.n_embd)), rope, "gelu")
    return g.program(x, logits(g, x))


def gemma2(g: Graph) -> Program:
    """Norms before and after each part, layers with a window, soft caps of attention and logits."""
    h = g.h
    return _gemma(
        g,
        window=h.window or 4096,
        pattern=2,
        local_base=h.number("rope.freq_base_swa", h.number("rope.freq_base", 10000.0)),
        local_scale=None,
        deepest=46,
        soft_cap=h.number("attn_logit_softcapping", 50.0),
        final_soft_cap=h.number("final_logit_softcapping", 30.0),
    )


def gemma3(g: Graph) -> Program:
    """As Gemma 2, with norms of queries and keys in place of the cap; layers with a window rotate faster."""
    h = g.h
    return _gemma(
        g,
        window=h.window,
        pattern=6,
        local_base=h.number("rope.freq_base_swa", 10000.0),
        local_scale=1.0,
        deepest=62,
        soft_cap=0.0,
        final_soft_cap=h.number("final_logit_softcapping", 0.0),
    )


def _gemma(
    g: Graph,
    *,
    window: int,
    pattern: int,
    local_base: float,
    local_scale: float | None,
    deepest: int,
    soft_cap: float,
    final_soft_cap: float,
) -> Program:
    h, rope = g.h, g.h.rope("halves", context=g.context)
    local = replace(rope, base=local_base, scale=rope.scale if local_scale is None else local_scale)
    # the largest model, known by its layers, is scaled as if heads were not wider than their share
    share = h.n_embd // max(h.n_head(0), 1) or 1
    scale = 1 / math.sqrt(share if h.n_layer == deepest else h.head_size)
    x = g.scale(g.embed(), math.sqrt(h.n_embd))
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        slides = window > 0 and h.slides(layer, pattern)
        q, k, v = queries_keys_values(g, g.rms_norm(x, f"{block}.attn_norm"), layer)
        if g.has(f"{block}.attn_q_norm.weight"):
            q = g.rms_norm(q, f"{block}.attn_q_norm", heads=h.n_head(layer))
            k = g.rms_norm(k, f"{block}.attn_k_norm", heads=h.n_head_kv(layer))
        y = attention(
            g, q, k, v, layer, local if slides else rope,
            scale=scale, window=window if slides else 0, soft_cap=soft_cap,
        )  # fmt: skip
        x = g.add(g.rms_norm(y, f"{block}.post_attention_norm"), x)
        y = feed_forward(g, g.rms_norm(x, f"{block}.ffn_norm"), layer, "gelu", scaled=False)
        x = g.add(g.rms_norm(y, f"{block}.post_ffw_norm"), x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, g.soft_cap(logits(g, x), final_soft_cap))
