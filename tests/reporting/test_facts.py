"""What a report is about: which tensors, and what is missing where the data does not allow more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.errors import OptionError
from kquant.gguf import read
from kquant.reporting.facts import is_matrix, kind_of, matrices
from kquant.types import TensorType
from support.files import GOLDEN, SHARDS, write_vocabulary
from support.small_models import Packed, heavy_tailed, packed, raw, write_model, write_swapped

SOURCE = GOLDEN / "models/llama-slim-f16.gguf"
FILE = GOLDEN / "outputs/llama-slim-f16.Q4_K_M.gguf"


def unknown(rows: int = 2) -> Packed:
    """A tensor of a type that kquant has no codec for."""
    return np.zeros((rows, 66), np.uint8), TensorType.IQ2_XXS


def test_everything_is_what_the_other_functions_find() -> None:
    facts = kquant.report(FILE, against=SOURCE, rows=2).facts
    assert facts.file == kquant.inspect(FILE)
    assert facts.source == kquant.inspect(SOURCE)
    assert facts.comparison == kquant.compare(SOURCE, FILE)
    assert facts.sweep == kquant.sweep(SOURCE, rows=2)
    assert facts.histogram
    assert facts.histogram.name == facts.comparison.worst[0].name
    assert not facts.missing
    assert {row.name for row in facts.errors} == {
        info.name for info in facts.file.tensors if len(info.shape) == 2
    }


def test_a_file_in_full_precision_by_itself() -> None:
    facts = kquant.report(SOURCE, rows=2).facts
    assert facts.sweep == kquant.sweep(SOURCE, rows=2)
    assert facts.missing == {"comparison": "No source was given to compare with."}
    assert facts.histogram
    assert facts.histogram.before is None
    largest = max((i for i in facts.file.tensors if i.name.startswith("blk.")), key=lambda i: i.n_elements)
    assert facts.histogram.name == largest.name


def test_a_quantized_file_by_itself_is_not_swept() -> None:
    facts = kquant.report(FILE).facts
    assert facts.sweep is None
    assert facts.missing["sweep"].startswith("The file is quantized, and its source was not given")
    assert facts.histogram


def test_types_without_a_codec(tmp_path: Path) -> None:
    x = heavy_tailed(2, 256)
    source = write_model(
        tmp_path / "a.gguf",
        {
            "blk.0.ffn_up.weight": packed(x, "F16"),
            "blk.0.ffn_gate.weight": packed(x, "F16"),
            "blk.0.ffn_norm.weight": raw(x[0], "F32"),
        },
    )
    some = write_model(
        tmp_path / "b.gguf",
        {"blk.0.ffn_up.weight": packed(x, "Q4_K"), "blk.0.ffn_gate.weight": unknown()},
    )
    facts = kquant.report(some, against=source, rows=0).facts
    assert facts.comparison
    assert [one.name for one in facts.comparison.uncompared] == [
        "blk.0.ffn_gate.weight",
        "blk.0.ffn_norm.weight",
    ]
    assert [row.name for row in facts.errors] == ["blk.0.ffn_up.weight"]
    asked = kquant.report(some, against=source, rows=0, tensor="blk.0.ffn_gate.weight").facts
    assert (
        asked.missing["histogram"]
        == "There are no values that kquant can read: blk.0.ffn_gate.weight is IQ2_XXS."
    )

    none = write_model(tmp_path / "c.gguf", {"blk.0.ffn_up.weight": unknown()})
    facts = kquant.report(none, against=source).facts
    assert "expected tensors to compare, got none in common" in facts.missing["comparison"]
    assert facts.missing["histogram"] == "There are no values that kquant can read: the file holds IQ2_XXS."


def test_the_source_may_lack_what_is_counted(tmp_path: Path) -> None:
    x = heavy_tailed(4, 256)
    file = write_model(
        tmp_path / "b.gguf",
        {"blk.0.ffn_up.weight": packed(x, "Q4_K"), "blk.0.ffn_down.weight": packed(x, "Q4_K")},
    )
    source = write_model(
        tmp_path / "a.gguf",
        {"blk.0.ffn_up.weight": packed(x, "F16"), "blk.0.ffn_down.weight": packed(x[:2], "F16")},
    )
    facts = kquant.report(file, against=source, tensor="blk.0.ffn_down.weight", rows=0).facts
    assert facts.histogram
    assert facts.histogram.before is None


def test_a_vocabulary_alone(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "v.gguf")
    facts = kquant.report(tmp_path / "v.gguf").facts
    assert "got none" in facts.missing["sweep"]
    assert facts.histogram
    assert facts.histogram.name == "output_norm.weight"
    empty = write_model(tmp_path / "e.gguf", {})
    assert (
        kquant.report(empty).facts.missing["histogram"]
        == "There are no values that kquant can read: the file holds nothing."
    )


def test_numbers_that_are_none_are_told(tmp_path: Path) -> None:
    x = heavy_tailed(2, 256)
    source = write_model(tmp_path / "a.gguf", {"blk.0.ffn_up.weight": packed(x, "F16")})
    x[1, 3] = np.nan
    broken = write_model(tmp_path / "b.gguf", {"blk.0.ffn_up.weight": raw(x, "F32")})
    facts = kquant.report(broken, against=source, rows=1).facts
    assert facts.sweep
    for part in ("comparison", "histogram"):
        assert facts.missing[part].startswith("b.gguf: tensor 'blk.0.ffn_up.weight': F32: ")


def test_shards_and_byte_orders(tmp_path: Path) -> None:
    whole = kquant.report(SOURCE, rows=1).facts
    shards = kquant.report(SHARDS[0], rows=1).facts
    with read(SOURCE) as model:
        big = kquant.report(write_swapped(model, tmp_path / "big.gguf"), rows=1).facts
    assert len(shards.file.paths) == 3
    assert whole.histogram == shards.histogram == big.histogram
    assert whole.sweep == shards.sweep == big.sweep


def test_which_tensors_are_matrices() -> None:
    shapes = {"a": (4, 4), "b": (4,), "c": (1, 4), "d": (2, 1, 4), "e": ()}
    assert [name for name, shape in shapes.items() if is_matrix(shape)] == ["a", "d"]
    with read(SOURCE) as model:
        assert all(len(info.shape) == 2 for info in matrices(model.tensors.values()))


def test_kinds() -> None:
    names = ["blk.10.ffn_down_exps.weight", "blk.0.attn_q.bias", "token_embd.weight", "v.blk.0.attn_q.weight"]
    assert [kind_of(name) for name in names] == [
        "ffn_down_exps",
        "attn_q.bias",
        "token_embd",
        "v.blk.0.attn_q",
    ]


def test_progress() -> None:
    calls: list[Any] = []
    kquant.report(FILE, against=SOURCE, rows=1, progress=lambda *call: calls.append(call))
    assert list(dict.fromkeys(stage for stage, _, _ in calls)) == ["comparing", "sweeping", "counting values"]
    last = {stage: (done, total) for stage, done, total in calls}
    assert all(done == total > 0 for done, total in last.values())


def test_the_facts_are_json() -> None:
    found = kquant.report(FILE, against=SOURCE, rows=1)
    facts = json.loads(json.dumps(found.to_dict()))
    assert list(facts) == ["file", "source", "comparison", "sweep", "histogram", "missing"]
    assert facts["histogram"]["before"]["type"] == "F16"
    alone = kquant.report(FILE).to_dict()
    assert alone["source"] is alone["comparison"] is alone["sweep"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": -1}, "rows: expected at least 0, got -1"),
        ({"threads": 0}, "threads: expected at least 1, got 0"),
        ({"rows": 1.5}, "rows: expected a whole number, got 1.5"),
        ({"tensor": "none"}, "tensor: expected the name of a tensor of .*, got 'none'"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        kquant.report(FILE, **options)


def test_files_of_different_models(tmp_path: Path) -> None:
    other = write_model(tmp_path / "o.gguf", {"other": packed(heavy_tailed(2, 256), "F16")})
    with pytest.raises(OptionError, match=r"o\.gguf: expected tensors of .*Q4_K_M.gguf, got none of them"):
        kquant.report(FILE, against=other)
