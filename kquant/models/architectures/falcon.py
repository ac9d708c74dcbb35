"""Falcon 7B, 40B, 180B.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/falcon.cpp
"""

from __future__ import annotations

from kquant.models.blocks import feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["falcon"]


def falcon(g: Graph) -> Program:
    """As Phi 2, without biases; attention in the larger ones has a norm of its own."""
    rope = g.h.rope("halves", context=g.context)
    x = g.embed()
    for layer in range(g.h.n_layer):
        block = f"blk.{layer}"
        y = z = g.layer_norm(x, f"{block}.attn_norm")
        if g.has(f"{block}.attn_norm_2.weight"):
            z = g.layer_norm(x, f"{block}.attn_norm_2")
        transformed = feed_forward(g, y, layer, "gelu", gate=None, scaled=False)
        x = g.add(g.add(transformed, self_attention(g, z, layer, rope)), x)
    x = g.layer_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
