"""The table of rules: every rule decides somewhere, every condition matters, and each way it goes."""

from __future__ import annotations

from itertools import product

import pytest

from kquant.policy import ModelFacts
from kquant.policy.mixtures import RULES, Place, Rule
from kquant.policy.roles import Role
from kquant.types import FileType

PLACES = [
    Place(layer, n_layers, ModelFacts(architecture, n_layers, n_expert, n_gqa), has_imatrix)
    for n_layers in (0, 5, 32)
    for layer in range(max(n_layers, 3))
    for architecture, n_expert, n_gqa, has_imatrix in product(
        ("llama", "falcon"), (0, 2, 8), (1, 3, 4, 8), (False, True)
    )
]
ALL_RULES = [
    pytest.param(role, rule, id=f"{role.name}-{i}")
    for role, rules in RULES.items()
    for i, rule in enumerate(rules)
]


def type_at(role: Role, file_type: str, place: Place) -> str | None:
    """The name of the type that the rules choose there; None for the default type."""
    chosen = FileType[file_type]
    return next((rule.type.name for rule in RULES[role] if rule.applies(chosen, place)), None)


@pytest.mark.parametrize(("role", "rule"), ALL_RULES)
def test_no_rule_is_dead(role: Role, rule: Rule) -> None:
    assert any(
        next((other for other in RULES[role] if other.applies(file_type, place)), None) is rule
        for file_type in rule.file_types
        for place in PLACES
    )


@pytest.mark.parametrize(("role", "rule"), ALL_RULES)
def test_each_condition_can_forbid_on_its_own(role: Role, rule: Rule) -> None:
    for condition in rule.conditions:
        others = [other for other in rule.conditions if other is not condition]
        assert any(not condition(place) and all(other(place) for other in others) for place in PLACES)


def place(
    layer: int = 16,
    n_layers: int = 32,
    *,
    architecture: str = "llama",
    n_expert: int = 0,
    n_gqa: int = 1,
    has_imatrix: bool = False,
) -> Place:
    return Place(layer, n_layers, ModelFacts(architecture, n_layers, n_expert, n_gqa), has_imatrix)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 7, 8, 9, 26, 32, 80])
def test_layers_that_get_more_bits(n_layers: int) -> None:
    layers = range(n_layers + 3)  # models whose metadata count too few layers exist
    eighth = int(n_layers / 8)
    expected = [
        layer
        for layer in layers
        if layer < eighth or layer >= int(7 * n_layers / 8) or layer in range(eighth + 2, n_layers, 3)
    ]
    got = [layer for layer in layers if type_at(Role.ATTENTION_V, "Q4_K_M", place(layer, n_layers)) == "Q6_K"]
    assert got == expected


def test_more_bits_in_32_layers_by_hand() -> None:
    got = [layer for layer in range(32) if type_at(Role.FFN_DOWN, "Q5_K_M", place(layer))]
    assert got == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]


GQA, EXPERTS, FALCON, WEIGHTS = (
    {"n_gqa": 4},
    {"n_expert": 8},
    {"architecture": "falcon"},
    {"has_imatrix": True},
)
LAST = {"layer": 31}


