"""Which facts the metadata state, as llama.cpp reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kquant.errors import GGUFError
from kquant.policy import ModelFacts


def facts(
    architecture: str = "llama", /, overrides: dict[str, Any] | None = None, **numbers: Any
) -> ModelFacts:
    metadata = {f"{architecture}.{key.replace('__', '.')}": value for key, value in numbers.items()}
    return ModelFacts.from_metadata(
        {"general.architecture": architecture, **metadata},
        overrides={
            f"{architecture}.{key.replace('__', '.')}": value for key, value in (overrides or {}).items()
        },
    )


def test_everything_stated() -> None:
    got = facts(block_count=32, expert_count=8, attention__head_count=32, attention__head_count_kv=8)
    assert got == ModelFacts("llama", n_layer=32, n_expert=8, n_gqa=4, is_70b=False)


def test_nothing_stated() -> None:
    assert ModelFacts.from_metadata({}) == ModelFacts()


def test_layers_are_counted_from_names_where_they_are_not_stated() -> None:
    names = ["output.weight", "blk.0.a", "blk.7.a", "blk.3.a"]
    assert ModelFacts.from_metadata({}, tensor_names=names).n_layer == 8
    assert ModelFacts.from_metadata({}, tensor_names=["output.weight"]).n_layer == 0
    stated = {"general.architecture": "new", "new.block_count": 4}
    assert ModelFacts.from_metadata(stated, tensor_names=names) == ModelFacts("new", n_layer=4)


@pytest.mark.parametrize(
    ("n_head", "n_head_kv", "n_gqa"),
    [
        (32, None, 1),
        (32, 32, 1),
        (71, 1, 71),
        (28, 8, 3),
        (32, 0, 0),
        (None, None, 0),
        (None, 4, 0),
        (np.array([64, 0], "i4"), np.array([8, 0], "i4"), 8),  # the first layer speaks for all
        (np.array([0, 64], "i4"), np.array([0, 8], "i4"), 0),
        (np.array([], "i4"), None, 0),
        (32, np.array([4, 8], "u4"), 8),
    ],
)
def test_query_heads_per_key(n_head: Any, n_head_kv: Any, n_gqa: int) -> None:
    numbers = {"attention__head_count": n_head, "attention__head_count_kv": n_head_kv}
    assert facts(block_count=2, **{k: v for k, v in numbers.items() if v is not None}).n_gqa == n_gqa


@pytest.mark.parametrize(
    ("architecture", "numbers", "is_70b"),
    [
        ("llama", {"block_count": 80, "attention__head_count_kv": 8}, True),
        ("llama", {"block_count": 80, "attention__head_count_kv": 64}, False),  # Llama-1-65B
        ("llama", {"block_count": 80}, False),
        ("llama", {"block_count": 80, "attention__head_count_kv": 8, "expert_count": 8}, False),
        ("llama", {"block_count": 79, "attention__head_count_kv": 8}, False),
        ("llama", {"block_count": 81, "attention__head_count_kv": 8, "nextn_predict_layers": 1}, True),
        ("llama-embed", {"block_count": 80, "attention__head_count_kv": 8}, True),
        ("qwen2", {"block_count": 80}, True),
        ("qwen2", {"block_count": 64}, False),
        ("deci", {"block_count": 80}, True),
        ("olmo", {"block_count": 80}, True),
        ("jais2", {"block_count": 68}, True),
        ("jais2", {"block_count": 80}, False),
        ("qwen3", {"block_count": 80, "attention__head_count_kv": 8}, False),
    ],
)
def test_70b(architecture: str, numbers: dict[str, Any], is_70b: bool) -> None:
    assert facts(architecture, attention__head_count=64, **numbers).is_70b is is_70b


def test_layers_of_architectures_with_a_way_of_their_own() -> None:
    assert facts("glm4moe", block_count=47, nextn_predict_layers=1).n_layer == 47
    assert facts("nanbeige", block_count=8, num_loops=3).n_layer == 24
    assert facts("nanbeige", block_count=8).n_layer == 8
    assert facts("graniteswitch", block_count=40).n_layer == 41
    assert facts("t5", block_count=6, decoder_block_count=12).n_layer == 6
    # an image encoder states several numbers of layers, of which none counts
    assert facts("clip", block_count=24, attention__head_count=16) == ModelFacts("clip")


def test_overrides_replace_what_is_of_their_kind() -> None:
    numbers = {"block_count": 32, "attention__head_count": 32, "attention__head_count_kv": 8}
    assert facts(overrides={"block_count": 40}, **numbers).n_layer == 40
    assert facts(overrides={"expert_count": 8}, **numbers).n_expert == 8
    assert facts(overrides={"expert_count": -8}, **numbers).n_expert == 8
    assert facts(overrides={"block_count": "40"}, **numbers).n_layer == 32
    assert facts(overrides={"block_count": 40.0}, **numbers).n_layer == 32
    assert facts(overrides={"block_count": True}, **numbers).n_layer == 32
    assert facts(overrides={"attention__head_count_kv": 32}, **numbers).n_gqa == 1


def test_overrides_of_heads_replace_neither_lists_nor_what_is_missing() -> None:
    listed = {"attention__head_count": 32, "attention__head_count_kv": np.array([8, 8], "i4")}
    assert facts(overrides={"attention__head_count_kv": 32}, **listed).n_gqa == 4
    assert facts(overrides={"attention__head_count_kv": 8}, attention__head_count=32).n_gqa == 1


def test_the_architecture_can_be_overridden() -> None:
    metadata = {"general.architecture": "llama", "llama.block_count": 2, "qwen2.block_count": 80}
    got = ModelFacts.from_metadata(metadata, overrides={"general.architecture": "qwen2"})
    assert got == ModelFacts("qwen2", n_layer=80, is_70b=True)
    assert ModelFacts.from_metadata(metadata, overrides={"general.architecture": 7}).architecture == "llama"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": 7}, "general.architecture: expected a string, got 7"),
        ({"llama.block_count": "many"}, "llama.block_count: expected an integer, got 'many'"),
        ({"llama.block_count": 3.5}, "llama.block_count: expected an integer, got 3.5"),
        ({"llama.block_count": True}, "llama.block_count: expected a count, got True"),
        ({"llama.expert_count": -8}, "llama.expert_count: expected a count, got -8"),
        ({"llama.attention.head_count": "x"}, "llama.attention.head_count: expected an integer, got 'x'"),
        (
            {"llama.attention.head_count": ["x"]},
            r"llama.attention.head_count\[0\]: expected an integer, got 'x'",
        ),
    ],
)
def test_what_is_no_number(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(GGUFError, match=f"^{message}$"):
        ModelFacts.from_metadata({"general.architecture": "llama", **metadata})
