"""The command `kquant`: one module per subcommand; the only place that prints or exits.

Exit codes: 0 done; 1 an error that the message explains, or problems that `verify` found; 2 wrong usage;
3 the plan of a dry run cannot be carried out; 4 done, but standard output could not be written; 130
interrupted.
"""

from __future__ import annotations

import signal
import sys
import warnings
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import click

from kquant import (
    GGUFTruncatedError,
    InvalidDataError,
    KQuantError,
    MissingDependencyError,
    UnknownTypeError,
    UnsupportedTypeError,
    __version__,
)
from kquant._text import printable
from kquant.cli.option_names import by_option
from kquant.cli.streams import lossy_streams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType
    from typing import TextIO

__all__ = ["cli", "main", "printable"]

EXIT_ERROR, EXIT_USAGE, EXIT_IMPOSSIBLE, EXIT_UNPRINTED, EXIT_INTERRUPTED = 1, 2, 3, 4, 130


# every subcommand and what the overview says of it; the module of a subcommand is imported when it is used
COMMANDS = {
    "quantize": "Turn a GGUF model into another file type, as llama-quantize does.",
    "run": "Generate text with a model, or converse with it.",
    "bench": "Measure how fast a model reads and writes, as llama-bench does.",
    "inspect": "Show what a file holds: metadata, layers, types, bits per weight.",
    "verify": "Check structure, every block, and hashes against a manifest.",
    "compare": "Show the error of each tensor of one file against another.",
    "sweep": "Try each type on each tensor: error, size, and what mixtures choose.",
    "report": "Write a page with pictures of sizes, types, errors, rate and distortion.",
    "demo": "Requantize a real 135M-parameter model and compare with llama-quantize.",
    "types": "List tensor types and file types, and draw their blocks.",
    "warmup": "Compile the kernels now, so that no later command waits.",
    "completion": "Print what makes bash, zsh or fish complete words.",
}


# what to try after an error that has no hint of its own
HINTS: dict[type[Exception], str] = {
    InvalidDataError: "`kquant verify FILE` lists every tensor that holds such numbers",
    GGUFTruncatedError: "a download may have been cut off",
    UnsupportedTypeError: "`kquant types` shows which types kquant has a codec for, by a sum of bits; "
    "`kquant types --files` lists the file types that it makes",
    UnknownTypeError: "`kquant types` lists the tensor types, `kquant types --files` the file types",
}


class _Commands(click.Group):
    """Loads a subcommand when it is used, so that the overview costs nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"kquant.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 an error, or problems that verify found; 2 wrong usage; 3 the plan of a "
    "dry run cannot be carried out; 4 done, but standard output could not be written; 130 interrupted.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Quantize GGUF models, byte for byte as llama-quantize does it, look into them, and run them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's) and return its exit code."""
    with lossy_streams() as losses:
        code = _run(arguments)
        why = losses.why()
        if why is None:
            return code
        hint = "files that the command has written are whole"
        return _fail(f"standard output: {why}", hint, code or EXIT_UNPRINTED)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        with _ending_on_signals(), warnings.catch_warnings():
            warnings.showwarning = _warn
            code = cli.main(arguments, prog_name="kquant", standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "kquant"
        return _fail(by_option(error.format_message()), f"see `{where} --help`", EXIT_USAGE)
    except click.Abort:
        return _fail("interrupted; nothing is left behind", None, EXIT_INTERRUPTED)
    except (KQuantError, OSError) as error:
        hint = getattr(error, "hint", None) or _installing(error) or HINTS.get(type(error))
        return _fail(by_option(_message(error)), hint, EXIT_ERROR)
    return code if isinstance(code, int) else 0


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """End on signals as on an error, so that a half-written file is removed.

    Signals that are ignored, as SIGHUP is under `nohup`, stay so.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning on one line: of a library's, some hold a whole traceback."""
    click.echo(f"kquant: warning: {printable(str(message).splitlines()[0])}", err=True)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _installing(error: Exception) -> str | None:
    """How to get what is not installed: the extra of the command that needs it."""
    if not isinstance(error, MissingDependencyError):
        return None
    extras = {"report": "report", "constraints": "constrain"}  # by a word of the message
    extra = next((extra for word, extra in extras.items() if word in str(error)), "run")
    return f"pip install 'kquant-gguf[{extra}]'"


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _fail(message: str, hint: str | None, code: int) -> int:
    click.echo(f"kquant: error: {printable(' '.join(message.split()))}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return code
