"""Seed-OSS.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/seed-oss.cpp
"""

from __future__ import annotations

from kquant.models.blocks import logits, plain_decoder
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["seed_oss"]


def seed_oss(g: Graph) -> Program:
    """As Llama, with pairs of elements that are half a head apart."""
    rope = g.h.rope("halves", context=g.context)
    x = plain_decoder(g, g.embed(), rope, names=("attn_norm", "post_attention_norm"))
    return g.program(x, logits(g, x))
