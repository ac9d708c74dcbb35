"""What `kquant quantize` prints and leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import kquant
from kquant.cli import main

MODELS = Path(__file__).parents[1] / "golden/gguf/models"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with two models in it: m.gguf, and odd.gguf whose rows need fallbacks."""
    shutil.copy(MODELS / "llama-slim-f16.gguf", tmp_path / "m.gguf")
    shutil.copy(MODELS / "llama-odd-f16.gguf", tmp_path / "odd.gguf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"m.gguf", "odd.gguf"}


def test_summary_and_progress(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "m.gguf", "Q4_K_M"]) == 0
    assert files(folder) == {"ggml-model-Q4_K_M.gguf"}
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert ["source", "881.1", "KiB", "16.16"] in lines
    assert ["Q6_K", "9", "91.9", "KiB", "31.8", "%", "6.5625"] in lines
    assert "fall back" not in printed.out
    progress = printed.err.splitlines()
    assert progress[0] == "m.gguf → ggml-model-Q4_K_M.gguf"
    assert progress[-1].startswith(" 100 %  881.1 KiB of 881.1 KiB  ")


def test_fallbacks_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "--dry-run", "odd.gguf", "Q4_K_M"]) == 0
    printed = capsys.readouterr().out
    assert "22 of 30 tensors, 57.9 % of the bytes, fall back to another type" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["Q4_K", "Q5_0", "20", "117.7", "KiB", "56.0", "%"] in lines
    assert ["Q6_K", "Q8_0", "2", "4.0", "KiB", "1.9", "%"] in lines


def test_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "--dry-run", "m.gguf", "out.gguf", "Q4_K_M"]) == 0
    assert files(folder) == set()
    printed = capsys.readouterr()
    assert printed.err == ""
    first = printed.out.splitlines()[1].split(maxsplit=8)
    assert first == ["output.weight", "288", "×", "256", "F16", "→", "Q6_K", "59.1", "KiB  the output tensor"]


def test_json_of_a_dry_run_is_the_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "--dry-run", "--json", "--pure", "m.gguf", "Q6_K"]) == 0
    assert json.loads(capsys.readouterr().out) == kquant.plan("m.gguf", "Q6_K", pure=True).to_dict()


def test_json_of_a_run_is_the_plan_that_was_carried_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", "--json", "m.gguf", "out.gguf", "Q8_0"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["totals"]["file_bytes"] == (folder / "out.gguf").stat().st_size


def test_first_tensor_type_wins_across_both_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "types.txt").write_text("attn_q=q8_0\nattn_k=q5_k  attn_k=q2_k\n")
    options = {
        "Q8_0": ["--tensor-type-file", "types.txt", "--tensor-type", "attn_q=q6_k"],
        "Q6_K": ["--tensor-type", "attn_q=q6_k", "--tensor-type-file", "types.txt"],
    }
    for expected, words in options.items():
        assert main(["quantize", "--dry-run", "--json", *words, "m.gguf", "Q4_K_M"]) == 0
        rows = {row["name"]: row["new_type"] for row in json.loads(capsys.readouterr().out)["tensors"]}
        assert (rows["blk.0.attn_q.weight"], rows["blk.0.attn_k.weight"]) == (expected, "Q5_K")


