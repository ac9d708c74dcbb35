"""MiniCPM 1 and 2.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/minicpm.cpp, granite.cpp
"""

from __future__ import annotations

import math
from functools import partial

from kquant.models.blocks import decoder, feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["minicpm"]


def minicpm(g: Graph) -> Program:
    """As Llama, with embeddings, what is added to them, and logits scaled."""
    h = g.h
    attend = partial(self_attention, g, rope=h.rope("adjacent", context=g.context))
    residual = h.number("residual_scale", 1.4 / math.sqrt(h.n_layer)) or 1.0
    x = g.scale(g.embed(), h.number("embedding_scale", 12.0) or 1.0)
    x = decoder(g, x, attend, partial(feed_forward, g, scaled=False), residual=residual)
    return g.program(x, g.scale(logits(g, x), 1 / (h.number("logit_scale", 256 / h.n_embd) or 1.0)))
