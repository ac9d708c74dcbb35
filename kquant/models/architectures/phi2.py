"""Phi 1, 1.5 and 2.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/phi2.cpp
"""

from __future__ import annotations

from kquant.models.blocks import feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["phi2"]


def phi2(g: Graph) -> Program:
    """Attention and feed-forward network side by side, after the same layer norm."""
    rope = g.h.rope("halves", context=g.context)
    x = g.embed()
    for layer in range(g.h.n_layer):
        y = g.layer_norm(x, f"blk.{layer}.attn_norm")
        transformed = feed_forward(g, y, layer, "gelu", gate=None, scaled=False)
        x = g.add(g.add(self_attention(g, y, layer, rope), transformed), x)
    x = g.layer_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
