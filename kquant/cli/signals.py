"""Signals that wait for a moment in which an exception does no harm.

Python runs a signal's handler between any two instructions of the main thread: also inside the locks and
queues of `threading` and `concurrent.futures`.  An exception there leaves a lock released or held for ever,
and ends in a RuntimeError or in a command that hangs.  While threads work, a signal is therefore remembered,
and answered when the next piece of work is done; a second one is answered at once.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    from typing_extensions import Self

__all__ = ["Postponed"]

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Postponed:
    """The signals that end a command, from `begin` to `end`, which are also those of a `with` block."""

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._waiting: int | None = None

    def begin(self) -> None:
        """From now on they wait for `check`; those that are ignored stay so."""
        if threading.current_thread() is not threading.main_thread():  # Python handles signals only there
            return
        for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._remember)

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def check(self) -> None:
        """Answer the signal that came meanwhile, if any, as it would have been answered at once."""
        if self._waiting is not None:
            number, self._waiting = self._waiting, None
            self._handlers[number](number, None)

    def end(self) -> None:
        """Answer at once again.  What came after the last piece of work found nothing left to stop."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._waiting is None:
            self._waiting = number
        else:
            self._handlers[number](number, frame)
