"""What was measured on one kind of processor and holds for it: numbers, never bits of results.

Ratios are of whole calls, old and new by turns; docs/speed.md and docs/matmul.md tell more.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AHEAD",
    "FIRST_LEVEL",
    "LINE",
    "OTHERS",
    "SECOND_LEVEL",
    "ZEN",
    "Tuning",
    "of_processor",
]

LINE = 64
"""Bytes of a line of the cache."""
AHEAD = 4096
"""Bytes: so long before a run comes there, a line is prefetched.  Cascade Lake: unpacking from memory then
overtakes ggml for every type."""
FIRST_LEVEL, SECOND_LEVEL = 3, 2
"""Of the caches, in LLVM's counting."""


@dataclass(frozen=True)
class Tuning:
    """How memory is read and written best, and which of two sequences of instructions is the faster."""

    streams_past_cache: bool
    """Large results are stored past the caches.  Zen 4: unpacking from 12 MB on 1.1 to 1.4 times as fast;
    Cascade Lake: 10 to 25 % slower for most types."""
    prefetches_itself: bool
    """Prefetch instructions for memory that is read from its beginning to its end do harm.  Zen 4: with them
    F16 unpacks at two thirds of the speed."""
    bytes_per_store: int
    """Of what stays in the caches.  Cascade Lake: 32 bytes at a time are up to 1.2 times faster to memory;
    Zen 4: a whole line is faster."""
    multiplies_fast: bool
    """Products of int32 are cheap: 32 products of bytes are summed and then scaled once.  Zen 4: 64 columns
    of Q4_K 9 % faster than scaled in pairs of int16 after 16 products."""
    joined_block_bytes: int
    """Up to this size of a super-block, a load with a mask puts the second of two into the upper half of a
    register.  Zen 4: saves a shuffle, which shares its ports with products; in blocks of Q6_K, of 210 bytes,
    it takes longer, as its lanes lie across lines of the cache."""


ZEN = Tuning(
    streams_past_cache=True,
    prefetches_itself=True,
    bytes_per_store=LINE,
    multiplies_fast=True,
    joined_block_bytes=176,
)
OTHERS = Tuning(
    streams_past_cache=False,
    prefetches_itself=False,
    bytes_per_store=LINE // 2,
    multiplies_fast=False,
    joined_block_bytes=0,
)


def of_processor(name: str) -> Tuning:
    """For LLVM's name of a processor.

    >>> of_processor("znver3") is ZEN
    True
    """
    return ZEN if name.startswith("znver") else OTHERS
