"""The programs of examples/ run and print what they promise."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tests/golden/gguf/models/llama-slim-f16.gguf"


def run(
    name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    return capsys.readouterr().out


def test_quantize_array(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run("quantize_array.py", monkeypatch=monkeypatch, capsys=capsys).splitlines()[1:]
    figures = {words[0]: (float(words[1]), float(words[2])) for words in map(str.split, lines)}
    assert figures["Q4_K"][0] == 4.5
    k_quants = [figures[name][1] for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")]
    assert k_quants == sorted(k_quants, reverse=True)


def test_plan_sizes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run("plan_sizes.py", MODEL, monkeypatch=monkeypatch, capsys=capsys)
    assert "F16           0.9 MiB          16.16" in printed


def test_requantize_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.gguf"
    printed = run("requantize_file.py", MODEL, target, "Q4_K_M", monkeypatch=monkeypatch, capsys=capsys)
    assert target.is_file()
    assert "tensors of Q4_K" in printed


def test_requantize_file_tells_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="Q9_K"):
        run("requantize_file.py", MODEL, tmp_path / "o", "Q9_K", monkeypatch=monkeypatch, capsys=capsys)


def test_every_example_is_tested() -> None:
    programs = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert all(name in Path(__file__).read_text(encoding="utf-8") for name in programs)
