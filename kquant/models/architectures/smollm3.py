"""SmolLM3.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/smollm3.cpp
"""

from __future__ import annotations

from kquant.models.blocks import attention, decoder, feed_forward, logits, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Program, Value

__all__ = ["smollm3"]


def smollm3(g: Graph) -> Program:
    """As Llama; every fourth layer does not rotate."""
    rope = g.h.rope("adjacent", context=g.context)

    def attend(x: Value, layer: int) -> Value:
        qkv = queries_keys_values(g, x, layer)
        return attention(g, *qkv, layer, rope if (layer + 1) % 4 else None)

    def transform(x: Value, layer: int) -> Value:
        return feed_forward(g, x, layer, scaled=False)

    x = decoder(g, g.embed(), attend, transform)
    return g.program(x, logits(g, x))
