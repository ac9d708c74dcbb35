"""`kquant compare`: tables and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import kquant
from kquant.cli import main
from support.small_models import heavy_tailed, packed, raw, write_model

GOLDEN = Path(__file__).parents[1] / "golden/gguf"
SOURCE = str(GOLDEN / "models/llama-slim-f16.gguf")
MIXED = str(GOLDEN / "outputs/llama-slim-f16.Q4_K_M.gguf")

TYPES = """\
type  tensors       size    bits       RMSE  relative    cosine
Q4_K       49  180.0 KiB     4.5  2.330e-03    8.66 %  0.996255
Q6_K        9   91.9 KiB  6.5625  6.081e-04    2.26 %  0.999745
F32        18   17.1 KiB      32  0.000e+00       0 %  1.000000
all        76  288.9 KiB  5.2984  2.019e-03    1.89 %  0.999822
"""


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["compare", *arguments]) == 0
    return capsys.readouterr().out


def test_the_worst_tensors_first(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, SOURCE, MIXED, "--top", "2").splitlines()
    assert lines[:4] == [
        "tensor               type        bits       RMSE  relative    cosine    largest",
        "blk.6.attn_q.weight  F16 → Q4_K   4.5  2.419e-03    8.97 %  0.995974  1.165e-02",
        "blk.2.attn_q.weight  F16 → Q4_K   4.5  2.399e-03    8.95 %  0.995997  1.258e-02",
        "and 74 more with smaller errors; --top 0 shows all",
    ]


def test_sums(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, SOURCE, MIXED)
    assert out.endswith(TYPES)
    assert "\nattention v             8  11.1 KiB  5.5312  1.652e-03    6.12 %  0.998129\n" in out
    assert "\n7              9   24.8 KiB  5.4418  1.991e-03    1.66 %  0.999862\n" in out


def test_all_tensors(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, SOURCE, MIXED, "--top", "0", "--tensors", "norm")
    assert out.count("_norm.weight ") == 17
    assert "more with smaller errors" not in out


def test_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(shown(capsys, "--json", SOURCE, MIXED)) == kquant.compare(SOURCE, MIXED).to_dict()


def test_what_is_no_number_is_null_in_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    x = heavy_tailed(1, 32)
    a = write_model(tmp_path / "a.gguf", {"w": raw(0 * x, "F32")})
    b = write_model(tmp_path / "b.gguf", {"w": raw(x, "F32")})
    assert json.loads(shown(capsys, "--json", str(a), str(b)))["total"]["relative_rmse"] is None


def test_what_is_not_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    x = packed(heavy_tailed(2, 32), "F16")
    a = write_model(tmp_path / "a.gguf", {"w": x, "only": x})
    b = write_model(tmp_path / "b.gguf", {"w": x})
    assert shown(capsys, str(a), str(b)).endswith("\nnot compared\ntensor  why\nonly    only in A\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([SOURCE, "no.gguf"], 1, "no.gguf: No such file or directory"),
        ([SOURCE, MIXED, "--tensors", "("], 1, "--tensors: expected a regular expression, got '('"),
        ([SOURCE, MIXED, "--tensors", "a{99999999999}"], 1, "--tensors: expected a regular expression, got"),
        ([SOURCE, MIXED, "--tensors", "(" * 5000], 1, "--tensors: expected a regular expression, got '(((("),
        ([SOURCE, MIXED, "--tensors", "x_x"], 1, "got none in common that match 'x_x'"),
        ([SOURCE], 2, "Missing argument 'B.gguf'."),
        ([SOURCE, MIXED, "--top", "-1"], 2, "Invalid value for '--top': -1 is not in the range x>=0."),
    ],
)
def test_errors(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str) -> None:
    assert main(["compare", *arguments]) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out