def test_every_option_reaches_the_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--leave-output-tensor --token-embedding-type q8_0 --prune-layers 0,1 --prune-layers 5 --pure"
    words += " --override-kv general.name=str:x --allow-requantize --output-tensor-type q5_0"
    assert main(["quantize", "--dry-run", "--json", *words.split(), "m.gguf", "Q4_K_M"]) == 0
    printed = json.loads(capsys.readouterr().out)
    plan = kquant.plan(
        "m.gguf",
        "Q4_K_M",
        leave_output_tensor=True,
        token_embedding_type="Q8_0",
        prune_layers=[0, 1, 5],
        pure=True,
        override_kv=["general.name=str:x"],
        allow_requantize=True,
        output_tensor_type="Q5_0",
    )
    assert printed == plan.to_dict()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tensor-type attn_q m.gguf Q8_0", "expected pattern=type, got 'attn_q'"),
        ("--tensor-type attn_q=q9 m.gguf Q8_0", "unknown tensor type 'q9'; known: "),
        ("--tensor-type (=q8_0 m.gguf Q8_0", "--tensor-type: expected a regular expression, got '('"),
        (
            "--prune-layers x m.gguf Q8_0",
            "--prune-layers: expected layer numbers separated by commas, got 'x'",
        ),
        ("--tensor-type-file none.txt m.gguf Q8_0", "none.txt: cannot read tensor types: "),
        ("--output-tensor-type q9 m.gguf Q8_0", "unknown tensor type 'q9'"),
        ("--override-kv a=int:x m.gguf Q8_0", "a: expected an integer"),
        ("--prune-layers 1,x m.gguf Q8_0", "expected layer numbers separated by commas, got '1,x'"),
        ("--include-weights a --exclude-weights b m.gguf Q8_0", "exclude each other"),
        ("--max-buffer-size 0 m.gguf Q8_0", "0 is not in the range x>=1"),
        ("--imatrix", "requires an argument"),
        ("--quiet m.gguf Q8_0", "No such option"),
    ],
)
def test_wrong_options(folder: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", *words.split()]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("kquant: error: ")
    assert message in error
    assert hint == "hint: see `kquant quantize --help`"
    assert files(folder) == set()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("none.gguf Q8_0", "none.gguf: No such file or directory"),
        (". Q8_0", ".: "),
        ("text.gguf Q8_0", "text.gguf: expected a GGUF file, got a text that begins with 'not"),
        ("m.gguf m.gguf Q8_0", "m.gguf"),
        ("m.gguf no/such/folder.gguf Q8_0", "folder.gguf: expected a file in a folder that exists"),
        ("--imatrix none.dat m.gguf Q8_0", "none.dat"),
        ("--output-tensor-type iq4_xs m.gguf Q8_0", "IQ4_XS"),
    ],
)
def test_errors(folder: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text.gguf").write_text("not a model")
    before = (folder / "m.gguf").read_bytes()
    assert main(["quantize", *words.split()]) == 1
    *_, error = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("hint: "))
    assert error.startswith("kquant: error: ")
    assert message in error
    assert files(folder) == {"text.gguf"}
    assert (folder / "m.gguf").read_bytes() == before


def test_requantizing_must_be_allowed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "m.gguf", "q8.gguf", "Q8_0"]) == 0
    assert main(["quantize", "q8.gguf", "q4.gguf", "Q4_K_M"]) == 1
    assert "--allow-requantize" in capsys.readouterr().err
    assert files(folder) == {"q8.gguf"}
    assert main(["quantize", "--allow-requantize", "q8.gguf", "q4.gguf", "Q4_K_M", "1"]) == 0
    assert files(folder) == {"q8.gguf", "q4.gguf"}


def test_a_dry_run_tells_what_stands_in_the_way(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "--dry-run", "m.gguf", "Q2_K_S"]) == 3
    assert "cannot be carried out: " in capsys.readouterr().out


def test_originals_matched_by_a_pattern_are_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`kquant quantize g*.gguf Q4_0`: the shell makes two words of it, and the second is an original, too."""
    shutil.copy(folder / "m.gguf", folder / "m2.gguf")
    before = (folder / "m2.gguf").read_bytes()
    assert main(["quantize", "m.gguf", "m2.gguf", "Q4_0"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "kquant: error: m2.gguf: expected a new name or a quantized file to replace, got an "
    )
    assert "allow it (--overwrite" in error
    assert (folder / "m2.gguf").read_bytes() == before
    assert main(["quantize", "--overwrite", "m.gguf", "m2.gguf", "Q4_0"]) == 0
    assert main(["quantize", "m.gguf", "m2.gguf", "Q8_0"]) == 0
    assert kquant.inspect("m2.gguf").file_type == "Q8_0"
