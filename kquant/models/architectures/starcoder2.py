"""StarCoder 2; also CodeShell.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/starcoder2.cpp, codeshell.cpp
"""

from __future__ import annotations

from functools import partial

from kquant.models.blocks import decoder, feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["starcoder2"]


def starcoder2(g: Graph) -> Program:
    """As GPT-2, rotated in halves."""
    attend = partial(self_attention, g, rope=g.h.rope("halves", context=g.context))
    transform = partial(feed_forward, g, activation="gelu", gate=None, scaled=False)
    x = decoder(g, g.embed(), attend, transform, norm=g.layer_norm)
    return g.program(x, logits(g, x))
