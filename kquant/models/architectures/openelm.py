"""OpenELM.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/openelm.cpp
"""

from __future__ import annotations

from kquant.models.blocks import attention, decoder, feed_forward, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program, Value

__all__ = ["openelm"]


def openelm(g: Graph) -> Program:
    """Norms of the heads of queries and keys; layers differ in heads and widths."""
    h, rope = g.h, g.h.rope("halves", context=g.context)

    def attend(x: Value, layer: int) -> Value:
        q, k, v = queries_keys_values(g, x, layer, fused=True)
        q = g.rms_norm(q, f"blk.{layer}.attn_q_norm", heads=h.n_head(layer))
        k = g.rms_norm(k, f"blk.{layer}.attn_k_norm", heads=h.n_head_kv(layer))
        return attention(g, q, k, v, layer, rope)

    def transform(x: Value, layer: int) -> Value:
        return feed_forward(g, x, layer, scaled=False)

    x = decoder(g, g.embed(), attend, transform)
    return g.program(x, logits(g, x))
