"""Numbers of a model: what is read, what is assumed, what is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from kquant import ModelError
from kquant.models.hyperparameters import MAX_LAYERS, MAX_WIDTH, Hyperparameters
from kquant.models.rope import Rope
from support.graphs import METADATA

Read = Callable[[Hyperparameters], Any]


def hyperparameters(given: Mapping[str, Any] = {}, *, tensors: Mapping[str, Any] = {}) -> Hyperparameters:
    """Those of a small model with some keys set; None takes a key away."""
    merged = {**METADATA, **{f"test.{key}": value for key, value in given.items()}}
    return Hyperparameters({k: v for k, v in merged.items() if v is not None}, 8, tensors)


def test_sizes_follow_from_the_width_and_the_heads() -> None:
    h = hyperparameters()
    assert (h.head_size, h.value_size, h.n_rot, h.n_head_kv(0), h.window) == (16, 16, 16, 2, 0)
    assert h.attention_scale == 1 / math.sqrt(16)
    assert hyperparameters({"attention.head_count_kv": None}).n_head_kv(0) == 4
    assert hyperparameters({"attention.key_length": 8, "attention.value_length": 12}).value_size == 12
    assert hyperparameters({"attention.scale": 0.5}).attention_scale == 0.5


def test_a_number_for_each_layer() -> None:
    h = hyperparameters(
        {
            "block_count": 3,
            "attention.head_count": np.array([4, 0, 8], np.uint32),
            "attention.head_count_kv": np.array([2, 0, 0], np.uint32),
            "feed_forward_length": np.array([16, 32, 0], np.int32),
        }
    )
    assert [h.n_head(i) for i in range(3)] == [4, 0, 8]
    assert [h.n_head_kv(i) for i in range(3)] == [2, 0, 8]
    assert [h.n_ff(i) for i in range(3)] == [16, 32, 0]


def test_layers_with_a_window() -> None:
    pattern = "attention.sliding_window_pattern"
    assert [hyperparameters().slides(i, 3) for i in range(6)] == [True, True, False] * 2
    assert [hyperparameters().slides(i, 3, dense_first=True) for i in range(3)] == [False, True, True]
    assert [hyperparameters({pattern: 2}).slides(i, 3) for i in range(4)] == [True, False] * 2
    assert hyperparameters({pattern: 0}).slides(0, 3)
    assert [hyperparameters({pattern: np.array([0, 1])}).slides(i, 3) for i in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"block_count": None}, "expected test.block_count in the metadata, got a file without it"),
        ({"block_count": 0}, f"test.block_count: expected 1 to {MAX_LAYERS}, got 0"),
        ({"block_count": 1 << 40}, f"test.block_count: expected 1 to {MAX_LAYERS}, got 1099511627776"),
        ({"block_count": "two"}, "test.block_count: expected an integer, got 'two'"),
        ({"block_count": True}, "test.block_count: expected an integer, got True"),
        ({"embedding_length": -1}, f"test.embedding_length: expected 1 to {MAX_WIDTH}, got -1"),
        ({"embedding_length": 64.0}, "test.embedding_length: expected an integer, got 64.0"),
        ({"context_length": 0}, "test.context_length: expected 1 to 2147483648, got 0"),
        ({"attention.head_count": None}, "expected test.attention.head_count in the metadata"),
        ({"attention.head_count": 0}, "test.attention.key_length: expected 1 to"),
        ({"attention.head_count": 65}, "test.attention.key_length: expected 1 to"),
        (
            {"attention.head_count": np.array([], np.uint32)},
            "test.attention.head_count: expected 1 integers, got 0 of uint32",
        ),
        (
            {"attention.head_count": np.array([4.0], np.float32)},
            "test.attention.head_count: expected 1 integers, got 1 of float32",
        ),
        ({"attention.head_count": np.array([-4])}, f"head_count: expected 0 to {MAX_WIDTH}, got -4"),
        ({"rope.dimension_count": 15}, "rope.dimension_count: expected an even number up to 16, got 15"),
        ({"rope.dimension_count": 18}, "rope.dimension_count: expected an even number up to 16, got 18"),
        ({"expert_count": 4}, "test.expert_used_count: expected 1 to 4, got 0"),
        ({"expert_count": 4, "expert_used_count": 5}, "test.expert_used_count: expected 1 to 4, got 5"),
    ],
)
def test_metadata_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        hyperparameters(given)


@pytest.mark.parametrize(
    ("given", "read", "message"),
    [
        (
            {"attention.head_count_kv": 3},
            lambda h: h.n_head_kv(0),
            "test.attention.head_count_kv: expected a divisor of 4 heads, got 3 (layer 0)",
        ),
        ({}, lambda h: h.n_ff(0), "expected test.feed_forward_length in the metadata"),
        ({"a": math.nan}, lambda h: h.number("a"), "test.a: expected a finite number, got nan"),
        ({"a": "1"}, lambda h: h.number("a"), "test.a: expected a number, got '1'"),
        ({"a": True}, lambda h: h.number("a"), "test.a: expected a number, got True"),
        ({"a": 1}, lambda h: h.flag("a"), "test.a: expected true or false, got 1"),
        ({"a": 1}, lambda h: h.text("a"), "test.a: expected a string, got 1"),
        ({"rope.scaling.type": "su" * 40}, lambda h: h.rope("halves"), "linear, yarn or longrope, got 'su"),
        (
            {"rope.freq_base": 0.0},
            lambda h: h.rope("halves"),
            "test.rope: expected positive numbers, got freq_base 0",
        ),
        (
            {"rope.scaling.factor": -2.0},
            lambda h: h.rope("halves"),
            "expected positive numbers, got freq_base 10000, scaling.factor -2",
        ),
    ],
)
def test_values_that_cannot_be(given: dict[str, Any], read: Read, message: str) -> None:
    h = hyperparameters(given)
    with pytest.raises(ModelError, match=re.escape(message)):
        read(h)


def test_an_architecture_has_a_name() -> None:
    with pytest.raises(ModelError, match="expected the name of an architecture, got none"):
        Hyperparameters({}, 8)
    with pytest.raises(ModelError, match="expected the name of an architecture, got int"):
        Hyperparameters({"general.architecture": 1}, 8)


# ---------------------------------------------------------------- rotation


def test_rotation_without_scaling() -> None:
    expected = Rope(n_dims=16, pairs="halves", original_context=64)
    assert hyperparameters().rope("halves") == expected
    unscaled = {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}
    assert hyperparameters(unscaled).rope("halves") == expected
    assert hyperparameters({"rope.freq_base": 5e5}).rope("adjacent", base=7.0).base == 7.0


def test_linear_scaling_under_either_key() -> None:
    assert hyperparameters({"rope.scaling.factor": 4.0}).rope("halves").scale == 0.25
    assert hyperparameters({"rope.scale_linear": 2.0}).rope("halves").scale == 0.5
    assert hyperparameters({"rope.scaling.yarn_attn_factor": 2.0}).rope("halves").magnitude == 2.0


def test_yarn_takes_back_what_the_rotation_multiplies_with() -> None:
    given = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
    rope = hyperparameters(given).rope("halves")
    assert (rope.extrapolation, rope.beta_fast, rope.beta_slow) == (1.0, 32.0, 1.0)
    assert math.isclose(rope.magnitude, 1.0)
    rope = hyperparameters(given | {"rope.scaling.yarn_log_multiplier": 0.5}).rope("halves")
    assert math.isclose(rope.magnitude, 1 / (1 + 0.05 * math.log(4)))


def test_longrope_chooses_its_factors_by_the_context() -> None:
    tensors = {"rope_factors_long.weight": (8,), "rope_factors_short.weight": (8,)}
    h = hyperparameters(
        {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 32}, tensors=tensors
    )
    assert h.rope("halves").factors == h.rope("halves", context=33).factors == "rope_factors_long.weight"
    assert h.rope("halves", context=32).factors == "rope_factors_short.weight"
    h = hyperparameters(tensors={"rope_freqs.weight": (8,)})
    assert h.rope("halves").factors == "rope_freqs.weight"
