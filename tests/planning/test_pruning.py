"""Leaving layers out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kquant.errors import OptionError
from kquant.planning.pruning import prune
from kquant.policy.roles import layer_of


def test_names_without_a_layer_stay() -> None:
    names = ["output.weight", "blk.weight", "v.blk.1x.weight", "blk.0.a", "blk.1.a"]
    kept, n_layers = prune(names, [0])
    assert kept == {name: name for name in names[:3]} | {"blk.1.a": "blk.0.a"}
    assert n_layers == 1


def test_names_with_something_before_the_layer() -> None:
    kept, n_layers = prune(["enc.blk.0.a", "enc.blk.2.a", "dec.blk.1.a", "dec.blk.2.blk.3.a"], [1])
    assert kept == {
        "enc.blk.0.a": "enc.blk.0.a",
        "enc.blk.2.a": "enc.blk.1.a",
        "dec.blk.2.blk.3.a": "dec.blk.1.blk.3.a",
    }
    assert n_layers == 2


def test_gaps_below_the_first_that_goes_remain() -> None:
    kept, n_layers = prune([f"blk.{i}.a" for i in (0, 2, 5, 7, 9)], [5])
    assert list(kept.values()) == ["blk.0.a", "blk.2.a", "blk.3.a", "blk.4.a"]
    assert n_layers == 5


def test_layers_that_are_not_there() -> None:
    names = [f"blk.{i}.a" for i in range(3)]
    assert prune(names, [9]) == ({name: name for name in names}, 3)


def test_nothing_to_prune() -> None:
    assert prune(["x", "blk.3.a"], []) == ({"x": "x", "blk.3.a": "blk.3.a"}, None)


def test_what_is_no_layer() -> None:
    with pytest.raises(
        OptionError, match=r"^prune_layers: expected layer numbers of 0 or more, got \[-1, 2\]$"
    ):
        prune(["blk.0.a"], [2, -1])


@pytest.mark.parametrize(("names", "n"), [(["blk.0.a", "blk.1.a", "x"], 2), (["x"], 0)])
def test_a_model_keeps_at_least_one_layer(names: list[str], n: int) -> None:
    with pytest.raises(OptionError, match=f"^prune_layers: expected a layer to remain of {n}, got none$"):
        prune(names, [0, 1])


@given(st.integers(1, 30), st.sets(st.integers(0, 29), min_size=1))
def test_what_remains_is_numbered_without_gaps_and_in_order(n_layers: int, layers: set[int]) -> None:
    if layers.issuperset(range(n_layers)):
        return
    kept, remaining = prune([f"blk.{i}.a" for i in range(n_layers)], layers)
    assert [layer_of(name) for name in kept] == [i for i in range(n_layers) if i not in layers]
    assert remaining is not None
    assert [layer_of(name) for name in kept.values()] == list(range(remaining))
