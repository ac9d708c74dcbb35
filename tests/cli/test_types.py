"""`kquant types`: tables, pictures and JSON."""

from __future__ import annotations

import json

import pytest

from kquant.analysis.anatomy import picture
from kquant.cli import main
from kquant.types import FileType, TensorType


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_table_shows_the_sum(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["types"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "id  name     block size  bytes per block  bits per element  bits of a block"
    (q4_k,) = (line for line in lines if " Q4_K " in line)
    assert q4_k.endswith("4.5  q 256·4 + sc 8·6 + m 8·6 + d 16 + dmin 16 = 1152 bits / 256 = 4.5")
    (iq,) = (line for line in lines if " IQ2_XXS " in line)
    assert iq.split() == ["16", "IQ2_XXS", "256", "66", "2.0625"]
    assert len(lines) == 1 + sum(not t.removed for t in TensorType)


def test_the_table_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json_of(capsys, "types")
    assert isinstance(rows, list)
    (row,) = (row for row in rows if row["name"] == "Q6_K")
    assert (row["id"], row["block_size"], row["bytes_per_block"], row["bits_per_element"]) == (
        14,
        256,
        210,
        6.5625,
    )
    assert row["parts"][0] == {"name": "q", "meaning": "quants", "count": 256, "bits": 6}
    assert {row["name"] for row in rows if row["parts"] is None} >= {"IQ1_S", "I8", "F64", "NVFP4"}


@pytest.mark.parametrize("word", ["Q4_K", "q4_k", "12"])
def test_one_type(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main(["types", word]) == 0
    out = capsys.readouterr().out
    assert out.startswith(picture("Q4_K"))
    assert out.endswith("Bits: q 256·4 + sc 8·6 + m 8·6 + d 16 + dmin 16 = 1152 bits / 256 = 4.5\n")
    found = json_of(capsys, "types", word)
    assert isinstance(found, dict)
    assert found["picture"] == picture("Q4_K")
    assert found["fields"][2] == {"name": "scales", "offset": 4, "bytes": 12}


def test_a_type_without_a_codec(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["types", "NVFP4"]) == 0
    assert capsys.readouterr().out == picture("NVFP4") + "\n"
    found = json_of(capsys, "types", "NVFP4")
    assert isinstance(found, dict)
    assert found["arithmetic"] is found["parts"] is found["fields"] is None


def test_file_types_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json_of(capsys, "types", "--files")
    assert isinstance(rows, list)
    assert [row["name"] for row in rows] == [t.name for t in FileType]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Q9"], "unknown tensor type 'Q9'; known: F32, F16, Q4_0"),
        (["99"], "unknown tensor type id 99; ggml defines 0 to 42"),
        (["9" * 5000], "unknown tensor type '9"),
        (["Q4_K", "--files"], "TYPE and --files exclude each other"),
    ],
)
def test_errors(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["types", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"kquant: error: {message}")
    assert error.endswith("hint: see `kquant types --help`\n")
