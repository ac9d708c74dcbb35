"""Leaving layers out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kquant
from kquant.errors import OptionError
from kquant.gguf import GGUFValueType, Metadata, TensorSpec, Writer, layout
from kquant.planning.pruning import prune, prune_arrays
from kquant.policy.roles import layer_of
from kquant.types import TensorType


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


# ---------------------------------------------------------------- arrays with an entry for each layer


def arrays(**others: tuple[Any, GGUFValueType]) -> Metadata:
    """Of a model "lfm2" with 6 layers; "__" in a name stands for a dot."""
    metadata = Metadata()
    metadata.set("general.architecture", "lfm2", GGUFValueType.STRING)
    metadata.set("lfm2.block_count", 6, GGUFValueType.UINT32)
    for name, (values, kind) in others.items():
        metadata.set(name.replace("__", "."), values, GGUFValueType.ARRAY, element_type=kind)
    return metadata


def test_arrays_lose_the_entries_of_layers_that_go() -> None:
    metadata = arrays(
        lfm2__attention__head_count_kv=([0, 8, 0, 4, 0, 2], GGUFValueType.INT32),
        lfm2__swa=([True, False, True, True, False, True], GGUFValueType.BOOL),
        lfm2__limits=([0.5, 1.5, 2.5, 3.5, 4.5, 5.5], GGUFValueType.FLOAT64),
    )
    changed = prune_arrays(metadata, "lfm2", 6, {1, 3, 99})
    assert changed == ["lfm2.attention.head_count_kv", "lfm2.swa", "lfm2.limits"]
    assert list(metadata) == ["general.architecture", "lfm2.block_count", *changed]
    assert metadata["lfm2.attention.head_count_kv"].tolist() == [0, 0, 0, 2]
    assert metadata["lfm2.swa"].tolist() == [True, True, False, True]
    assert metadata["lfm2.limits"].tolist() == [0.5, 2.5, 4.5, 5.5]


def test_other_arrays_stay() -> None:
    metadata = arrays(
        lfm2__rope__dimension_sections=([1, 2, 3, 4, 5, 6], GGUFValueType.INT32),
        lfm2__classifier__output_labels=(list("abcdef"), GGUFValueType.STRING),
        lfm2__five=([1, 2, 3, 4, 5], GGUFValueType.INT32),
        other__attention__head_count_kv=([1, 2, 3, 4, 5, 6], GGUFValueType.INT32),
    )
    before = metadata.copy()
    assert prune_arrays(metadata, "lfm2", 6, {1}) == []
    assert metadata == before


@pytest.mark.parametrize("n_layers", [None, "6", 7])
def test_without_a_number_of_layers_that_fits_arrays_stay(n_layers: Any) -> None:
    metadata = arrays(lfm2__kv=([1, 2, 3, 4, 5, 6], GGUFValueType.INT32))
    assert prune_arrays(metadata, "lfm2", n_layers, {1}) == []


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_a_pruned_file_has_an_entry_for_each_layer(tmp_path: Path, byteorder: Any) -> None:
    kv = [0, 8, 0, 4, 0, 2]
    metadata = arrays(lfm2__attention__head_count_kv=(kv, GGUFValueType.INT32))
    specs = [TensorSpec(f"blk.{i}.ffn_up.weight", (32, 2), TensorType.F16) for i in range(6)]
    source, target = tmp_path / "in.gguf", tmp_path / "out.gguf"
    with Writer(source, layout(metadata, specs, byteorder=byteorder)) as writer:
        for i in range(6):
            writer.write(i, 0, np.zeros(128, np.uint8))
        writer.commit()
    done = kquant.requantize(source, target, "Q8_0", prune_layers=[3])
    with kquant.open(target) as model:
        assert model.metadata["lfm2.block_count"] == 5
        assert model.metadata["lfm2.attention.head_count_kv"].tolist() == [0, 8, 0, 0, 2]
    note = "prune_layers: without the entries of these layers: lfm2.attention.head_count_kv"
    assert note in done.notes
    assert not kquant.plan(source, "Q8_0").notes
