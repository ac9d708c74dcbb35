"""BLOOM.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/bloom.cpp
"""

from __future__ import annotations

from functools import partial

from kquant.models.blocks import decoder, feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["bloom"]


ALIBI = 8.0
"""The largest exponent of its slopes."""


def bloom(g: Graph) -> Program:
    """As GPT-2, with ALiBi in place of positions, and a norm of the embeddings."""
    attend = partial(self_attention, g, max_alibi_bias=ALIBI)
    transform = partial(feed_forward, g, activation="gelu", gate=None, scaled=False)
    x = decoder(g, g.layer_norm(g.embed(), "token_embd_norm"), attend, transform, norm=g.layer_norm)
    return g.program(x, logits(g, x))
