"""Streams that are closed, full or left by their reader: the work is done, exit codes tell the outcome."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kquant
from kquant.cli import main
from support.small_models import heavy_tailed, packed, write_model

pytestmark = pytest.mark.slow  # each test starts the command, some several times
posix = pytest.mark.skipif(os.name != "posix", reason="file numbers and pipes of POSIX")
linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
KQUANT = [sys.executable, "-X", "dev", "-W", "error", "-m", "kquant"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that can be quantized."""
    return write_model(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": packed(heavy_tailed(4, 256), "F16")})


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    """A model that cannot, without --allow-requantize."""
    return write_model(tmp_path / "q.gguf", {"blk.0.ffn_up.weight": packed(heavy_tailed(4, 256), "Q4_K")})


def run(
    *arguments: object, closed: tuple[int, ...] = (), full: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """The command with these file numbers closed or on a full disk."""

    def prepare() -> None:
        for number in full:
            os.dup2(os.open("/dev/full", os.O_WRONLY), number)
        for number in closed:
            os.close(number)

    command = [*KQUANT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, preexec_fn=prepare, timeout=120)


@posix
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams_swallow(closed: tuple[int, ...], model: Path, tmp_path: Path) -> None:
    target = tmp_path / "o.gguf"
    done = run("quantize", model, target, "Q8_0", closed=closed)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert (b"result" in done.stdout) is (1 not in closed)
    assert (b"100 %" in done.stderr) is (2 not in closed)
    found = kquant.verify(target)
    assert found.ok
    assert kquant.inspect(target).types.keys() == {kquant.TensorType.Q8_0}
    for words in (["types", "--files"], ["verify", target], ["--help"], ["inspect", "--json", target]):
        done = run(*words, closed=closed)
        assert (done.returncode, done.stderr.replace(b" 100 %", b"").count(b"rror")) == (0, 0)


@posix
def test_a_closed_stream_does_not_change_a_verdict(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF\x09\0\0\0")
    assert [run("verify", path, closed=closed).returncode for closed in ((), (1,), (2,), (1, 2))] == [1] * 4
    assert run("verify", closed=(2,)).returncode == 2


@linux
def test_output_that_is_lost_has_a_code_of_its_own(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "o.gguf"
    done = run("quantize", model, target, "Q8_0", full=(1,))
    assert done.returncode == 4
    assert done.stderr.endswith(
        b"kquant: error: standard output: No space left on device\n"
        b"hint: files that the command has written are whole\n"
    )
    assert kquant.verify(target).ok
    assert run("types", full=(1,)).returncode == 4
    assert run("--help", full=(1, 2)).returncode == 4
    assert run("verify", target, full=(2,)).returncode == 0
    # what went wrong before goes first
    assert run("verify", tmp_path / "none.gguf", full=(1,)).returncode == 1


@posix
def test_a_reader_that_leaves_early_is_no_error(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "o.gguf"
    for words in (["quantize", model, target, "Q8_0"], ["types"], ["inspect", "--json", model]):
        with subprocess.Popen(
            [*KQUANT, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            error = process.stderr.read()
        assert process.returncode == 0, error
        assert b"rror" not in error
    assert kquant.verify(target).ok


@posix
def test_a_pipe_that_does_not_block_gets_everything(model: Path) -> None:
    whole = run("types", "--json").stdout
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with (
        subprocess.Popen([*KQUANT, "types", "--json"], stdout=writer) as process,
        os.fdopen(reader, "rb") as file,
    ):
        os.close(writer)
        assert file.read() == whole
    assert process.returncode == 0


@pytest.mark.parametrize("make", [lambda: None, lambda: closed_text()], ids=["None", "closed"])
def test_a_program_without_streams(
    make: Callable[[], io.TextIOBase | None], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under pythonw, and in programs that are packed without a console."""
    streams = make(), make()
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    codes = [main(["verify", str(model)]), main(["inspect", "none.gguf"]), main(["types", "Q9"])]
    now = sys.stdout, sys.stderr
    monkeypatch.undo()
    assert codes == [0, 1, 2]
    assert now == streams


def closed_text() -> io.TextIOBase:
    stream = io.StringIO()
    stream.close()
    return stream


def test_a_dry_run_of_what_cannot_be_done_exits_with_3(
    quantized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["quantize", "--dry-run", str(quantized), "Q2_K"]
    assert main(words) == 3
    assert "cannot be carried out: blk.0.ffn_up.weight: requantizing from Q4_K" in capsys.readouterr().out
    assert main([*words, "--json"]) == 3
    assert '"problems": [' in capsys.readouterr().out
    assert main([*words, "--allow-requantize"]) == 0
    assert main(["quantize", str(quantized), "o.gguf", "Q2_K"]) == 1
    assert not quantized.with_name("o.gguf").exists()
