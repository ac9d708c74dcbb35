"""`kquant verify`: verdicts, manifests, exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kquant.cli import main
from kquant.gguf import read

MIXED = Path(__file__).parents[1] / "golden/gguf/outputs/llama-slim-f16.Q4_K_M.gguf"
SHARD = Path(__file__).parents[1] / "golden/gguf/split/llama-slim-f16-00001-of-00003.gguf"
SHA256 = "213fdfbc0def13377e7077c5b27083754e6f2f3725de30feb322928585c04291"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A model with NaN for the scale of a block."""
    path = Path(shutil.copy(MIXED, tmp_path / "model.gguf"))
    with read(path) as model:
        at = model.tensors["blk.1.attn_q.weight"].offset + 144
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff\xff")
    return path


def test_a_sound_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(MIXED)]) == 0
    printed = capsys.readouterr()
    assert printed.out == "76 tensors, 6,096 blocks, 288.9 KiB: sound\n"
    assert " 100 %  288.9 KiB of 288.9 KiB" in printed.err


def test_a_broken_file(capsys: pytest.CaptureFixture[str], broken: Path) -> None:
    assert main(["verify", str(broken)]) == 1
    assert capsys.readouterr().out == (
        f"problem: {broken}: tensor 'blk.1.attn_q.weight': Q4_K: expected finite numbers, "
        "got NaN or infinity for d in row 1, block 0\n"
        "76 tensors, 6,096 blocks, 288.9 KiB: 1 problem\n"
    )
    assert main(["verify", "--json", str(broken)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["problems"][0]["tensor"] == "blk.1.attn_q.weight"


def test_a_file_that_is_no_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF\x09\0\0\0")
    assert main(["verify", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"problem: {path}: byte 4: version: expected ")
    assert out.endswith("0 tensors, 0 blocks, 0 B: 1 problem\n")


def test_a_manifest(capsys: pytest.CaptureFixture[str], tmp_path: Path, broken: Path) -> None:
    manifest = tmp_path / "manifest.json"
    assert main(["verify", str(MIXED), "--write-manifest", str(manifest)]) == 0
    assert SHA256 in capsys.readouterr().out
    assert json.loads(manifest.read_bytes())["files"][0]["sha256"] == SHA256

    assert main(["verify", str(MIXED), "--manifest", str(manifest)]) == 0
    assert capsys.readouterr().out.endswith("288.9 KiB: sound, as in the manifest\n")

    assert main(["verify", str(broken), "--manifest", str(manifest)]) == 1
    out = capsys.readouterr().out
    assert f"problem: {broken}: expected SHA-256 {SHA256} as in the manifest, got " in out
    assert out.endswith("288.9 KiB: 3 problems\n")

    assert main(["verify", "--json", str(MIXED), "--manifest", str(manifest)]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"] == json.loads(manifest.read_bytes())


def test_no_manifest_of_what_is_broken(tmp_path: Path, broken: Path) -> None:
    assert main(["verify", str(broken), "--write-manifest", str(tmp_path / "manifest.json")]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_the_manifest_is_not_the_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = Path(shutil.copy(MIXED, tmp_path / "model.gguf"))
    assert main(["verify", str(path), "--write-manifest", str(path)]) == 1
    assert "expected another file than the model, got the model itself\n" in capsys.readouterr().err
    assert path.read_bytes() == MIXED.read_bytes()


def test_notes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(MIXED.read_bytes() + b"more")
    assert main(["verify", str(path)]) == 0
    assert f"note: {path}: 4 bytes behind the last tensor belong to nothing\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no.gguf"], 1, "no.gguf: No such file or directory"),
        ([str(MIXED), "--manifest", "no.json"], 1, "no.json: No such file or directory"),
        ([str(MIXED), "--manifest", str(MIXED)], 1, "expected a manifest in JSON, got something else"),
        (
            [str(MIXED), "--threads", "0"],
            2,
            "Invalid value for '-t' / '--threads': 0 is not in the range x>=1.",
        ),
        ([], 2, "Missing argument 'FILE.gguf'."),
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
    assert main(["verify", *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_manifest_that_cannot_be_written_is_found_before_the_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copy(MIXED, tmp_path / "other.gguf"))
    shard = SHARD.with_name(SHARD.name.replace("00001-of", "00002-of"))
    monkeypatch.setattr("kquant.verify", None)  # what hashes is not reached
    for file, target, message in (
        (
            MIXED,
            tmp_path / "none/m.json",
            f"expected a file in a folder that exists, got no folder {tmp_path}/none",
        ),
        (other, other, "expected another file than the model, got the model itself"),
        (SHARD, shard, "expected another file than the model, got the model itself"),
        (MIXED, other, "expected a new name or a file that is no model, got a GGUF file"),
        (MIXED, tmp_path, "expected a regular file or a new name"),
    ):
        assert main(["verify", str(file), "--write-manifest", str(target)]) == 1
        assert capsys.readouterr().err == f"kquant: error: {target}: {message}\n"
    assert other.read_bytes() == MIXED.read_bytes()
