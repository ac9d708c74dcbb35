"""GPT-2; also StarCoder.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/gpt2.cpp, starcoder.cpp
"""

from __future__ import annotations

from kquant.models.blocks import logits, plain_decoder
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["gpt2"]


def gpt2(g: Graph) -> Program:
    """Embeddings of positions; layer norms before attention and feed-forward networks; GELU."""
    x = g.add(g.embed(), g.embed_positions())
    x = plain_decoder(g, x, None, "gelu", gate=None, norm=g.layer_norm)
    return g.program(x, logits(g, x))
