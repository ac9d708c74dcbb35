"""InternLM 2 and 3.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/internlm2.cpp
"""

from __future__ import annotations

from kquant.models.blocks import attention, feed_forward, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["internlm2"]


def internlm2(g: Graph) -> Program:
    """As Llama."""
    h, rope = g.h, g.h.rope("adjacent", context=g.context)
    x = g.embed()
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        q, k, v = queries_keys_values(g, g.rms_norm(x, f"{block}.attn_norm"), layer)
        x = g.add(attention(g, q, k, v, layer, rope), x)
        x = g.add(feed_forward(g, g.rms_norm(x, f"{block}.ffn_norm"), layer, scaled=False), x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
