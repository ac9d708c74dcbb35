"""Standard output and error that never fail: what cannot be written is lost, and the loss is known.

A command has done its work when it prints.  That its reader has left, that the disk behind `>` is full, or
that there is no standard output at all (as under pythonw, or with `>&-`) must not undo the work, nor
hide what became of it.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO

__all__ = ["Losses", "lossy_streams"]


class Losses:
    """What could not be written, by stream."""

    def __init__(self) -> None:
        self.errors: dict[str, OSError] = {}

    @property
    def output(self) -> OSError | None:
        """Why standard output is incomplete; None if it is whole, or its reader has left before the end."""
        error = self.errors.get("stdout")
        return None if error is None or error.errno == errno.EPIPE else error


class _Lossy(io.RawIOBase):
    """Writes to another stream until that fails, and then nowhere; never closes it."""

    def __init__(self, raw: io.RawIOBase, name: str, losses: Losses) -> None:
        self._raw, self._name, self._losses = raw, name, losses

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._raw.isatty()

    def fileno(self) -> int:
        return self._raw.fileno()

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        if self._name in self._losses.errors:
            return size
        try:
            while (written := self._raw.write(data)) is None:  # a pipe that does not block, and is full
                select.select([], [self._raw], [])
        except OSError as error:
            self._losses.errors[self._name] = error
            return size
        return written


@contextmanager
def lossy_streams() -> Iterator[Losses]:
    """Has standard output and error lose what cannot be written; put back in the end.

    Of other streams, such as those of a notebook or a test, only the handling of what their encoding lacks
    changes: arrows and odd tensor names become escapes.
    """
    losses = Losses()
    before = sys.stdin, sys.stdout, sys.stderr
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            setattr(sys, name, _nothing("r" if number == 0 else "w"))
        elif number > 0:
            setattr(sys, name, _lossy(stream, name, losses))
    try:
        yield losses
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def _nothing(mode: str) -> IO[str]:
    """A stream that holds nothing and takes everything.

    Opening it takes the lowest file number that is free, which is the number of the closed stream: no file
    that is opened later can have it, and no message of a C library can end up in a model.
    """
    number = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
    return open(number, mode, encoding="utf-8", closefd=False)


def _lossy(stream: TextIO, name: str, losses: Losses) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")
    raw = getattr(stream.buffer, "raw", stream.buffer)  # with `python -u` there is no buffer
    if not isinstance(raw, io.FileIO):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Lossy(raw, name, losses)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
