"""Standard output and error that never fail: what cannot be written is lost, and the loss is known.

A command has done its work when it prints.  That its reader has left, that the disk behind `>` is full, or
that there is no standard output at all (as under pythonw, or with `>&-`) must not undo the work, nor
hide what became of it.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TextIO, TypeVar

__all__ = ["Losses", "lossy_streams"]

_T = TypeVar("_T")


class _LossyText(io.TextIOWrapper):
    """Text to a file number of its own, until that fails, and then to nowhere."""

    error: OSError | None = None

    def write(self, text: str, /) -> int:
        return self._attempt(lambda: super(_LossyText, self).write(text), len(text))

    def flush(self) -> None:
        self._attempt(super().flush, None)

    def _attempt(self, function: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return function()
        except OSError as error:
            self.error = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # where also what is buffered goes
            os.close(nowhere)
            return otherwise


class Losses:
    """What could not be written to the standard output of a command."""

    def __init__(self, output: TextIO) -> None:
        self._output = output

    def why(self) -> str | None:
        """Why standard output is incomplete; None if it is whole, or its reader has left before the end."""
        self._output.flush()
        error = self._output.error if isinstance(self._output, _LossyText) else None
        return None if error is None or error.errno == errno.EPIPE else error.strerror or str(error)


@contextmanager
def lossy_streams() -> Iterator[Losses]:
    """Has standard output and error lose what cannot be written; put back in the end.

    Of streams that are not the process's own, such as those of a notebook, only the handling of what their
    encoding lacks changes: arrows and odd tensor names become escapes.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    with ExitStack() as stack:
        stack.callback(_restore, before)
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            stream = getattr(sys, name)
            if stream is None or getattr(stream, "closed", False):
                setattr(sys, name, _nothing(mode))
        for name in ("stdout", "stderr"):
            setattr(sys, name, _lossy(getattr(sys, name), stack))
        yield Losses(sys.stdout)


def _restore(streams: tuple[TextIO, TextIO, TextIO]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams


def _nothing(mode: str) -> IO[str]:
    """A stream that holds nothing and takes everything.

    Opening it takes the lowest file number that is free, which is the number of the closed stream: no file
    that is opened later can have it, and no message of a C library can end up in a model.
    """
    number = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
    return open(number, mode, encoding="utf-8", closefd=False)


def _lossy(stream: TextIO, stack: ExitStack) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")
    raw = getattr(stream.buffer, "raw", stream.buffer)  # with `python -u` there is no buffer
    if not isinstance(raw, io.FileIO):
        return stream
    with suppress(OSError):  # what a program that calls `main` has left in it
        stream.flush()
    number = os.dup(raw.fileno())
    # some programs leave their pipes so that a write fails when they are full
    if hasattr(os, "get_blocking") and not os.get_blocking(number):
        os.set_blocking(number, True)
        stack.callback(os.set_blocking, raw.fileno(), False)
    lossy = _LossyText(
        io.BufferedWriter(io.FileIO(number, "w")),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    stack.callback(lossy.close)
    return lossy
