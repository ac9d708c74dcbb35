"""gpt-oss.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/openai-moe.cpp
"""

from __future__ import annotations

from dataclasses import replace

from kquant.models.blocks import attention, decoder, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing, Value

__all__ = ["gpt_oss"]


def gpt_oss(g: Graph) -> Program:
    """Attention with sinks, every other layer with a window; experts with biases and a clamped swish."""
    h, rope = g.h, g.h.rope("halves", context=g.context)
    local = replace(rope, base=h.number("rope.freq_base_swa", rope.base))
    window = h.integer("attention.sliding_window", least=1, most=1 << 31)

    def attend(x: Value, layer: int) -> Value:
        qkv, sinks = queries_keys_values(g, x, layer), f"blk.{layer}.attn_sinks.weight"
        if h.slides(layer, 2):
            return attention(g, *qkv, layer, local, window=window, sinks=sinks)
        return attention(g, *qkv, layer, rope, sinks=sinks)

    def transform(x: Value, layer: int) -> Value:
        routing = Routing(h.n_expert_used, "softmax_of_chosen")
        return g.experts(x, f"blk.{layer}", routing, "oai", scaled=False)

    x = decoder(g, g.embed(), attend, transform, names=("attn_norm", "post_attention_norm"))
    return g.program(x, logits(g, x))
