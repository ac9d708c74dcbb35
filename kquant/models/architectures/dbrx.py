"""DBRX.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/dbrx.cpp
"""

from __future__ import annotations

from kquant.models.blocks import attention, decoder, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing, Value

__all__ = ["dbrx"]


def dbrx(g: Graph) -> Program:
    """Layer norms, clamped queries, keys and values, and experts."""
    h, rope = g.h, g.h.rope("halves", context=g.context)
    routing = Routing(h.n_expert_used, "softmax", is_normalized=True)

    def attend(x: Value, layer: int) -> Value:
        return attention(g, *queries_keys_values(g, x, layer, fused=True), layer, rope)

    def transform(x: Value, layer: int) -> Value:
        return g.experts(x, f"blk.{layer}", routing, scaled=False)

    names = "attn_norm", "attn_output_norm"
    x = decoder(g, g.embed(), attend, transform, norm=g.layer_norm, names=names)
    return g.program(x, logits(g, x))
