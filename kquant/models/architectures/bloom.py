"""BLOOM.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/bloom.cpp
"""

from __future__ import annotations

from kquant.models.blocks import logits, plain_decoder
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["bloom"]


ALIBI = 8.0
"""The largest exponent of its slopes."""


def bloom(g: Graph) -> Program:
    """As GPT-2, with ALiBi in place of positions, and a norm of the embeddings."""
    x = g.layer_norm(g.embed(), "token_embd_norm")
    x = plain_decoder(g, x, None, "gelu", gate=None, norm=g.layer_norm, max_alibi_bias=ALIBI)
    return g.program(x, logits(g, x))
