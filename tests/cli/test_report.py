"""`kquant report`: the page, JSON, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import kquant
from kquant.cli import main

GOLDEN = Path(__file__).parents[1] / "golden/gguf"
SOURCE = str(GOLDEN / "models/llama-slim-f16.gguf")
FILE = str(GOLDEN / "outputs/llama-slim-f16.Q4_K_M.gguf")


@pytest.mark.slow
def test_page(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", FILE, "--against", SOURCE, "--rows", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("report.html  ")
    assert [line for line in printed.err.splitlines() if "%" not in line] == [
        "comparing",
        "sweeping",
        "counting values",
        "drawing",
    ]
    assert kquant.report(FILE, against=SOURCE, rows=2).html() == Path("report.html").read_text("utf-8")


def test_one_tensor(tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    assert main(["report", FILE, "--tensor", "blk.3.attn_v.weight", "-o", str(page), "--threads", "1"]) == 0
    assert ">blk.3.attn_v.weight</h3>" in page.read_text("utf-8")


def test_machines(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kquant.reporting.builder.LIBRARIES", ("no_such_library",))  # it draws nothing
    assert main(["report", FILE, "--against", SOURCE, "--rows", "1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == kquant.report(FILE, against=SOURCE, rows=1).to_dict()
    assert not list(tmp_path.iterdir())


def test_missing_libraries(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kquant.reporting.builder.LIBRARIES", ("no_such_library",))
    assert main(["report", "no.gguf"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "kquant: error: not installed, but needed to draw the report: no_such_library",
        "hint: pip install 'kquant-gguf[report]'",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no.gguf"], 1, "no.gguf: No such file or directory"),
        ([FILE, "--against", "no.gguf"], 1, "no.gguf: No such file or directory"),
        ([FILE, "--tensor", "none"], 1, "expected the name of a tensor of"),
        ([FILE, "--rows", "-1"], 2, "Invalid value for '--rows': -1 is not in the range x>=0."),
        ([FILE, "-o", "no/report.html"], 1, "expected a file in a folder that exists"),
        ([FILE, "-o", FILE], 1, "expected another file than the model, got the model itself"),
        ([FILE, "-o", SOURCE], 1, "expected a new name or a file that is no model, got a GGUF file"),
        ([FILE, "--against", SOURCE, "-o", SOURCE], 1, "expected another file than the model"),
    ],
)
def test_errors(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out
    assert not list(tmp_path.iterdir())
