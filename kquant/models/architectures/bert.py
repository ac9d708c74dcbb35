"""BERT, MiniLM, BGE and E5; Nomic's and Jina's: models that make embeddings of whole texts.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/models/bert.cpp
"""

from __future__ import annotations

from kquant.models.blocks import feed_forward, queries_keys_values
from kquant.models.graph import Graph
from kquant.models.operations import Activation, Program, Value
from kquant.models.rope import Rope

__all__ = ["bert", "jina_bert_v2", "nomic_bert"]


def bert(g: Graph) -> Program:
    """Learned positions, norms after each part, and attention to tokens before and after."""
    x = g.add(_token(g), g.embed_positions())
    return _encoder(g, x, "gelu", gate=None)


def nomic_bert(g: Graph) -> Program:
    """The same with rotated positions and a gate."""
    return _encoder(g, _token(g), "silu", rope=g.h.rope("halves", context=g.context))


def jina_bert_v2(g: Graph) -> Program:
    """The same with ALiBi and a gate; norms of queries and keys in some."""
    return _encoder(g, _token(g), "gelu", max_alibi_bias=8.0)


def _token(g: Graph) -> Value:
    """Embeddings of tokens that are all of the first type: of the first sentence of two."""
    x = g.embed()
    return g.add(x, g.embed_first("token_types")) if g.has("token_types.weight") else x


def _encoder(
    g: Graph,
    x: Value,
    activation: Activation,
    *,
    gate: str | None = "ffn_gate",
    rope: Rope | None = None,
    max_alibi_bias: float = 0.0,
) -> Program:
    h = g.h
    x = g.layer_norm(x, "token_embd_norm")
    for layer in range(h.n_layer):
        block = f"blk.{layer}"
        q, k, v = queries_keys_values(g, x, layer)
        if g.has(f"{block}.attn_q_norm.weight"):
            q = g.layer_norm(q, f"{block}.attn_q_norm")
            k = g.layer_norm(k, f"{block}.attn_k_norm")
        if rope is not None:
            q, k = g.rotate(q, h.n_head(layer), rope), g.rotate(k, h.n_head_kv(layer), rope)
        y = g.attend(q, k, v, layer, max_alibi_bias=max_alibi_bias, is_causal=False)
        y = g.add(g.linear(y, f"{block}.attn_output", h.n_embd), x)
        y = g.layer_norm(y, f"{block}.attn_output_norm")
        if g.has(f"{block}.attn_norm_2.weight"):
            y = g.layer_norm(g.add(y, x), f"{block}.attn_norm_2")
        x = g.add(feed_forward(g, y, layer, activation, gate=gate, scaled=False), y)
        x = g.layer_norm(x, f"{block}.layer_output_norm")
    return g.program(g.select(x), None)
