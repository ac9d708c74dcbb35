"""Timing in turns: A B C, B C A, ... until the time for a case is used up."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Run = Callable[[], Any]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h

MIN_ROUNDS = 3
MAX_ROUNDS = 200


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles of a sample."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, sample: list[float]) -> Spread:
        if len(sample) == 1:
            return cls(sample[0], sample[0], sample[0])
        low, median, high = statistics.quantiles(sample, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Times:
    """Seconds that each contestant took, turn by turn."""

    seconds: Mapping[str, list[float]]

    def of(self, name: str) -> Spread:
        return Spread.of(self.seconds[name])

    def ratio(self, name: str, to: str) -> Spread:
        """How many times faster `name` was than `to`, turn by turn."""
        pairs = zip(self.seconds[to], self.seconds[name], strict=True)
        return Spread.of([other / own for other, own in pairs])


def by_turns(contestants: Mapping[str, Run], seconds: float) -> Times:
    """Run every contestant once per turn, a different one first each time."""
    names = list(contestants)
    taken: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        turn = 0
        while turn < MIN_ROUNDS or (time.perf_counter() < end and turn < MAX_ROUNDS):
            for i in range(len(names)):
                name = names[(turn + i) % len(names)]
                start = time.perf_counter()
                contestants[name]()
                taken[name].append(time.perf_counter() - start)
            turn += 1
    finally:
        gc.enable()
    return Times(taken)


def keep_freed_memory() -> bool:
    """Have the allocator keep what is freed; False where it cannot be told to (it is not glibc).

    Every contestant returns a new array.  The first touch of fresh pages costs more than decoding into
    them does, and would hide the differences that are to be measured.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_M_MMAP_MAX, 0))
