"""`kquant sweep`: tables and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import kquant
from kquant.cli import main
from support.small_models import heavy_tailed, raw, write_model

GOLDEN = Path(__file__).parents[1] / "golden/gguf"
SOURCE = str(GOLDEN / "models/llama-slim-f16.gguf")

TABLES = """\
tensor                  Q2_K     Q4_0    Q4_K    Q8_0
blk.6.attn_v.weight  35.89 %  11.70 %  8.91 %  0.76 %
blk.7.attn_v.weight  35.46 %  11.56 %  8.86 %  0.73 %
and 6 more with smaller errors; --top 0 shows all

type   bits  tensors      size    error  error (logarithmic)
Q2_K  2.625        8   5.2 KiB  34.90 %  ████████████████████████
Q4_0    4.5        8   9.0 KiB  11.15 %  ███████████████████▍      Q4_K beats it
Q4_K    4.5        8   9.0 KiB   8.63 %  ██████████████████▎
Q8_0    8.5        8  17.0 KiB   0.71 %  ████████

mixture       size  bits per weight    error  chosen
Q4_0     278.6 KiB           5.1093  11.15 %  Q4_0 8
Q8_0     476.1 KiB           8.7298   0.71 %  Q8_0 8
"""


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["sweep", *arguments]) == 0
    return capsys.readouterr().out


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--types",
        "Q8_0,q2_k, Q4_K,Q4_0",
        "--tensors",
        "attn_v",
        "--file-types",
        "Q4_0,Q8_0",
        "--top",
        "2",
    ]
    out = shown(capsys, SOURCE, *words)
    assert out == TABLES


def test_rows(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, SOURCE, "--rows", "2", "--types", "Q8_0", "--file-types", "Q4_K_M")
    assert out.startswith("From at most 2 rows of each tensor.\n\ntensor ")
    assert out.splitlines()[-1].split("  ")[-2:] == ["–", "Q4_K 49, Q6_K 9"]


def test_quantized_sources(capsys: pytest.CaptureFixture[str]) -> None:
    path = GOLDEN / "outputs/llama-slim-f16.Q8_0.gguf"
    out = shown(capsys, str(path), "--types", "Q8_0", "--tensors", "attn_k", "--file-types", "Q8_0")
    assert out.startswith("The source is quantized: errors are against its values, and types like its own")


def test_machines(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--types", "Q8_0", "--rows", "1", "--file-types", "Q8_0"]
    report = json.loads(shown(capsys, "--json", SOURCE, *words))
    assert report == kquant.sweep(SOURCE, types=["Q8_0"], rows=1, file_types=["Q8_0"]).to_dict()


def test_a_mixture_that_cannot_be_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import numpy as np

    from support.small_models import heavy_tailed, packed, write_model

    unknown = (np.zeros((2, 66), np.uint8), kquant.TensorType.IQ2_XXS)
    tensors = {"blk.0.ffn_up.weight": packed(heavy_tailed(2, 256), "F16"), "blk.0.ffn_gate.weight": unknown}
    path = write_model(tmp_path / "m.gguf", tensors)
    out = shown(capsys, str(path), "--types", "Q8_0", "--file-types", "Q8_0")
    assert "blk.0.ffn_gate.weight: cannot read IQ2_XXS: kquant has no codec for this type" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no.gguf"], 1, "no.gguf: No such file or directory"),
        ([SOURCE, "--types", "Q4_K,Q9"], 2, "unknown tensor type 'Q9'"),
        ([SOURCE, "--types", "Q8_K"], 1, "Q8_K: kquant has no codec that stores tensors in this type"),
        ([SOURCE, "--file-types", "Q9"], 2, "unknown file type 'Q9'"),
        ([SOURCE, "--rows", "0"], 2, "Invalid value for '--rows': 0 is not in the range x>=1."),
        ([SOURCE, "--tensors", "norm", "--types", "Q8_0"], 1, "packed into Q8_0, got none that match 'norm'"),
    ],
)
def test_errors(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str) -> None:
    assert main(["sweep", *arguments]) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out


BEYOND = """\
tensor                   Q8_0             F16
blk.0.ffn_up.weight  0.0125 %  cannot hold it

type  bits  tensors     size     error  error (logarithmic)
Q8_0   8.5        1  1.1 KiB  0.0125 %  ████████████████████████
F16     16        1  2.0 KiB         –                            cannot hold blk.0.ffn_up.weight

mixture     size  bits per weight     error  chosen
Q8_0     1.1 KiB              8.5  0.0125 %  Q8_0 1
F16      2.0 KiB               16         –  cannot be made: F16 cannot hold blk.0.ffn_up.weight
"""


def test_a_type_that_cannot_hold_a_tensor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    x = heavy_tailed(4, 256)
    x[1, 3] = 1e5
    path = write_model(tmp_path / "large.gguf", {"blk.0.ffn_up.weight": raw(x, "F32")})
    words = [str(path), "--types", "F16,Q8_0", "--file-types", "F16,Q8_0"]
    assert shown(capsys, *words) == BEYOND
    data = json.loads(shown(capsys, *words, "--json"))
    assert [point["cosine"] is None for point in data["types"]] == [False, True]
    assert data["mixtures"][0]["remark"] == "cannot be made: F16 cannot hold blk.0.ffn_up.weight"
