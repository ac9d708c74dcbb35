"""Command R, R+, R7B and A, and Aya.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/command-r.cpp and cohere2.cpp
"""

from __future__ import annotations

from dataclasses import replace

from kquant.models.blocks import attention, feed_forward, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program
from kquant.models.rope import Rope

__all__ = ["cohere2", "command_r"]


def command_r(g: Graph) -> Program:
    """Attention and feed-forward network side by side, from one layer norm."""
    rope = g.h.rope("adjacent", context=g.context)
    return _cohere(g, [(rope, 0)] * g.h.n_layer, scaled=False)


def cohere2(g: Graph) -> Program:
    """The same; three layers of four have a window, and only they rotate."""
    h, rope = g.h, g.h.rope("adjacent", context=g.context)
    rope = replace(rope, base=h.number("rope.freq_base_swa", rope.base))
    window = h.integer("attention.sliding_window", least=1, most=1 << 31)
    return _cohere(g, [(rope, window) if h.slides(i, 4) else (None, 0) for i in range(h.n_layer)])


def _cohere(g: Graph, layers: list[tuple[Rope | None, int]], scaled: bool = True) -> Program:
    h = g.h
    x = g.embed()
    for layer, (rope, window) in enumerate(layers):
        block = f"blk.{layer}"
        y = g.layer_norm(x, f"{block}.attn_norm")
        q, k, v = queries_keys_values(g, y, layer)
        if g.has(f"{block}.attn_q_norm.weight"):  # R+
            q = g.layer_norm(q, f"{block}.attn_q_norm", heads=h.n_head(layer))
            k = g.layer_norm(k, f"{block}.attn_k_norm", heads=h.n_head_kv(layer))
        seen = attention(g, q, k, v, layer, rope, window=window)
        x = g.add(g.add(feed_forward(g, y, layer, scaled=scaled), x), seen)
    x = g.layer_norm(g.select(x), "output_norm")
    return g.program(x, g.scale(logits(g, x), h.number("logit_scale", 0.0) or 1.0))
