"""Qwen 1.5 to 2.5; also EXAONE 3.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/qwen2.cpp, exaone.cpp
"""

from __future__ import annotations

from kquant.models.blocks import logits, plain_decoder
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["qwen2"]


def qwen2(g: Graph) -> Program:
    """As Llama, with pairs in halves, and biases of queries, keys and values."""
    x = plain_decoder(g, g.embed(), g.h.rope("halves", context=g.context))
    return g.program(x, logits(g, x))