@pytest.mark.parametrize(
    ("role", "file_type", "where", "expected"),
    [
        (Role.ATTENTION_V, "Q2_K", {}, "Q3_K"),
        (Role.ATTENTION_V, "Q2_K", {"n_gqa": 3}, "Q3_K"),
        (Role.ATTENTION_V, "Q2_K", GQA, "Q4_K"),
        (Role.ATTENTION_V, "Q2_K_S", {}, None),
        (Role.ATTENTION_V, "Q2_K_S", GQA, "Q4_K"),
        (Role.ATTENTION_V, "Q3_K_S", GQA, None),
        (Role.ATTENTION_V, "Q3_K_M", {"layer": 1}, "Q5_K"),
        (Role.ATTENTION_V, "Q3_K_M", {"layer": 2}, "Q4_K"),
        (Role.ATTENTION_V, "Q3_K_L", {}, "Q5_K"),
        (Role.ATTENTION_V, "Q4_K_S", {"layer": 3}, "Q5_K"),
        (Role.ATTENTION_V, "Q4_K_S", {"layer": 4}, None),
        (Role.ATTENTION_V, "Q4_K_M", {"layer": 4}, None),
        (Role.ATTENTION_V, "Q4_K_M", LAST, "Q6_K"),
        (Role.ATTENTION_V, "Q5_K_S", LAST, None),
        (Role.ATTENTION_V, "Q5_K_M", LAST, "Q6_K"),
        (Role.ATTENTION_V, "Q6_K", LAST, None),
        (Role.ATTENTION_V, "IQ4_NL", {"n_gqa": 3}, None),
        (Role.ATTENTION_V, "IQ4_NL", GQA, "Q5_K"),
        (Role.ATTENTION_V, "IQ4_NL", GQA | EXPERTS, "Q8_0"),
        (Role.ATTENTION_V, "Q4_0", EXPERTS, "Q8_0"),
        (Role.ATTENTION_V, "Q4_0", {"n_expert": 16}, None),
        (Role.ATTENTION_K, "Q4_K_M", {}, None),
        (Role.ATTENTION_K, "Q4_K_M", EXPERTS, "Q8_0"),
        (Role.ATTENTION_OUTPUT, "Q2_K", {}, "Q3_K"),
        (Role.ATTENTION_OUTPUT, "Q2_K", EXPERTS, "Q5_K"),
        (Role.ATTENTION_OUTPUT, "Q2_K", FALCON, None),
        (Role.ATTENTION_OUTPUT, "Q2_K_S", EXPERTS, None),
        (Role.ATTENTION_OUTPUT, "Q3_K_S", {}, None),
        (Role.ATTENTION_OUTPUT, "Q3_K_S", EXPERTS, "Q5_K"),
        (Role.ATTENTION_OUTPUT, "Q3_K_M", {}, "Q4_K"),
        (Role.ATTENTION_OUTPUT, "Q3_K_M", EXPERTS, "Q5_K"),
        (Role.ATTENTION_OUTPUT, "Q3_K_M", FALCON, None),
        (Role.ATTENTION_OUTPUT, "Q3_K_L", {}, "Q5_K"),
        (Role.ATTENTION_OUTPUT, "Q3_K_L", EXPERTS, None),
        (Role.ATTENTION_OUTPUT, "Q3_K_L", FALCON, "Q4_K"),
        (Role.ATTENTION_OUTPUT, "Q3_K_L", FALCON | EXPERTS, "Q4_K"),
        (Role.ATTENTION_OUTPUT, "Q4_K_S", EXPERTS, "Q5_K"),
        (Role.ATTENTION_OUTPUT, "Q4_K_M", EXPERTS, "Q5_K"),
        (Role.ATTENTION_OUTPUT, "Q4_K_M", {}, None),
        (Role.ATTENTION_OUTPUT, "Q5_K_M", EXPERTS, None),
        (Role.ATTENTION_OUTPUT, "IQ4_NL", {}, None),
        (Role.ATTENTION_OUTPUT, "IQ4_NL", EXPERTS, "Q5_K"),
        (Role.ATTENTION_OUTPUT, "IQ4_NL", FALCON | EXPERTS, None),
        (Role.FFN_DOWN, "Q2_K", {}, "Q3_K"),
        (Role.FFN_DOWN, "Q2_K_S", {"layer": 3}, "Q4_K"),
        (Role.FFN_DOWN, "Q2_K_S", {"layer": 4}, None),
        (Role.FFN_DOWN, "IQ4_NL", {"layer": 3}, "Q5_K"),
        (Role.FFN_DOWN, "IQ4_NL", {"layer": 4}, None),
        (Role.FFN_DOWN, "IQ4_NL", {"layer": 3} | WEIGHTS, None),
        (Role.FFN_DOWN, "IQ4_NL", {"layer": 3} | FALCON, "Q5_K"),
        (Role.FFN_DOWN, "Q3_K_S", {"layer": 0}, None),
        (Role.FFN_DOWN, "Q3_K_M", {"layer": 1}, "Q5_K"),
        (Role.FFN_DOWN, "Q3_K_M", {"layer": 2}, "Q4_K"),
        (Role.FFN_DOWN, "Q3_K_M", FALCON | {"layer": 1}, "Q5_K"),
        (Role.FFN_DOWN, "Q3_K_M", FALCON | {"layer": 3}, "Q4_K"),
        (Role.FFN_DOWN, "Q3_K_M", FALCON | {"layer": 4}, None),
        (Role.FFN_DOWN, "Q3_K_L", {}, "Q5_K"),
        (Role.FFN_DOWN, "Q3_K_L", FALCON, "Q4_K"),
        (Role.FFN_DOWN, "Q4_K_S", {"layer": 3}, "Q5_K"),
        (Role.FFN_DOWN, "Q4_K_S", {"layer": 4}, None),
        (Role.FFN_DOWN, "Q4_K_S", FALCON | {"layer": 3}, None),
        (Role.FFN_DOWN, "Q4_K_M", LAST, "Q6_K"),
        (Role.FFN_DOWN, "Q4_K_M", {"layer": 4}, None),
        (Role.FFN_DOWN, "Q4_K_M", FALCON | {"layer": 1}, "Q6_K"),
        (Role.FFN_DOWN, "Q4_K_M", FALCON | {"layer": 2}, "Q5_K"),
        (Role.FFN_DOWN, "Q4_K_M", FALCON | {"layer": 4}, None),
        (Role.FFN_DOWN, "Q5_K_S", LAST, None),
        (Role.FFN_DOWN, "Q5_K_M", FALCON | LAST, "Q6_K"),
        (Role.FFN_DOWN, "Q5_K_M", {"layer": 4}, None),
        (Role.FFN_DOWN, "Q4_0", {"layer": 0}, None),
        (Role.FFN_DOWN, "Q4_0", WEIGHTS | {"layer": 3}, "Q4_1"),
        (Role.FFN_DOWN, "Q4_0", WEIGHTS | {"layer": 4}, None),
        (Role.FFN_DOWN, "Q5_0", {"layer": 0}, None),
        (Role.FFN_DOWN, "Q5_0", WEIGHTS | {"layer": 3}, "Q5_1"),
        (Role.FFN_DOWN, "Q5_0", WEIGHTS | {"layer": 4}, None),
        (Role.FFN_DOWN, "Q4_1", WEIGHTS | {"layer": 0}, None),
        (Role.FFN_DOWN, "Q8_0", WEIGHTS | {"layer": 0}, None),
    ],
)
def test_each_way_of_each_rule(
    role: Role, file_type: str, where: dict[str, int], expected: str | None
) -> None:
    assert type_at(role, file_type, place(**where)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("role", [Role.ATTENTION_Q, Role.FFN_UP, Role.FFN_GATE, Role.OTHER])
def test_other_roles_have_no_rules(role: Role) -> None:
    assert role not in RULES
