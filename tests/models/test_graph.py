"""What a graph refuses: tensors that are missing or have another shape, and parts that do not fit."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kquant import ModelError
from kquant.models.operations import Routing
from kquant.models.rope import Rope
from support.graphs import Build, graph

EXPERTS = {
    "b.ffn_gate_inp.weight": (8, 64),
    "b.ffn_gate_exps.weight": (8, 32, 64),
    "b.ffn_up_exps.weight": (8, 32, 64),
    "b.ffn_down_exps.weight": (8, 64, 32),
}
TWO = Routing(2, "softmax")
Shapes = dict[str, tuple[int, ...]]


@pytest.mark.parametrize(
    ("build", "shapes", "message"),
    [
        (
            lambda g, x: g.embed("other"),
            {},
            "expected a tensor other.weight of shape (8, any), got a file without it",
        ),
        (lambda g, x: g.embed("other"), {"other.weight": (7, 64)}, "expected shape (8, any), got (7, 64)"),
        (
            lambda g, x: g.embed_positions(),
            {"position_embd.weight": (63, 64)},
            "position_embd.weight: expected rows for a context of 64, got 63",
        ),
        (
            lambda g, x: g.embed_first("types"),
            {"types.weight": (2, 32)},
            "types.weight: expected shape (any, 64), got (2, 32)",
        ),
        (
            lambda g, x: g.rms_norm(x, "n"),
            {},
            "expected a tensor n.weight of shape (64,), got a file without",
        ),
        (
            lambda g, x: g.rms_norm(x, "n", heads=4),
            {"n.weight": (32,)},
            "n.weight: expected shape (16,), got (32,)",
        ),
        (
            lambda g, x: g.layer_norm(x, "n"),
            {"n.weight": (64,), "n.bias": (32,)},
            "n.bias: expected shape (64,), got (32,)",
        ),
        (
            lambda g, x: g.linear(x, "w", 48),
            {"w.weight": (48, 32)},
            "w.weight: expected shape (48, 64), got (48, 32)",
        ),
        (lambda g, x: g.linear(x, "w"), {"w.weight": (64,)}, "w.weight: expected shape (any, 64), got (64,)"),
        (
            lambda g, x: g.linear(x, "w"),
            {"w.weight": (48, 64), "w.bias": (64,)},
            "w.bias: expected shape (48,), got (64,)",
        ),
        (
            lambda g, x: g.linear(x, "w"),
            {"w.weight": (48, 64), "w.scale": (48,)},
            "w.scale: expected shape (1,), got (48,)",
        ),
        (
            lambda g, x: g.rotate(x, 4, Rope(16, "halves", factors="f.weight")),
            {"f.weight": (16,)},
            "f.weight: expected shape (8,), got (16,)",
        ),
        (
            lambda g, x: g.scale(x, "t.weight"),
            {"t.weight": (32,)},
            "t.weight: expected shape (64,)",
        ),
        (
            lambda g, x: g.divide(x, "t.weight"),
            {"t.weight": (1,)},
            "t.weight: expected shape (64,), got (1,)",
        ),
        (lambda g, x: g.split(x, 32, 16)[0], {}, "expected 32 + 16 elements side by side, got 64"),
        (lambda g, x: g.experts(x, "b", TWO), {}, "expected a tensor b.ffn_gate_inp.weight of shape (8, 64)"),
        (
            lambda g, x: g.experts(x, "b", Routing(9, "softmax")),
            EXPERTS,
            "b: expected 1 to 8 experts a token, got 9",
        ),
        (
            lambda g, x: g.experts(x, "b", Routing(2, "softmax", n_groups=3, n_groups_used=1)),
            EXPERTS,
            "b: expected groups of 8 experts, got 1 of 3",
        ),
        (
            lambda g, x: g.experts(x, "b", Routing(2, "softmax", n_groups=4, n_groups_used=5)),
            EXPERTS,
            "b: expected groups of 8 experts, got 5 of 4",
        ),
        (
            lambda g, x: g.experts(x, "b", Routing(2, "softmax", selection_bias="c.bias")),
            EXPERTS | {"c.bias": (4,)},
            "c.bias: expected shape (8,), got (4,)",
        ),
        (
            lambda g, x: g.experts(x, "b", TWO),
            EXPERTS | {"b.ffn_gate_exps.weight": (8, 16, 64)},
            "b.ffn_gate_exps.weight: expected shape (8, 32, 64), got (8, 16, 64)",
        ),
        (
            lambda g, x: g.experts(x, "b", TWO),
            EXPERTS | {"b.ffn_down_exps.weight": (8, 64, 16)},
            "b.ffn_down_exps.weight: expected shape (8, any, 32), got (8, 64, 16)",
        ),
        (
            lambda g, x: g.experts(x, "b", TWO),
            EXPERTS | {"b.ffn_up_exps.bias": (8, 16)},
            "b.ffn_up_exps.bias: expected shape (8, 32), got (8, 16)",
        ),
        (
            lambda g, x: g.experts(x, "b", TWO),
            EXPERTS | {"b.ffn_up_exps.scale": (4,)},
            "b.ffn_up_exps.scale: expected shape (8,), got (4,)",
        ),
    ],
)
def test_tensors_that_do_not_fit(build: Build, shapes: Shapes, message: str) -> None:
    g = graph(shapes, expert_count=8, expert_used_count=2)
    with pytest.raises(ModelError, match=re.escape(message)):
        build(g, g.embed())


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((30, 16, 18), "layer 0: expected queries for 4 heads, got 30 elements"),
        ((32, 15, 17), "layer 0: expected keys for 2 heads, got 15 elements"),
        ((32, 16, 15, 1), "layer 0: expected values for 2 heads, got 15 elements"),
        ((32, 8, 24), "layer 0: expected queries and keys of one size, got 8 and 4"),
    ],
)
def test_attention_that_does_not_fit(widths: tuple[int, ...], message: str) -> None:
    g = graph()
    q, k, v, *_ = g.split(g.embed(), *widths)
    with pytest.raises(ModelError, match=re.escape(message)):
        g.attend(q, k, v, 0)


def test_attention_without_heads() -> None:
    g = graph(block_count=2, attention__head_count=np.array([4, 0], np.uint32), attention__head_count_kv=0)
    x = g.embed()
    with pytest.raises(ModelError, match="layer 1: expected heads of attention, got 0"):
        g.attend(x, x, x, 1)


def test_sinks_that_do_not_fit() -> None:
    g = graph({"s.weight": (2,)})
    q, k, v = g.split(g.embed(), 32, 16, 16)
    with pytest.raises(ModelError, match=re.escape("s.weight: expected shape (4,), got (2,)")):
        g.attend(q, k, v, 0, sinks="s.weight")
