"""What the algorithms share: a memory for words, and ids of single bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["Words", "byte_ids"]

_MOST_WORDS: Final = 1 << 16
_LONGEST: Final = 64


class Words(dict[str, "tuple[int, ...]"]):
    """Word -> ids, computed when it is first asked for and kept; bounded, for it is filled by texts.

    >>> lengths = Words(lambda word: (len(word),))
    >>> lengths["tokens"]
    (6,)
    """

    def __init__(self, compute: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self._compute(word)
        if len(word) <= _LONGEST:
            if len(self) >= _MOST_WORDS:
                self.clear()
            self[word] = ids
        return ids


def byte_ids(id_of: Mapping[str, int], *, unknown: int | None, or_character: bool) -> list[tuple[int, ...]]:
    """For each byte the tokens that stand for it where no other token does: `<0x0A>`, or none."""
    ids: list[tuple[int, ...]] = []
    for byte in range(256):
        found = id_of.get(f"<0x{byte:02X}>")
        if found is None and or_character and byte < 0x80:
            found = id_of.get(chr(byte))
        if found is None:
            found = unknown
        ids.append(() if found is None else (found,))
    return ids
