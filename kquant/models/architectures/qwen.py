"""Qwen, the first.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/qwen.cpp
"""

from __future__ import annotations

from functools import partial

from kquant.models.blocks import decoder, feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program, Value

__all__ = ["qwen"]


def qwen(g: Graph) -> Program:
    """As Llama, with pairs in halves; the file counts gate and up together as the feed-forward length."""
    attend = partial(self_attention, g, rope=g.h.rope("halves", context=g.context))

    def transform(x: Value, layer: int) -> Value:
        return feed_forward(g, x, layer, n_ff=g.h.n_ff(layer) // 2, scaled=False)

    x = decoder(g, g.embed(), attend, transform)
    return g.program(x, logits(g, x))
