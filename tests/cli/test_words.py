"""The positional arguments of the command line have llama-quantize's meaning."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kquant.cli import cli, main
from kquant.cli.quantize import parse_words
from kquant.types import FileType


@pytest.mark.parametrize(
    ("words", "target", "file_type", "threads"),
    [
        ("in.gguf Q4_K_M", "ggml-model-Q4_K_M.gguf", "Q4_K_M", None),
        ("in.gguf q4_k_m 4", "ggml-model-Q4_K_M.gguf", "Q4_K_M", 4),
        ("in.gguf Q4_K", "ggml-model-Q4_K.gguf", "Q4_K_M", None),
        ("in.gguf 15", "ggml-model-Q4_K.gguf", "Q4_K_M", None),
        ("in.gguf 14", "ggml-model-Q4_K_S.gguf", "Q4_K_S", None),
        ("in.gguf 0", "ggml-model-F32.gguf", "F32", None),
        ("in.gguf copy", "ggml-model-COPY.gguf", "COPY", None),
        ("a/b/in.gguf Q8_0", "a/b/ggml-model-Q8_0.gguf", "Q8_0", None),
        ("a/in.gguf b/out.gguf Q8_0", "b/out.gguf", "Q8_0", None),
        ("in.gguf out Q8_0 2", "out", "Q8_0", 2),
        ("in.gguf 7b-model.gguf Q8_0", "7b-model.gguf", "Q8_0", None),
        ("in.gguf out.gguf 7 0", "out.gguf", "Q8_0", None),
        ("in.gguf out.gguf 7 -1", "out.gguf", "Q8_0", None),
    ],
)
def test_words(words: str, target: str, file_type: str, threads: int | None) -> None:
    said = parse_words(tuple(words.split()))
    assert said.source == Path(words.split()[0])
    assert (said.target, said.file_type, said.threads) == (Path(target), FileType[file_type], threads)


def test_the_default_name_of_shards_has_no_suffix() -> None:
    assert parse_words(("a/in.gguf", "Q8_0"), keep_split=True).target == Path("a/ggml-model-Q8_0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", r"expected IN\.gguf \[OUT\.gguf\] TYPE \[THREADS\], for example `kquant quantize"),
        ("in.gguf", r"expected IN\.gguf \[OUT\.gguf\] TYPE \[THREADS\]"),
        ("in.gguf out.gguf", r"TYPE is missing after out\.gguf, for example"),
        ("in.gguf Q4_X", r"unknown file type 'Q4_X'; known: F32, F16, .*Q4_K_M"),
        ("in.gguf out.gguf Q4_X", r"unknown file type 'Q4_X'"),
        ("in.gguf out.gguf 99", r"unknown file type '99'"),
        (f"in.gguf {'9' * 5000}", r"unknown file type '9"),
        ("in.gguf Q8_0 many", r"THREADS must be a whole number, got 'many'"),
        ("in.gguf Q8_0 2 3", r"unexpected word '3' after THREADS"),
        ("in.gguf out.gguf Q8_0 2 3", r"unexpected word '3' after THREADS"),
    ],
)
def test_wrong_words(words: str, message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        parse_words(tuple(words.split()))


@pytest.mark.parametrize("words", ["in.gguf IQ4_XS", "in.gguf out.gguf iq4_xs", "in.gguf out.gguf 30"])
def test_file_types_that_kquant_cannot_make(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", *words.split()]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("kquant: error: kquant cannot make IQ4_XS files yet; it makes F32, F16, Q4_0")
    assert "`kquant types --files`" in hint


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ("quantize in.gguf", "q4_k", ["Q4_K_S", "Q4_K_M", "Q4_K"]),
        ("quantize", "", [""]),
        ("quantize", "--dry", ["--dry-run"]),
        ("", "qu", ["quantize"]),
    ],
)
def test_completion(words: str, incomplete: str, expected: list[str]) -> None:
    answer = CliRunner().invoke(
        cli,
        prog_name="kquant",
        env={
            "_KQUANT_COMPLETE": "bash_complete",
            "COMP_WORDS": f"kquant {words} {incomplete}",
            "COMP_CWORD": str(1 + len(words.split())),
        },
    )
    assert [line.partition(",")[2] for line in answer.output.splitlines()] == expected
