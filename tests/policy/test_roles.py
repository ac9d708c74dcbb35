"""What names say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kquant.policy.roles import Role, is_token_embedding, kept_because, layer_of, processing_order, role_of


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("output.weight", Role.OUTPUT),
        ("v.output.weight", Role.OTHER),
        ("token_embd.weight", Role.TOKEN_EMBD),
        ("per_layer_token_embd.weight", Role.TOKEN_EMBD),
        ("token_embd_norm.weight", Role.OTHER),
        ("blk.0.attn_v.weight", Role.ATTENTION_V),
        ("blk.0.attn_v.bias", Role.OTHER),
        ("blk.0.attn_qkv.weight", Role.ATTENTION_V),
        ("blk.0.attn_kv_b.weight", Role.ATTENTION_V),
        ("blk.0.attn_v_b.weight", Role.OTHER),
        ("blk.0.attn_k.weight", Role.ATTENTION_K),
        ("blk.0.attn_q.weight", Role.ATTENTION_Q),
        ("blk.0.attn_q_a.weight", Role.OTHER),
        ("dec.blk.0.attn_v.weight", Role.ATTENTION_V),
        ("blk.0.attn_output.weight", Role.ATTENTION_OUTPUT),
        ("blk.0.ffn_up.weight", Role.FFN_UP),
        ("blk.0.ffn_gate_exps.weight", Role.FFN_GATE),
        ("blk.0.ffn_down_exps.weight", Role.FFN_DOWN),
        ("blk.0.ffn_down.7.weight", Role.FFN_DOWN),
        ("blk.0.ffn_gate_up_down.weight", Role.FFN_GATE),
    ],
)
def test_role(name: str, role: Role) -> None:
    assert role_of(name) is role


def test_token_embeddings() -> None:
    assert is_token_embedding("token_embd.weight")
    assert is_token_embedding("per_layer_token_embd.weight")
    assert not is_token_embedding("output.weight")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("blk.0.attn_q.weight", 0),
        ("blk.61.nextn.eh_proj.weight", 61),
        ("blk.12attn", 12),  # as C's sscanf reads "blk.%d.": what follows the number does not count
        ("blk. +3.x", 3),
        ("blk.-1.x", -1),
        ("blk.x", None),
        ("blk", None),
        ("enc.blk.3.attn_q.weight", None),
        ("output.weight", None),
    ],
)
def test_layer(name: str, layer: int | None) -> None:
    assert layer_of(name) == layer


def test_order_is_by_layer_then_by_bytes() -> None:
    names = [
        "enc.blk.0.x",
        "output.weight",
        "token_embd.weight",
        "\udcffodd",  # a byte that is not UTF-8
        "\U0001f600",
        "blk.0.b",
        "blk.1.a",
        "blk.2.a",
        "blk.10.A",
        "blk.10.a",
    ]
    ordered = sorted(frozenset(names), key=processing_order)
    assert ordered == [*names[:3], "\U0001f600", "\udcffodd", *names[5:]]


@given(st.lists(st.tuples(st.integers(0, 99), st.text("abz._", min_size=1)), unique=True))
def test_order_never_mixes_layers(parts: list[tuple[int, str]]) -> None:
    names = sorted((f"blk.{layer}.{rest}" for layer, rest in parts), key=processing_order)
    layers = [layer_of(name) for name in names]
    assert layers == sorted(layers, key=lambda layer: layer or 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("blk.0.attn_q.weight", None),
        ("blk.0.attn_q.bias", "not a weight"),
        ("blk.0.weights", "not a weight"),
        ("weight", None),
        ("table", None),  # five letters: see the comment in kept_because
        ("tables", "not a weight"),
        ("blk.0.attn_norm.weight", "a norm"),
        ("blk.0.ffn_gate_inp.weight", "the router of the experts"),
        ("blk.0.ffn_gate_inp_shexp.weight", None),
        ("blk.0.ffn_gate_tid2eid.weight", "a table of expert numbers"),
        ("blk.0.altup_proj.weight", "tiny"),
        ("blk.0.laurel_l.weight", "tiny"),
        ("blk.0.indexer.k_proj.weight", "tiny"),
        ("blk.0.indexer.q_proj.weight", "tiny"),
        ("per_layer_model_proj.weight", "a projection that is not worth it"),
        ("position_embd.weight", "positions"),
        ("token_types.weight", "token types"),
        ("blk.0.ssm_conv1d.weight", "a short convolution"),
        ("blk.0.shortconv.conv.weight", "a short convolution"),
        ("blk.0.time_mix_w1.weight", "a small matrix of RWKV"),
        ("blk.0.time_mix_first.weight", "a small matrix of RWKV"),
        ("blk.0.time_mix_g2.weight", "a small matrix of RWKV"),
        ("blk.0.time_mix_decay_w2.weight", "a small matrix of RWKV"),
        ("blk.0.time_mix_lerp_fused.weight", "a small matrix of RWKV"),
        ("blk.0.time_mix_key.weight", None),
        ("enc.blk.0.attn_rel_b.weight", "a relative position bias"),
        ("v.position_embd.weight", "a part of an image or audio encoder"),
        ("v.patch_embd.weight", "a part of an image or audio encoder"),
        ("sam.neck.0.weight", "a part of an image or audio encoder"),
        ("v.blk.0.attn_q.weight", None),
        ("blk.0.hc_attn.weight", None),
    ],
)
def test_what_is_kept(name: str, reason: str | None) -> None:
    assert kept_because(name, 2, "llama") == reason
    assert kept_because(name, 3, "llama") == reason
    assert kept_because(name, 1, "llama") == "one-dimensional"


@pytest.mark.parametrize("part", ["hc_attn", "indexer.proj", "attn_kv_a_mqa", "attn_v_b", "ssm_beta"])
def test_what_one_architecture_keeps(part: str) -> None:
    name = f"blk.3.{part}.weight"
    assert kept_because(name, 2, "glm5-next") == "sensitive in glm5-next"
    assert kept_because(name, 2, "llama") is None
