"""`kquant warmup`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kquant.cli import main
from kquant.cli.warmup import jobs_of
from kquant.errors import UnknownTypeError, UnsupportedTypeError
from kquant.formats import has_format
from kquant.products.warming import jobs
from kquant.runtime.cache import CACHE_TYPES
from kquant.types import TensorType

pytestmark = pytest.mark.slow

WARM = "import sys; from kquant.cli import main; sys.exit(main(sys.argv[1:]))"


def run(cache: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: this one has its kernels already."""
    return subprocess.run(
        [sys.executable, "-c", WARM, "warmup", *arguments],
        env={**os.environ, "KQUANT_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_kernels_are_kept(tmp_path: Path) -> None:
    first = run(tmp_path, "F16", "q8_0")
    assert (first.returncode, first.stderr) == (0, "kernels\n")
    folder = Path(first.stdout.strip())
    assert folder.parent == tmp_path
    kept = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert sorted(name.rpartition("-")[0] for name in kept) == [
        "f16-dequantize",
        "f16-quantize",
        "q8_0-dequantize",
        "q8_0-multiply",
        "q8_0-multiply-column",
        "q8_0-quantize",
    ]
    assert run(tmp_path, "F16", "Q8_0").returncode == 0
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == kept


def test_a_single_type_is_a_list_of_one() -> None:
    assert jobs("Q4_K") == jobs(["Q4_K"])


def test_all_types_mean_every_kernel() -> None:
    todo = jobs()
    assert {t for t, _ in todo} == {t for t in TensorType if has_format(t)}
    assert (TensorType.Q4_K, "quantize_weighted") in todo
    assert (TensorType.Q8_0, "quantize_weighted") not in todo
    assert (TensorType.Q8_K, "multiply") not in todo
    assert (
        todo.count((TensorType.Q8_K, "consecutive"))
        == jobs(["Q2_K"]).count((TensorType.Q8_K, "consecutive"))
        == 1
    )
    assert jobs(["Q8_0", "q8_0"]) == [
        (TensorType.Q8_0, job) for job in ("quantize", "dequantize", "multiply", "multiply-column")
    ]


def test_what_running_models_needs() -> None:
    todo = jobs_of(["run"])
    assert {job for job in todo if job[0]} <= set(jobs())
    assert (None, "forward-attend-f16") in todo
    assert {(TensorType.Q4_K, job) for job in ("dequantize", "multiply", "multiply-column")} <= set(todo)
    assert (TensorType.Q4_K, "quantize") not in todo
    for cached in CACHE_TYPES:
        assert (TensorType[cached], "quantize") in todo
    for partner in (TensorType.Q8_K, TensorType.Q8_1, TensorType.Q8_0):
        assert (partner, "quantize") in todo
    assert (TensorType.Q8_K, "consecutive") in todo
    assert set(jobs_of(["run", "Q4_K"])) == {*todo, *jobs(["Q4_K"])}
    assert set(jobs_of([])) == {*jobs(), *todo}


def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownTypeError):
        jobs(["Q9"])
    with pytest.raises(UnsupportedTypeError):
        jobs(["IQ2_XXS"])
    assert main(["warmup", "Q9"]) == 2
    assert "unknown tensor type 'Q9'" in capsys.readouterr().err
    off = run("", "F16")
    assert off.returncode == 1
    assert off.stderr.endswith(
        "kquant: error: expected a cache to prepare, got none: let KQUANT_CACHE_DIR name a folder\n"
    )
    (tmp_path / "file").write_text("")
    nowhere = run(tmp_path / "file", "F16")
    assert nowhere.returncode == 1
    assert ": kernels cannot be kept there: Not a directory" in nowhere.stderr
