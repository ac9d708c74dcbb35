"""GPT-NeoX, Pythia, Dolly, RedPajama.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/gptneox.cpp
"""

from __future__ import annotations

from kquant.models.blocks import feed_forward, logits, self_attention
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["gptneox"]


def gptneox(g: Graph) -> Program:
    """As GPT-2, rotated in halves; attention and network may stand side by side, each after its own norm."""
    rope, is_parallel = g.h.rope("halves", context=g.context), g.h.flag("use_parallel_residual")
    x = g.embed()
    for layer in range(g.h.n_layer):
        block = f"blk.{layer}"
        y = g.add(self_attention(g, g.layer_norm(x, f"{block}.attn_norm"), layer, rope), x)
        z = g.layer_norm(x if is_parallel else y, f"{block}.ffn_norm")
        x = g.add(feed_forward(g, z, layer, "gelu", gate=None, scaled=False), y)
    x = g.layer_norm(g.select(x), "output_norm")
    return g.program(x, logits(g, x))
