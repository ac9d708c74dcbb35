"""Environment variables: whatever they say, the command works or says in one line why not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kquant import requantize
from support.small_models import heavy_tailed, packed, write_model

pytestmark = pytest.mark.slow  # each test starts the command, some several times

ODD = {
    "width 0": {"COLUMNS": "0", "LINES": "0", "FORCE_COLOR": "1"},
    "width 1": {"COLUMNS": "1", "FORCE_COLOR": "1"},
    "no width": {"COLUMNS": "many"},
    "no terminal": {"TERM": "dumb", "FORCE_COLOR": "1", "NO_COLOR": "1"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict", "FORCE_COLOR": "1"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "no such locale": {"LC_ALL": "xx_YY", "LANG": "nonsense"},
    "unbuffered": {"PYTHONUNBUFFERED": "1"},
    "without docstrings": {"PYTHONOPTIMIZE": "2"},
    "the compiler off": {"NUMBA_DISABLE_JIT": "1"},
    "no cache": {"KQUANT_CACHE_DIR": "", "KQUANT_EXECUTION": ""},
    "the cache is a file": {"KQUANT_CACHE_DIR": __file__},
    "the cache is a device": {"KQUANT_CACHE_DIR": "/dev/null/x"},
    "no name of a folder": {"KQUANT_CACHE_DIR": "x" * 5000},
}
WRONG = {
    "the environment variable KQUANT_EXECUTION: expected 'numba' or 'numpy', got 'fortran'": {
        "KQUANT_EXECUTION": "fortran"
    },
    "execution: expected that Numba may compile, got NUMBA_DISABLE_JIT": {
        "KQUANT_EXECUTION": "numba",
        "NUMBA_DISABLE_JIT": "1",
    },
    "execution: Numba cannot be loaded: ValueError: Number of threads specified must be > 0.": {
        "NUMBA_NUM_THREADS": "0"
    },
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An F16 model whose type names need no letter beyond ASCII, but whose tables do."""
    return write_model(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": packed(heavy_tailed(4, 256), "F16")})


def kquant(*words: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "kquant", *map(str, words)],
        capture_output=True,
        check=False,
        timeout=300,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("odd", ODD)
def test_odd_environments(odd: str, model: Path) -> None:
    target = model.with_name("o.gguf")
    for words in (["quantize", model, target, "Q8_0"], ["inspect", target], ["types", "Q4_K"]):
        done = kquant(*words, **ODD[odd])
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        assert done.stdout
    requantize(model, model.with_name("same.gguf"), "Q8_0")
    assert target.read_bytes() == model.with_name("same.gguf").read_bytes()


@pytest.mark.parametrize("message", WRONG)
def test_wrong_environments(message: str, model: Path) -> None:
    done = kquant("quantize", model, "o.gguf", "Q8_0", **WRONG[message])
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"kquant: error: {message}")
    assert kquant("inspect", model, **WRONG[message]).returncode == 0


def test_a_library_that_warns_has_one_line(model: Path) -> None:
    done = kquant("quantize", model, model.with_name("o.gguf"), "Q8_0", NUMBA_OPT="7")
    assert done.returncode == 0
    assert done.stderr.startswith(b"kquant: warning: Environment variable 'NUMBA_OPT' is defined but its ")
    assert b"Traceback" not in done.stderr
