"""Llama 1 to 3, Mistral, Mixtral, Yi, SmolLM and many others; also Mistral 3.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/llama.cpp, mistral3.cpp
"""

from __future__ import annotations

from kquant.models.blocks import feed_forward, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program, Routing

__all__ = ["llama"]


def llama(g: Graph) -> Program:
    """Rotary embeddings of adjacent pairs, RMS norms before attention and feed-forward networks.

    Mistral 3 may sharpen the attention of tokens beyond its first training's context.
    """
    h, rope = g.h, g.h.rope("adjacent", context=g.context)
    routing = Routing(
        h.n_expert_used, "softmax", is_normalized=True, factor=h.number("expert_weights_scale", 0.0) or 1.0
    )
    x = g.embed()
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        q, k, v = queries_keys_values(g, g.rms_norm(x, f"{block}.attn_norm"), layer)
        q = g.rotate(q, h.n_head(layer), rope)
        k = g.rotate(k, h.n_head_kv(layer), rope)
        q = g.temper(q, h.number("attention.temperature_scale", 0.0), rope.original_context)
        x = g.add(g.linear(g.attend(q, k, v, layer), f"{block}.attn_output", h.n_embd), x)
        y = g.rms_norm(x, f"{block}.ffn_norm")
        y = g.experts(y, block, routing) if h.n_expert else feed_forward(g, y, layer)
        x = g.add(y, x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
