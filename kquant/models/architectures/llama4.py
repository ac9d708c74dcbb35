"""Llama 4 Scout and Maverick.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/llama4.cpp
"""

from __future__ import annotations

from dataclasses import replace

from kquant.errors import ModelError
from kquant.models.blocks import (
    attention,
    decoder,
    experts_and_shared,
    feed_forward,
    logits,
    queries_keys_values,
)
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing, Value

__all__ = ["llama4"]

CHUNK = 8192
"""Tokens that see each other in layers that rotate; and after which the others sharpen their attention."""
MAVERICK = 128
"""Experts of the model whose queries and keys are not normalized."""


def llama4(g: Graph) -> Program:
    """Three layers of four rotate and see a chunk; experts weigh what they are given, and one is for all."""
    h, rope = g.h, g.h.rope("adjacent", context=g.context)
    if h.has("attention.sliding_window") and not h.window:
        raise ModelError("llama4.attention.sliding_window: expected chunks of tokens, got 0")
    local = replace(rope, base=h.number("rope.freq_base_swa", rope.base))
    step, n_ff = h.integer("interleave_moe_layer_step"), h.integer("expert_feed_forward_length")
    routing = Routing(h.n_expert_used, "sigmoid", by_logits=True, weighs_input=True)

    def attend(x: Value, layer: int) -> Value:
        n_head, n_head_kv = h.n_head(layer), h.n_head_kv(layer)
        slides = h.slides(layer, 4)
        q, k, v = queries_keys_values(g, x, layer)
        if (layer + 1) % 4 == 0:
            q = g.temper(q, 0.1, CHUNK, 1.0)
        else:
            q = g.rotate(q, n_head, local if slides else rope)
            k = g.rotate(k, n_head_kv, local if slides else rope)
            if h.n_expert != MAVERICK:
                q, k = g.rms_norm(q, None, heads=n_head), g.rms_norm(k, None, heads=n_head_kv)
        return attention(g, q, k, v, layer, window=CHUNK if slides else 0, is_chunked=slides)

    def transform(x: Value, layer: int) -> Value:
        if step and (layer + 1) % step == 0:
            return experts_and_shared(g, x, layer, routing, n_ff, scaled=False)
        return feed_forward(g, x, layer, scaled=False)

    x = decoder(g, g.embed(), attend, transform)
    return g.program(x, logits(g, x))
