"""The command as a process: terminals, pipes, signals, encodings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kquant.cli import COMMANDS, main, printable
from kquant.cli.show import Grid, Styled, write
from support import small_models
from support.processes import interruptible

MODELS = Path(__file__).parents[1] / "golden/gguf/models"
KQUANT = [sys.executable, "-W", "error", "-m", "kquant"]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")


def kquant(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*KQUANT, *map(str, arguments)],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main(["--help"]) == 0
    assert main([]) == 0
    version, *rest = capsys.readouterr().out.splitlines()
    assert version == "kquant 0.1.0"
    assert rest[: len(rest) // 2] == rest[len(rest) // 2 :]


def test_python_m() -> None:
    assert kquant("--version").stdout.split() == [b"kquant", b"0.1.0"]


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dequantize"]) == 2
    assert (
        capsys.readouterr().err == "kquant: error: No such command 'dequantize'.\nhint: see `kquant --help`\n"
    )


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert main([name, "-h"]) == 0
        text = capsys.readouterr().out
        assert f"Usage: kquant {name} " in text
        assert ("--json" in text) is (name not in ("completion", "warmup"))  # whatever prints tables
        for line in text.splitlines():
            assert len(line) <= 100


def test_exit_codes_are_in_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "Exit codes: 0 done; 1 an error, or problems that verify found;" in capsys.readouterr().out


def test_types(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["types"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["12", "Q4_K", "256", "144", "4.5"] in [line[:5] for line in lines]
    assert main(["types", "--files"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["15", "Q4_K_M", "Q4_K", "Q4_K"] in lines


@posix
def test_the_reader_of_a_pipe_may_leave() -> None:
    with subprocess.Popen([*KQUANT, "types"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)


@pytest.mark.parametrize(("encoding", "arrow"), [("cp1252", rb"\u2192"), ("ascii", "→".encode())])
def test_outputs_whose_encoding_has_no_arrow(encoding: str, arrow: bytes) -> None:
    words = ["quantize", "--dry-run", MODELS / "llama-slim-f16.gguf", "Q4_K_M"]
    done = kquant(*words, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert b"F16 " + arrow + b" Q6_K" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["quantize", "nan.gguf", "Q8_0"], "`kquant verify FILE` lists every tensor that holds such numbers"),
        (["compare", "nan.gguf", "short.gguf"], "a download may have been cut off"),
        (
            ["sweep", "nan.gguf", "--types", "IQ1_S"],
            "`kquant types` shows which types kquant has",
        ),
        (["types", "Q9"], "see `kquant types --help`"),
    ],
)
def test_hints(
    arguments: list[str],
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    small_models.write_model(tmp_path / "nan.gguf", {"w.weight": small_models.raw(NAN, "F16")})
    Path("short.gguf").write_bytes((tmp_path / "nan.gguf").read_bytes()[:-1000])
    assert main(arguments) in (1, 2)
    error, shown = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("kquant: error: ")
    assert shown.startswith(f"hint: {hint}")


NAN = np.full((2, 256), np.nan, np.float16)


def test_long_lines_stay_whole_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    write(Styled("word " * 100, "dim"), "x" * 500)
    assert [len(line) for line in capsys.readouterr().out.splitlines()] == [499, 500]


def test_names_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    grid = Grid("name")
    grid.row("[bold]\x1b[2Jx\udcff\n")
    write(grid)
    assert capsys.readouterr().out.splitlines()[1] == r"[bold]\x1b[2Jx\udcff\n"
    assert printable("blk.0 → ü") == "blk.0 → ü"


@pytest.mark.slow
@posix
@pytest.mark.parametrize(("no_color", "colours"), [("", True), ("1", False)])
def test_a_terminal_gets_a_bar_and_colours(tmp_path: Path, no_color: str, colours: bool) -> None:
    shown = in_terminal(
        [*KQUANT, "quantize", str(MODELS / "llama-odd-f16.gguf"), str(tmp_path / "o.gguf"), "Q4_K_M"],
        NO_COLOR=no_color,
        COLUMNS="100",
        TERM="xterm-256color",
    )
    assert "━" in shown
    assert "100%" in shown
    assert ("\x1b[33m22 of 30 tensors" in shown) is colours


@pytest.mark.slow
@posix
def test_narrow_terminals_get_every_figure() -> None:
    pair = [str(MODELS / "llama-slim-f16.gguf"), str(MODELS / "../outputs/llama-slim-f16.Q4_K_M.gguf")]
    narrow = {"NO_COLOR": "1", "COLUMNS": "60", "TERM": "xterm-256color"}
    shown = in_terminal([*KQUANT, "compare", *pair, "--top", "1"], **narrow)
    assert "F16 → Q4_K   4.5  2.419e-03    8.97 %  0.995974  1.165e-02" in shown
    assert "blk.6.attn_q.weight " not in shown  # names may be cut off, figures may not
    assert "\nattention output        8  27.0 KiB     4.5  2.325e-03    8.71 %  0.996205" in shown


def in_terminal(command: list[str], **environment: str) -> str:
    """Everything that a command shows when its outputs are a terminal."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        os.execve(command[0], command, {**os.environ, **environment})
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # Linux tells the end of the other side so
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    return shown.decode()


@pytest.mark.slow
@posix
def test_an_interrupted_command_ends_at_once(tmp_path: Path) -> None:
    source = tmp_path / "in.gguf"
    write_model(source)
    command = [*KQUANT, "sweep", str(source), "--types", "Q2_K,Q3_K"]
    slowly = {**os.environ, "KQUANT_EXECUTION": "numpy"}
    with interruptible(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=slowly) as process:
        assert process.stderr
        assert process.stderr.readline() == b"in.gguf\n"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, b"")
    assert error.strip() == b"kquant: error: interrupted; nothing is left behind"
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


@posix
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, code: int) -> None:
    source = tmp_path / "in.gguf"
    write_model(source)
    command = [*KQUANT, "quantize", str(source), str(tmp_path / "out.gguf"), "Q4_K_M"]
    environment = {**os.environ, "KQUANT_EXECUTION": "numpy"}
    with interruptible(command, stderr=subprocess.PIPE, env=environment) as process:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, error = process.communicate(timeout=300)
    assert process.returncode == code, error
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]
    assert b"Traceback" not in error


def write_model(path: Path) -> None:
    """An F16 model of 64 MB: enough to be interrupted in."""
    from kquant.gguf import GGUFValueType, Metadata, TensorSpec, Writer, layout
    from kquant.types import TensorType

    metadata = Metadata()
    metadata.set("general.architecture", "llama", GGUFValueType.STRING)
    metadata.set("llama.block_count", 1, GGUFValueType.UINT32)
    specs = [TensorSpec("blk.0.ffn_up.weight", (4096, 8192), TensorType.F16)]
    with Writer(path, layout(metadata, specs)) as writer:
        rows = np.random.default_rng(0).standard_normal((8192, 4096), dtype=np.float32)
        writer.write(0, 0, rows.astype(np.float16))
        writer.commit()
