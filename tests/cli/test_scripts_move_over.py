"""The exact command lines of the golden llama-quantize runs: the same files, the same refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from kquant.cli import main
from kquant.formats import has_format
from kquant.types import FileType, TensorType

GOLDEN = Path(__file__).parents[1] / "golden/gguf"
RUNS = json.loads((GOLDEN / "expected.json").read_text())["runs"]


def is_ours(run: dict[str, Any]) -> bool:
    """Whether the file type and all tensor types of the result are ones that kquant makes."""
    types = [TensorType[name] for name in run.get("types", {})]
    types += [TensorType[name] for _, name in run.get("dry_run_types", [])]
    return run["ftype"] in FileType.__members__ and all(map(has_format, types))


# what other tests leave to this one: options, aliases, threads, sources that are quantized, shards
OURS = [run for run in RUNS if run["id"].split("/")[0] in ("opt", "requant", "split") and is_ours(run)]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("run", [run for run in OURS if run["rc"] == 0], ids=lambda run: run["id"])
def test_same_files(
    run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(GOLDEN)
    words = [str(tmp_path / word) if word == "OUT.gguf" else word for word in run["argv"][1:]]
    code = main(["quantize", *words])
    assert code == 0, capsys.readouterr().err
    made = {path.name: sha256(path) for path in tmp_path.iterdir()}
    if "files_out" in run:
        assert made == {file["file"]: file["sha256"] for file in run["files_out"]}
    elif "sha256" in run:
        assert made == {"OUT.gguf": run["sha256"]}
    else:
        assert made == {}
        printed = capsys.readouterr().out
        for name, new_type in run["dry_run_types"]:
            (line,) = (line for line in printed.splitlines() if line.startswith(f"{name} "))
            assert f"→ {new_type.upper()} " in line


@pytest.mark.parametrize(
    "run", [run for run in RUNS if run["rc"] != 0 and is_ours(run)], ids=lambda run: run["id"]
)
def test_same_refusals(
    run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(GOLDEN)
    words = [str(tmp_path / word) if word == "OUT.gguf" else word for word in run["argv"][1:]]
    assert main(["quantize", *words]) in (1, 2)
    assert capsys.readouterr().err.startswith("kquant: error: ")
    assert not list(tmp_path.iterdir())
