"""`kquant inspect`: tables and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kquant._text import plain
from kquant.analysis.inspection import Entry
from kquant.cli import main

GOLDEN = Path(__file__).parents[1] / "golden/gguf"
MIXED = str(GOLDEN / "outputs/llama-slim-f16.Q4_K_M.gguf")

SUMMARY = """\
type  tensors       size   share  bits per element
Q4_K       49  180.0 KiB  62.3 %               4.5  ████████████████████████
Q6_K        9   91.9 KiB  31.8 %            6.5625  ████████████▎
F32        18   17.1 KiB   5.9 %                32  ██▎

model            llama, Q4_K_M, llama-slim
file             300.4 KiB, GGUF 3, little endian
tensors          76, 446,736 elements, 288.9 KiB
bits per weight  5.2984
"""

LAYERS = """\
layer    tensors       size   share  bits per element  types
outside        4  100.6 KiB  34.8 %              5.58  F32 2, Q6_K 1, Q4_K 1
0              9   24.8 KiB   8.6 %            5.4418  Q4_K 5, F32 2, Q6_K 2
1              9   22.2 KiB   7.7 %            4.8767  Q4_K 7, F32 2
"""


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["inspect", *arguments]) == 0
    return capsys.readouterr().out


def test_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, MIXED)
    assert out.startswith("key                                     type           value\n")
    assert "tokenizer.ggml.scores                   288 × FLOAT32  [0, 0, 0, 0, 0, 0, 0, 0, …]\n" in out
    assert LAYERS in out
    assert out.endswith(SUMMARY)


def test_every_tensor(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "--tensors", MIXED)
    lines = [line.split("  ") for line in out.splitlines()]
    row = next(line for line in lines if line[0] == "blk.0.attn_v.weight")
    assert [cell.strip() for cell in row if cell] == [
        "blk.0.attn_v.weight", "8 × 256", "Q6_K", "1.6 KiB", "6.5625", "attention v",
    ]  # fmt: skip
    assert out.endswith(SUMMARY)


def test_shards(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, str(GOLDEN / "split/llama-slim-f16-00001-of-00003.gguf"))
    assert "file             892.8 KiB in 3 shards, GGUF 3, little endian\n" in out


def test_machines(capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(shown(capsys, "--json", MIXED))
    assert report["bits_per_element"] == 8 * report["bytes"] / report["elements"]
    assert report["files"] == [{"path": MIXED, "bytes": Path(MIXED).stat().st_size}]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (Entry("k", "STRING", None, "a  b\nc"), "a b c"),
        (Entry("k", "STRING", None, "x" * 100), "x" * 79 + "…"),
        (Entry("k", "FLOAT32", None, 9.999999747378752e-06), "1e-05"),
        (Entry("k", "STRING", 2, ["a", "b"]), "['a', 'b']"),
        (Entry("k", "BOOL", 9, [True] * 8), "[" + "True, " * 8 + "…]"),
    ],
)
def test_values(entry: Entry, text: str) -> None:
    assert entry.text() == text


def test_infinite_metadata_is_no_json() -> None:
    assert plain(float("inf")) == "inf"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no.gguf: No such file or directory"),
        (b"GGML", "no.gguf: byte 0: magic: expected"),
        (b"", "no.gguf: expected a GGUF file, got an empty file"),
    ],
)
def test_errors(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "no.gguf"
    if content is not None:
        path.write_bytes(content)
    assert main(["inspect", str(path)]) == 1
    error, *hints = capsys.readouterr().err.splitlines()
    assert message in error
    assert hints == ["hint: a download may have been cut off"] * (content is not None and len(content) < 4)


def test_a_download_under_way(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "download.gguf"
    path.write_bytes(Path(MIXED).read_bytes()[:20_000])
    out = shown(capsys, str(path))
    line = "incomplete: 280.9 KiB are missing: the data of 76 of 76 tensors is not all there"
    assert out.endswith(f"\n\n{line}\n")


def test_machines_get_whole_arrays(capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(shown(capsys, "--json", MIXED))
    for entry in report["metadata"].values():
        assert entry["count"] is None or len(entry["value"]) == entry["count"]
