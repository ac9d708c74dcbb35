"""InternLM 2 and 3.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/internlm2.cpp
"""

from __future__ import annotations

from kquant.models.blocks import logits, plain_decoder
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["internlm2"]


def internlm2(g: Graph) -> Program:
    """As Llama."""
    rope = g.h.rope("adjacent", context=g.context)
    x = plain_decoder(g, g.embed(), rope)
    return g.program(x, logits(g, x))
