"""Baichuan 7B and 13B, XVERSE, Refact.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/baichuan.cpp, xverse.cpp, refact.cpp
"""

from __future__ import annotations

from kquant.models.blocks import logits, plain_decoder
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["baichuan", "refact", "xverse"]


ALIBI = 8.0
"""The largest exponent of its slopes."""
N_LAYER_13B = 40
"""What tells Baichuan's two sizes apart, and with them how positions are known."""


def baichuan(g: Graph) -> Program:
    """As Llama; the 13B model has ALiBi in place of rotations."""
    return refact(g) if g.h.n_layer == N_LAYER_13B else xverse(g)


def xverse(g: Graph) -> Program:
    """As Llama."""
    x = plain_decoder(g, g.embed(), g.h.rope("adjacent", context=g.context))
    return g.program(x, logits(g, x))


def refact(g: Graph) -> Program:
    """As Llama, with ALiBi in place of rotations."""
    x = plain_decoder(g, g.embed(), max_alibi_bias=ALIBI)
    return g.program(x, logits(g, x))
