"""gpt-oss.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/openai-moe.cpp
"""

from __future__ import annotations

from dataclasses import replace

from kquant.models.blocks import attention, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing

__all__ = ["gpt_oss"]


def gpt_oss(g: Graph) -> Program:
    """Attention with sinks, every other layer with a window; experts with biases and a clamped swish."""
    h, rope = g.h, g.h.rope("halves", context=g.context)
    local = replace(rope, base=h.number("rope.freq_base_swa", rope.base))
    window = h.integer("attention.sliding_window", least=1, most=1 << 31)
    x = g.embed()
    for layer in range(h.n_layer):
        block, slides = f"blk.{layer}", h.slides(layer, 2)
        q, k, v = queries_keys_values(g, g.rms_norm(x, f"{block}.attn_norm"), layer)
        y = attention(
            g, q, k, v, layer, local if slides else rope,
            window=window if slides else 0, sinks=f"{block}.attn_sinks.weight",
        )  # fmt: skip
        x = g.add(y, x)
        y = g.rms_norm(x, f"{block}.post_attention_norm")
        routing = Routing(h.n_expert_used, "softmax_of_chosen")
        x = g.add(g.experts(y, block, routing, "oai", scaled=False), x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
