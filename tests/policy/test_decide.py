"""The order of the questions: what is kept, what options name, what rules say, what fits the rows."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kquant.errors import ShapeError
from kquant.policy import Decision, ModelFacts, PolicyOptions, TensorFacts, decide, needs_imatrix
from kquant.policy.roles import processing_order
from kquant.types import FileType, TensorType
from support.models import LLAMA_2_7B, decoder

LLAMA = ModelFacts("llama", n_layer=32, n_gqa=1)


def one(
    name: str,
    file_type: str = "Q4_K_M",
    *,
    shape: tuple[int, ...] = (512, 256),
    among: tuple[str, ...] = ("output.weight",),
    facts: ModelFacts = LLAMA,
    **options: Any,
) -> Decision:
    """The decision on one F16 tensor in a model that has an output tensor."""
    names = [name, *(other for other in among if other != name)]
    tensors = [TensorFacts(each, shape if each == name else (256, 256), TensorType.F16) for each in names]
    return decide(tensors, facts, PolicyOptions(FileType[file_type], **options))[0]


def patterns(**types: str) -> tuple[tuple[re.Pattern[str], TensorType], ...]:
    return tuple((re.compile(pattern), TensorType[name]) for pattern, name in types.items())


def test_names_and_shapes() -> None:
    assert TensorFacts("x", (), TensorType.F32).n_per_row == 1
    assert TensorFacts("x", (3, 7), TensorType.F32).n_per_row == 7
    for shape, n_dims in [
        ((), 1),
        ((1,), 1),
        ((5,), 1),
        ((1, 5), 1),
        ((5, 1), 2),
        ((1, 1, 2, 5), 2),
        ((0, 5), 2),
    ]:
        assert TensorFacts("x", shape, TensorType.F32).n_dims == n_dims


def test_copy_keeps_everything() -> None:
    decided = LLAMA_2_7B.decide("COPY")
    assert all(not decision.quantize for decision in decided)
    assert [decision.type for decision in decided] == [tensor.type for tensor in LLAMA_2_7B.tensors]
    assert {decision.reason for decision in decided} == {"kept: only copied"}


@pytest.mark.parametrize("file_type", ["F32", "F16", "BF16"])
def test_a_float_type_is_for_all_matrices(file_type: str) -> None:
    for tensor, decision in zip(LLAMA_2_7B.tensors, LLAMA_2_7B.decide(file_type), strict=True):
        expected = TensorType[file_type] if tensor.n_dims == 2 else TensorType.F32
        assert decision == Decision(
            expected,
            f"default of {file_type}" if tensor.n_dims == 2 else "kept: one-dimensional",
            quantize=tensor.n_dims == 2,
        )


def test_what_may_not_be_quantized_is_kept() -> None:
    assert one("blk.0.ffn_gate_inp.weight") == Decision(
        TensorType.F16, "kept: the router of the experts", quantize=False
    )
    assert one("blk.0.attn_q.weight", shape=(1, 256)).reason == "kept: one-dimensional"


def test_leaving_the_output_tensor() -> None:
    left = one("output.weight", leave_output_tensor=True, output_tensor_type=TensorType.Q8_0)
    assert left == Decision(TensorType.F16, "kept: the output tensor, by option", quantize=False)
    assert one("blk.0.attn_q.weight", leave_output_tensor=True).type is TensorType.Q4_K
    # tied embeddings are no tensor of that name
    assert one("token_embd.weight", among=(), leave_output_tensor=True).type is TensorType.Q6_K


@pytest.mark.parametrize(
    ("file_type", "architecture", "n_per_row", "expected"),
    [
        ("Q2_K", "llama", 256, "Q6_K"),
        ("Q6_K", "llama", 256, "Q6_K"),
        ("Q4_0", "llama", 256, "Q6_K"),
        ("Q8_0", "llama", 256, "Q8_0"),
        ("Q4_K_M", "falcon", 256, "Q8_0"),
        ("Q4_K_M", "llama", 288, "Q8_0"),
        ("Q4_0", "llama", 288, "Q8_0"),  # Q6_K does not fit either: see the fallback
        ("Q4_0", "llama", 80, "F16"),
        ("Q4_K_M", "llama", 80, "F16"),
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_output_tensor(file_type: str, architecture: str, n_per_row: int, expected: str, tied: bool) -> None:
    name, among = ("token_embd.weight", ()) if tied else ("output.weight", ())
    got = one(name, file_type, shape=(512, n_per_row), among=among, facts=ModelFacts(architecture, 32))
    assert got.type.name == expected
    reason = "token embeddings that are the output tensor too" if tied else "the output tensor"
    assert got.reason.startswith(reason)


def test_output_type_by_option() -> None:
    assert one("output.weight", output_tensor_type=TensorType.Q5_K) == Decision(
        TensorType.Q5_K, "the output tensor, by option"
    )
    assert one("output.weight", "F16", output_tensor_type=TensorType.Q8_0).type is TensorType.Q8_0
    assert (
        one("output.weight", "Q3_K_S", pure=True, output_tensor_type=TensorType.Q8_0).type is TensorType.Q8_0
    )
    assert one("blk.0.attn_q.weight", output_tensor_type=TensorType.Q8_0).type is TensorType.Q4_K
    tied = one("token_embd.weight", among=(), output_tensor_type=TensorType.Q5_K)
    assert tied == Decision(TensorType.Q5_K, "token embeddings that are the output tensor too, by option")
    # through the mixture only: neither for F16 nor pure, and with a fallback
    assert (
        one("token_embd.weight", "F16", among=(), output_tensor_type=TensorType.Q8_0).type is TensorType.F16
    )
    assert (
        one("token_embd.weight", among=(), pure=True, output_tensor_type=TensorType.Q8_0).type
        is TensorType.Q4_K
    )
    odd = one("token_embd.weight", among=(), shape=(512, 288), output_tensor_type=TensorType.Q5_K)
    assert (odd.type, odd.fallback_from) == (TensorType.Q5_1, TensorType.Q5_K)


def test_embedding_type_by_option() -> None:
    asked: dict[str, Any] = {"token_embedding_type": TensorType.Q3_K}
    assert one("token_embd.weight", **asked) == Decision(TensorType.Q3_K, "token embeddings, by option")
    assert one("token_embd.weight", "F16", **asked).type is TensorType.Q3_K
    assert one("token_embd.weight", pure=True, **asked).type is TensorType.Q3_K
    assert (
        one("token_embd.weight", among=(), **asked, output_tensor_type=TensorType.Q8_0).type
        is TensorType.Q3_K
    )
    assert one("output.weight", **asked).type is TensorType.Q6_K


def test_the_table_of_embeddings_per_layer() -> None:
    name = "per_layer_token_embd.weight"
    asked: dict[str, Any] = {"token_embedding_type": TensorType.Q3_K}
    named: dict[str, Any] = {"tensor_types": patterns(per_layer="Q5_0")}
    assert one(name).type is TensorType.Q4_K
    assert one(name, **asked).type is TensorType.Q3_K
    assert one(name, **asked, **named).type is TensorType.Q5_0
    assert one("token_embd.weight", **asked, tensor_types=patterns(token_embd="Q5_0")).type is TensorType.Q3_K
    assert one(name, "F16", **asked, **named).type is TensorType.F16


def test_a_type_set_by_option_must_fit() -> None:
    message = "^output.weight: Q4_K expects rows of a multiple of 256 elements, got 288, and a type that"
    with pytest.raises(ShapeError, match=message):
        one("output.weight", shape=(512, 288), output_tensor_type=TensorType.Q4_K)
    with pytest.raises(
        ShapeError, match=r"^token_embd.weight: Q4_0 expects rows of a multiple of 32 elements, got 80"
    ):
        one("token_embd.weight", shape=(512, 80), token_embedding_type=TensorType.Q4_0)


def test_the_first_pattern_that_matches_wins() -> None:
    chosen: dict[str, Any] = {"tensor_types": patterns(attn="Q8_0", attn_q="Q2_K", ffn="F16", norm="Q4_0")}
    assert one("blk.0.attn_q.weight", **chosen) == Decision(TensorType.Q8_0, "named by the pattern 'attn'")
    assert one("blk.0.ffn_up.weight", **chosen).type is TensorType.F16
    assert one("blk.0.attn_norm.weight", **chosen).quantize is False
    assert one("blk.0.attn_q.weight", pure=True, **chosen).type is TensorType.Q8_0
    assert one("blk.0.attn_q.weight", "F32", **chosen).type is TensorType.F32
    assert one("output.weight", tensor_types=patterns(output="Q4_0")).type is TensorType.Q4_0
    both = one("output.weight", tensor_types=patterns(output="Q4_0"), output_tensor_type=TensorType.Q5_1)
    assert both.type is TensorType.Q5_1
    odd = one("blk.0.attn_q.weight", shape=(512, 288), tensor_types=patterns(attn="Q6_K"))
    assert (odd.type, odd.fallback_from) == (TensorType.Q8_0, TensorType.Q6_K)


def test_pure() -> None:
    assert one("output.weight", pure=True) == Decision(TensorType.Q4_K, "pure Q4_K_M")
    odd = one("output.weight", pure=True, shape=(512, 288))
    assert odd.type is TensorType.Q5_0
    assert odd.reason == "pure Q4_K_M; Q4_K needs rows of a multiple of 256, not 288"


def test_tensors_that_a_pattern_names_do_not_count() -> None:
    names = [f"blk.{i}.attn_v.weight" for i in range(8)]
    tensors = [TensorFacts(name, (256, 256), TensorType.F16) for name in [*names, "output.weight"]]
    named = PolicyOptions(FileType.Q3_K_M, tensor_types=patterns(**{r"blk\.[01]\.": "Q8_0"}))
    got = [decision.type.name for decision in decide(tensors, LLAMA, named)]
    assert got == ["Q8_0", "Q8_0", "Q5_K", "Q5_K", "Q4_K", "Q4_K", "Q4_K", "Q4_K", "Q6_K"]


def test_positions_count_attention_v_of_any_kind_and_layers_of_the_metadata() -> None:
    names = [
        "blk.0.attn_qkv.weight",
        "blk.1.attn_kv_b.weight",
        "blk.2.attn_v.weight",
        "blk.3.ffn_down.weight",
    ]
    tensors = [TensorFacts(name, (256, 256), TensorType.F16) for name in [*names, "output.weight"]]
    got = [decision.type.name for decision in decide(tensors, LLAMA, PolicyOptions(FileType.Q3_K_M))]
    assert got == ["Q5_K", "Q5_K", "Q4_K", "Q5_K", "Q6_K"]  # ffn_down: the first of 32 / 16


def test_experts_go_by_the_layer_of_their_name() -> None:
    few = ModelFacts("llama", n_layer=16, n_expert=4)
    names = ["blk.1.ffn_down_exps.weight", "blk.1.ffn_down_shexp.weight", "blk.2.ffn_down_exps.weight"]
    tensors = [TensorFacts(name, (256, 256), TensorType.F16) for name in [*names, "mtp.ffn_down.weight"]]
    by_name = [decision.type.name for decision in decide(tensors, few, PolicyOptions(FileType.Q2_K_S))]
    assert by_name[:3] == ["Q4_K", "Q4_K", "Q2_K"]
    assert by_name[3] == "Q2_K"  # without a layer, its position counts: the fourth
    dense = ModelFacts("llama", n_layer=16, n_expert=1)
    by_position = [decision.type.name for decision in decide(tensors, dense, PolicyOptions(FileType.Q2_K_S))]
    assert by_position[:3] == ["Q4_K", "Q4_K", "Q2_K"]


def test_experts_of_a_layer_share_its_type() -> None:
    # the older layout has one tensor for each expert
    names = [f"blk.{layer}.ffn_down.{expert}.weight" for layer in range(16) for expert in range(8)]
    tensors = [TensorFacts(name, (256, 256), TensorType.F16) for name in names]
    got = decide(tensors, ModelFacts("llama", n_layer=16, n_expert=8), PolicyOptions(FileType.Q2_K_S))
    assert [decision.type.name for decision in got] == ["Q4_K"] * 16 + ["Q2_K"] * 112


@pytest.mark.parametrize(
    ("file_type", "expected"),
    [
        ("Q3_K_S", "Q5_K"),
        ("Q3_K_M", "Q5_K"),
        ("Q4_K_S", "Q5_K"),
        ("Q6_K", "Q6_K"),
        ("Q4_0", "Q4_0"),
        ("Q2_K_S", "Q5_K"),
    ],
)
def test_attention_v_of_70b(file_type: str, expected: str) -> None:
    facts = ModelFacts("llama", n_layer=80, n_gqa=8, is_70b=True)
    assert one("blk.40.attn_v.weight", file_type, facts=facts).type.name == expected
    assert one("blk.40.attn_k.weight", file_type, facts=facts).type is FileType[file_type].default_type


def test_70b_says_why() -> None:
    facts = ModelFacts("llama", n_layer=80, n_gqa=8, is_70b=True)
    assert one("blk.40.attn_v.weight", "Q3_K_S", facts=facts).reason == "attn_v of a 70B model is small"


def test_what_one_architecture_wants_in_q8_0() -> None:
    for part in ("attn_q_a", "attn_q_b", "nextn.eh_proj"):
        decision = one(f"blk.3.{part}.weight", facts=ModelFacts("glm5-next", 32))
        assert decision == Decision(TensorType.Q8_0, "sensitive in glm5-next")
        assert one(f"blk.3.{part}.weight").type is TensorType.Q4_K


@pytest.mark.parametrize(
    ("wanted", "n_per_row", "expected"),
    [
        ("Q2_K", 256, "Q2_K"),
        ("Q2_K", 288, "Q4_0"),
        ("Q3_K", 288, "Q4_0"),
        ("Q4_K", 288, "Q5_0"),
        ("Q5_K", 288, "Q5_1"),
        ("Q6_K", 288, "Q8_0"),
        ("IQ2_XXS", 288, "IQ4_NL"),
        ("IQ4_XS", 288, "IQ4_NL"),
        ("TQ1_0", 288, "Q4_0"),
        ("Q2_0", 288, "Q4_0"),
        ("Q4_K", 80, "F16"),
        ("Q4_0", 80, "F16"),
        ("Q8_0", 80, "F16"),
        ("IQ4_NL", 80, "F16"),
        ("F32", 80, "F32"),
        ("BF16", 7, "BF16"),
    ],
)
def test_rows_that_do_not_fit(wanted: str, n_per_row: int, expected: str) -> None:
    got = one("blk.0.attn_q.weight", shape=(512, n_per_row), tensor_types=patterns(attn_q=wanted))
    assert got.type.name == expected
    assert got.fallback_from is (None if wanted == expected else TensorType[wanted])


@pytest.mark.parametrize("wanted", ["Q1_0", "NVFP4", "Q8_K"])
def test_types_without_a_substitute(wanted: str) -> None:
    message = rf"^blk\.0\.attn_q\.weight: {wanted} expects .* got 80, and this type has no substitute$"
    with pytest.raises(ShapeError, match=message):
        one("blk.0.attn_q.weight", shape=(512, 80), tensor_types=patterns(attn_q=wanted))
    assert one("blk.0.attn_q.weight", tensor_types=patterns(attn_q=wanted)).type.name == wanted


@pytest.mark.parametrize(
    ("name", "type_name", "file_type", "expected"),
    [
        ("blk.0.attn_q.weight", "Q2_K", "Q2_K_S", True),
        ("blk.0.attn_q.weight", "Q2_K", "Q2_K", False),
        ("blk.0.attn_q.weight", "Q4_K", "Q2_K_S", False),
        ("token_embd.weight", "Q2_K", "Q2_K_S", False),
        ("per_layer_token_embd.weight", "Q2_K", "Q2_K_S", False),
        ("output.weight", "Q2_K", "Q2_K_S", False),
        ("blk.0.attn_q.weight", "IQ3_XXS", "Q4_K_M", True),
        ("blk.0.attn_q.weight", "IQ1_M", "F16", True),
        ("blk.0.attn_q.weight", "IQ3_S", "Q4_K_M", False),
        ("token_embd.weight", "IQ2_XS", "Q4_K_M", False),
    ],
)
def test_which_types_need_weights(name: str, type_name: str, file_type: str, expected: bool) -> None:
    assert needs_imatrix(name, TensorType[type_name], FileType[file_type]) is expected


def test_unknown_architectures_get_the_general_rules() -> None:
    llama = decoder("x", "llama", n_layer=9, n_embd=512, n_ff=512, n_head=8, n_head_kv=2, n_vocab=64)
    other = decoder(
        "x", "not-in-llama-cpp", n_layer=9, n_embd=512, n_ff=512, n_head=8, n_head_kv=2, n_vocab=64
    )
    for file_type in FileType:
        assert llama.decide(file_type.name) == other.decide(file_type.name)


NAMES = st.sampled_from(
    [
        f"blk.{layer}.{part}.weight"
        for layer in range(6)
        for part in ("attn_v", "attn_q", "ffn_down", "ffn_up_exps")
    ]
    + [
        "token_embd.weight",
        "output.weight",
        "output_norm.weight",
        "blk.0.attn_norm.weight",
        "blk.1.attn_q.bias",
    ]
)
TENSORS = st.dictionaries(
    NAMES,
    st.tuples(st.integers(1, 4), st.sampled_from([1, 32, 80, 256, 288, 512])),
    max_size=30,
).map(
    lambda found: [
        TensorFacts(name, found[name], TensorType.F16) for name in sorted(found, key=processing_order)
    ]
)
FACTS = st.builds(
    ModelFacts,
    st.sampled_from(["", "llama", "falcon", "glm5-next"]),
    st.integers(0, 8),
    st.sampled_from([0, 1, 2, 8]),
    st.sampled_from([0, 1, 4, 8]),
    st.booleans(),
)
OPTIONS = st.builds(
    PolicyOptions,
    st.sampled_from(list(FileType)),
    pure=st.booleans(),
    leave_output_tensor=st.booleans(),
    tensor_types=st.sampled_from([(), patterns(ffn="Q6_K"), patterns(attn_v="Q5_1", attn="F32")]),
    has_imatrix=st.booleans(),
)


@given(TENSORS, FACTS, OPTIONS)
def test_every_type_fits_and_every_decision_has_a_reason(
    tensors: list[TensorFacts], facts: ModelFacts, options: PolicyOptions
) -> None:
    decided = decide(tensors, facts, options)
    assert decided == decide(tensors, facts, options)
    for tensor, decision in zip(tensors, decided, strict=True):
        assert decision.reason
        assert decision.quantize or decision.type is tensor.type
        assert tensor.n_per_row % decision.type.block_size == 0
        assert (decision.fallback_from is None) == ("needs rows" not in decision.reason)


@given(TENSORS, FACTS, OPTIONS)
def test_norms_and_biases_change_nothing_for_the_others(
    tensors: list[TensorFacts], facts: ModelFacts, options: PolicyOptions
) -> None:
    with_more = [
        TensorFacts("a.bias", (7,), TensorType.F32),
        *tensors,
        TensorFacts("z_norm.weight", (9,), TensorType.F32),
    ]
    assert decide(with_more, facts, options)[1:-1] == decide(tensors, facts, options)
