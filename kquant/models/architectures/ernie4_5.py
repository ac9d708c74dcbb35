"""ERNIE 4.5, dense and with experts.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/ernie4-5.cpp and ernie4-5-moe.cpp
"""

from __future__ import annotations

from kquant.models.blocks import (
    decoder,
    experts_and_shared,
    feed_forward,
    logits,
    plain_decoder,
    self_attention,
)
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing, Value

__all__ = ["ernie4_5", "ernie4_5_moe"]


def ernie4_5(g: Graph) -> Program:
    """As Llama."""
    x = plain_decoder(g, g.embed(), g.h.rope("adjacent", context=g.context))
    return g.program(x, logits(g, x))


def ernie4_5_moe(g: Graph) -> Program:
    """As Mixtral, with a bias for the choice of experts, one for every token, and layers without."""
    h, rope = g.h, g.h.rope("adjacent", context=g.context)
    n_dense, step = h.integer("leading_dense_block_count", 0), h.integer("interleave_moe_layer_step", least=1)
    n_ff_shared = h.integer("expert_shared_feed_forward_length", 0)

    def attend(x: Value, layer: int) -> Value:
        return self_attention(g, x, layer, rope)

    def transform(x: Value, layer: int) -> Value:
        if layer < n_dense or (layer + 1) % step:
            return feed_forward(g, x, layer, scaled=False)
        bias = f"blk.{layer}.exp_probs_b.bias"
        routing = Routing(
            h.n_expert_used, "softmax", is_normalized=True, selection_bias=bias if g.has(bias) else None
        )
        return experts_and_shared(g, x, layer, routing, n_ff_shared, scaled=False)

    x = decoder(g, g.embed(), attend, transform)
    return g.program(x, logits(g, x))
