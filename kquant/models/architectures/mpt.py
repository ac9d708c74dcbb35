"""MPT.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/mpt.cpp
"""

from __future__ import annotations

from kquant.models.blocks import attention, decoder, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program, Value

__all__ = ["mpt"]


def mpt(g: Graph) -> Program:
    """As GPT-2, with ALiBi; queries and keys may have layer norms, and hidden values what AWQ divides by."""
    h, alibi = g.h, g.h.number("attention.max_alibi_bias", 0.0)

    def attend(x: Value, layer: int) -> Value:
        q, k, v = queries_keys_values(g, x, layer)
        if g.has(f"blk.{layer}.attn_q_norm.weight"):
            q, k = g.layer_norm(q, f"blk.{layer}.attn_q_norm"), g.layer_norm(k, f"blk.{layer}.attn_k_norm")
        return attention(g, q, k, v, layer, max_alibi_bias=alibi)

    def transform(x: Value, layer: int) -> Value:
        block, divisor = f"blk.{layer}", f"blk.{layer}.ffn.act.scales"
        y = g.apply(g.linear(x, f"{block}.ffn_up", h.n_ff(layer), scaled=False), "gelu")
        y = g.divide(y, divisor) if g.has(divisor) else y
        return g.linear(y, f"{block}.ffn_down", h.n_embd, scaled=False)

    x = g.embed()
    x = g.add(x, g.embed_positions()) if g.has("position_embd.weight") else x
    x = decoder(g, x, attend, transform, norm=g.layer_norm)
    return g.program(x, logits(g, x))
