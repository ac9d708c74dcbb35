"""ChatGLM 3, GLM-4, GLM-Edge, GLM-4-0414, and the text of GLM-4.1V.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/chatglm.cpp and glm4.cpp
"""

from __future__ import annotations

from kquant.models.blocks import attention, feed_forward, logits, plain_decoder, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["chatglm", "glm4"]


def chatglm(g: Graph) -> Program:
    """As Llama, with gate and up in one matrix; half of each head is rotated."""
    rope = g.h.rope("adjacent", context=g.context)
    x = plain_decoder(g, g.embed(), rope)
    return g.program(x, logits(g, x))


def glm4(g: Graph) -> Program:
    """The same with norms after each part, too.  Models that also see pictures rotate halves."""
    h = g.h
    rope = h.rope("halves" if h.per_layer("rope.dimension_sections", 0, 0) else "adjacent", context=g.context)
    x = g.embed()
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        q, k, v = queries_keys_values(g, g.rms_norm(x, f"{block}.attn_norm"), layer)
        y = attention(g, q, k, v, layer, rope)
        x = g.add(g.rms_norm(y, f"{block}.post_attention_norm"), x)
        y = feed_forward(g, g.rms_norm(x, f"{block}.ffn_norm"), layer, scaled=False)
        x = g.add(g.rms_norm(y, f"{block}.post_ffw_norm"), x)
    x = g.rms_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
