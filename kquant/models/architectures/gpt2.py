"""GPT-2; also StarCoder.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/gpt2.cpp, starcoder.cpp
"""

from __future__ import annotations

from functools import partial

from kquant.models.blocks import decoder, feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["gpt2"]


def gpt2(g: Graph) -> Program:
    """Embeddings of positions; layer norms before attention and feed-forward networks; GELU."""
    attend = partial(self_attention, g)
    transform = partial(feed_forward, g, activation="gelu", gate=None, scaled=False)
    x = decoder(g, g.add(g.embed(), g.embed_positions()), attend, transform, norm=g.layer_norm)
    return g.program(x, logits(g, x))
