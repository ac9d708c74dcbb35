"""Work that is cut into slabs while it is done: each goes to the thread that asks first."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock

__all__ = ["Region"]


class Region:
    """range(n), of which threads claim slabs until none is left."""

    def __init__(
        self, slab: Callable[[int, int], None], n: int, step: int, most: int, n_threads: int
    ) -> None:
        """`slab(first, last)` does a part; a claim is of `step` to `most`."""
        self._slab, self._n, self._step, self._most = slab, n, step, most
        self._share = 3 * n_threads // 2
        """A claim is this part of what is left, so that no thread waits for another for long."""
        self._at, self._lock = 0, Lock()
        self._errors: list[tuple[int, BaseException]] = []
        self._left: SimpleQueue[None] = SimpleQueue()

    def _claim(self) -> tuple[int, int] | None:
        with self._lock:
            first, rest = self._at, self._n - self._at
            if rest <= 0:
                return None
            self._at += min(max(self._step, rest // self._share), self._most, rest)
            return first, self._at

    def work(self) -> None:
        """Do slabs until none is left; an error ends the work of all."""
        first = 0
        try:
            while claimed := self._claim():
                first, last = claimed
                self._slab(first, last)
        except BaseException as error:
            self._errors.append((first, error))
            self.stop()

    def stop(self) -> None:
        """Let nobody begin with another slab."""
        with self._lock:
            self._at = self._n

    def help(self) -> None:
        """The same, in another thread, which is waited for."""
        try:
            self.work()
        finally:
            self._left.put(None)

    def wait_for(self, n_helpers: int) -> None:
        """Until so many helpers have done what they had begun with."""
        for _ in range(n_helpers):
            self._left.get()

    def raise_error(self) -> None:
        """That of the first slab that raised one."""
        if self._errors:
            raise min(self._errors, key=lambda found: found[0])[1]
