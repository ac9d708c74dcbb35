"""`kquant bench`: its table, its JSON, and wrong usage."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import kquant
from kquant.cli import main
from support.language_models import tiny_language_model

FAST = "-p", "8", "-n", "4", "-r", "2"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_language_model(tmp_path_factory.mktemp("models") / "tiny.gguf"))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", model, *FAST, "-t", "1,2"]) == 0
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert cells(head) == ["model", "size", "params", "backend", "threads", "test", "t/s"]
    assert len({len(line) for line in (head, rule, *rows)}) == 1
    assert re.fullmatch(r"\|( -+:? \|)+", rule)
    assert [cells(row)[:-1] for row in rows] == [
        ["llama Q8_0", "86.2 KiB", "82,240", "kquant", threads, test]
        for threads in "12"
        for test in ("pp8", "tg4")
    ]
    assert all(re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", cells(row)[-1]) for row in rows)


def test_types_of_the_cache_are_shown(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", model, "-p", "8", "-n", "0", "-r", "1", "-ctk", "q8_0,F16", "-ctv", "F32"]) == 0
    head, _, *rows = map(cells, capsys.readouterr().out.splitlines())
    assert head[5:7] == ["type_k", "type_v"]
    assert [row[5:8] for row in rows] == [["Q8_0", "F32", "pp8"], ["F16", "F32", "pp8"]]


def test_machines(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", model, *FAST, "-t", "1", "-o", "json"]) == 0
    prompt, generation = json.loads(capsys.readouterr().out)
    assert (prompt["n_prompt"], prompt["n_gen"]) == (8, 0)
    assert (generation["n_prompt"], generation["n_gen"]) == (0, 4)
    assert prompt["kquant"] == kquant.__version__
    assert prompt["model_filename"] == model
    assert (prompt["n_threads"], prompt["type_k"], prompt["type_v"]) == (1, "F16", "F16")
    a, b = prompt["samples_ns"]
    assert prompt["avg_ns"] == (a + b) / 2
    assert prompt["stddev_ns"] == pytest.approx(abs(a - b) / 2**0.5)
    assert prompt["samples_ts"] == pytest.approx([8e9 / a, 8e9 / b])
    assert main(["bench", model, *FAST, "-t", "1", "--json"]) == 0
    assert [sorted(test) for test in json.loads(capsys.readouterr().out)] == [sorted(prompt)] * 2
    assert prompt["avg_ts"] == pytest.approx(sum(prompt["samples_ts"]) / 2)


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["-p", "0", "-n", "0"], 2, "expected a test: --n-prompt or --n-gen of at least 1"),
        (["-p", "x"], 2, "Invalid value for '-p' / '--n-prompt': expected whole numbers from 0, such as 1,2"),
        (["-t", "1,0"], 2, "Invalid value for '-t' / '--threads': expected whole numbers from 1, such as"),
        (["-r", "0"], 2, "Invalid value for '-r' / '--repetitions': 0 is not in the range x>=1."),
        (["-ctk", "F16,Q2_K"], 1, "--cache-type-k: expected one of F32, F16, BF16"),
        (["no such.gguf"], 1, "no such.gguf: No such file or directory"),
    ],
)
def test_errors(
    model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, error: str
) -> None:
    assert main(["bench", model, *arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"kquant: error: {error}")


def test_without_a_model_it_is_the_demo_s(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr("kquant.cli.smollm2.find_model", lambda: Path(model))
    assert main(["bench", *FAST]) == 0
    assert "llama Q8_0" in capsys.readouterr().out
