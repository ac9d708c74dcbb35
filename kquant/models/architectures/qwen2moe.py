"""Qwen 1.5 and 2 with experts.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/qwen2moe.cpp
"""

from __future__ import annotations

from functools import partial

from kquant.models.blocks import decoder, feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing, Value

__all__ = ["qwen2moe"]


def qwen2moe(g: Graph) -> Program:
    """Qwen 2 with experts, and beside them one for every token, behind a gate of its own."""
    h = g.h
    attend = partial(self_attention, g, rope=h.rope("halves", context=g.context))
    routing = Routing(h.n_expert_used, "softmax", factor=h.number("expert_weights_scale", 0.0) or 1.0)

    def transform(x: Value, layer: int) -> Value:
        block = f"blk.{layer}"
        n_ff = h.integer("expert_shared_feed_forward_length", 0) or h.n_ff(layer)
        shared = feed_forward(
            g, x, layer,
            gate="ffn_gate_shexp", up="ffn_up_shexp", down="ffn_down_shexp", n_ff=n_ff, scaled=False,
        )  # fmt: skip
        opening = g.apply(g.linear(x, f"{block}.ffn_gate_inp_shexp", 1, scaled=False), "sigmoid")
        return g.add(g.experts(x, block, routing, scaled=False), g.multiply(shared, opening))

    x = decoder(g, g.embed(), attend, transform)
    return g.program(x, logits(g, x))
