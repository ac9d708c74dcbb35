"""What most architectures share: queries, keys and values of an attention; feed-forward networks; layers."""

from __future__ import annotations

from collections.abc import Callable

from kquant.models.graph import Graph
from kquant.models.operations import Activation, Routing, Value
from kquant.models.rope import Rope

__all__ = [
    "attention",
    "decoder",
    "experts_and_shared",
    "feed_forward",
    "logits",
    "plain_decoder",
    "queries_keys_values",
    "self_attention",
]


def decoder(
    g: Graph,
    x: Value,
    attend: Callable[[Value, int], Value],
    transform: Callable[[Value, int], Value],
    *,
    norm: Callable[[Value, str], Value] | None = None,
    names: tuple[str, str] = ("attn_norm", "ffn_norm"),
    residual: float = 1.0,
) -> Value:
    """x + attend(norm(x)), then x + transform(norm(x)), for each layer; and a last norm.

    Args:
        g: The graph.
        x: Embeddings.
        attend: Of a value and the number of the layer, its attention.
        transform: Likewise, its feed-forward network, or experts.
        norm: Of a value and the name of its weight; RMS norm by default.
        names: Of the two norms of a layer.
        residual: What is added to x is multiplied with it.
    """
    norm = norm or g.rms_norm
    for layer in range(g.h.n_layer):
        for name, part in zip(names, (attend, transform), strict=True):
            x = g.add(g.scale(part(norm(x, f"blk.{layer}.{name}"), layer), residual), x)
    return norm(g.select(x), "output_norm")


def plain_decoder(
    g: Graph,
    x: Value,
    rope: Rope | None = None,
    activation: Activation = "silu",
    *,
    gate: str | None = "ffn_gate",
    norm: Callable[[Value, str], Value] | None = None,
    names: tuple[str, str] = ("attn_norm", "ffn_norm"),
    max_alibi_bias: float = 0.0,
) -> Value:
    """A decoder whose attention and feed-forward network are the usual ones; Llama's by default."""

    def attend(x: Value, layer: int) -> Value:
        return self_attention(g, x, layer, rope, max_alibi_bias=max_alibi_bias)

    def transform(x: Value, layer: int) -> Value:
        return feed_forward(g, x, layer, activation, gate=gate, scaled=False)

    return decoder(g, x, attend, transform, norm=norm, names=names)


def queries_keys_values(g: Graph, x: Value, layer: int, *, fused: bool = False) -> tuple[Value, Value, Value]:
    """Those of a layer, from one matrix `attn_qkv` if the file has that, else from three."""
    h, block = g.h, f"blk.{layer}"
    n_q = h.n_head(layer) * h.head_size
    n_k, n_v = h.n_head_kv(layer) * h.head_size, h.n_head_kv(layer) * h.value_size
    if fused or g.has(f"{block}.attn_qkv.weight"):
        q, k, v = g.split(g.linear(x, f"{block}.attn_qkv", n_q + n_k + n_v), n_q, n_k, n_v)
    else:
        names = [f"{block}.attn_{which}" for which in "qkv"]
        q, k, v = g.linears(x, names, [n_q, n_k, n_v])
    limit = h.number("attention.clamp_kqv", 0.0)
    return g.clamp(q, limit), g.clamp(k, limit), g.clamp(v, limit)


def attention(
    g: Graph,
    q: Value,
    k: Value,
    v: Value,
    layer: int,
    rope: Rope | None = None,
    *,
    scale: float | None = None,
    window: int = 0,
    is_chunked: bool = False,
    soft_cap: float = 0.0,
    max_alibi_bias: float = 0.0,
    sinks: str | None = None,
) -> Value:
    """Queries and keys are rotated, if at all; what the heads attend to goes through `attn_output`."""
    h = g.h
    if rope is not None:
        q, k = g.rotate(q, h.n_head(layer), rope), g.rotate(k, h.n_head_kv(layer), rope)
    seen = g.attend(
        q, k, v, layer,
        scale=scale, window=window, is_chunked=is_chunked, soft_cap=soft_cap,
        max_alibi_bias=max_alibi_bias, sinks=sinks,
    )  # fmt: skip
    return g.linear(seen, f"blk.{layer}.attn_output", h.n_embd)


def self_attention(
    g: Graph,
    x: Value,
    layer: int,
    rope: Rope | None = None,
    *,
    scale: float | None = None,
    max_alibi_bias: float = 0.0,
) -> Value:
    """Queries, keys and values of x, and their `attention`."""
    qkv = queries_keys_values(g, x, layer)
    return attention(g, *qkv, layer, rope, scale=scale, max_alibi_bias=max_alibi_bias)


def feed_forward(
    g: Graph,
    x: Value,
    layer: int,
    activation: Activation = "silu",
    *,
    gate: str | None = "ffn_gate",
    up: str = "ffn_up",
    down: str = "ffn_down",
    n_ff: int | None = None,
    scaled: bool = True,
) -> Value:
    """down(activation(gate(x)) * up(x)); without a gate, down(activation(up(x))).

    A matrix `up` with twice the rows holds the gate's before its own.  scaled: as for `Graph.linear`.
    """
    h, block = g.h, f"blk.{layer}"
    n_ff = h.n_ff(layer) if n_ff is None else n_ff
    if gate is None:
        up_x = g.linear(x, f"{block}.{up}", n_ff, scaled=scaled, bias_first=True)
        hidden = g.apply(up_x, activation)
    elif not g.has(f"{block}.{gate}.weight") and g.rows(f"{block}.{up}.weight") == 2 * n_ff:
        both = g.linear(x, f"{block}.{up}", 2 * n_ff, scaled=scaled, bias_first=True)
        left, right = g.split(both, n_ff, n_ff)
        hidden = g.gate(left, right, activation)
    else:
        names = [f"{block}.{gate}", f"{block}.{up}"]
        left, right = g.linears(x, names, [n_ff, n_ff], scaled=scaled, bias_first=True)
        hidden = g.gate(left, right, activation)
    return g.linear(hidden, f"{block}.{down}", h.n_embd, scaled=scaled, bias_first=True)


def experts_and_shared(
    g: Graph, x: Value, layer: int, routing: Routing, n_ff_shared: int, *, scaled: bool = True
) -> Value:
    """Experts, and beside them, unless n_ff_shared is 0, a feed-forward network for every token."""
    chosen = g.experts(x, f"blk.{layer}", routing, scaled=scaled)
    if not n_ff_shared:
        return chosen
    shared = feed_forward(
        g, x, layer,
        gate="ffn_gate_shexp", up="ffn_up_shexp", down="ffn_down_shexp", n_ff=n_ff_shared, scaled=scaled,
    )  # fmt: skip
    return g.add(chosen, shared)


def logits(g: Graph, x: Value) -> Value:
    """The products with the rows of `output`, or with those of the token embeddings where these are tied."""
    return g.linear(x, "output" if g.has("output.weight") else "token_embd", g.h.n_vocab)
