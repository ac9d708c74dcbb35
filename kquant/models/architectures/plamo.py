"""PLaMo 13B.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/plamo.cpp
"""

from __future__ import annotations

from kquant.models.blocks import feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["plamo"]


def plamo(g: Graph) -> Program:
    """As Llama, with pairs in halves, and attention and network side by side after the same norm."""
    rope = g.h.rope("halves", context=g.context)
    x = g.embed()
    for layer in range(g.h.n_layer):
        y = g.rms_norm(x, f"blk.{layer}.attn_norm")
        transformed = feed_forward(g, y, layer, scaled=False)
        x = g.add(g.add(transformed, self_attention(g, y, layer, rope)), x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
