"""StarCoder 2; also CodeShell.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/starcoder2.cpp, codeshell.cpp
"""

from __future__ import annotations

from kquant.models.blocks import logits, plain_decoder
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["starcoder2"]


def starcoder2(g: Graph) -> Program:
    """As GPT-2, rotated in halves."""
    rope = g.h.rope("halves", context=g.context)
    x = plain_decoder(g, g.embed(), rope, "gelu", gate=None, norm=g.layer_norm)
    return g.program(x, logits(g, x))
