"""Arrays of strings: where each one starts, and a sequence that decodes what is asked for.

A string array is a chain: only the length of one string tells where the next one starts, and only the
end of the last one where the next key is.  A vocabulary has 400 thousand links; following them one by
one takes Python 80 ms.  `string_starts` guesses the starts of a whole window at once and then proves
them, which takes 8 ms.  The guess rests on what vocabularies look like; the proof does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from struct import Struct
from typing import Any, Final, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from kquant.gguf.spec import MAX_STRING_BYTES, ORDER_MARK, ByteOrder

Buffer: TypeAlias = Any
"""Anything with the buffer protocol; `collections.abc.Buffer` needs Python 3.12."""

_WINDOW: Final = 1 << 17
"""Bytes looked at together: enough to be fast, few enough to stay in the cache."""
_FEW: Final = 200
"""So many strings are followed one by one faster than a window is searched."""
_NONE: Final = np.empty(0, np.int64)
_LENGTH: Final = {order: Struct(mark + "Q") for order, mark in ORDER_MARK.items()}


def string_length(data: Buffer, start: int, byteorder: ByteOrder) -> int:
    """The length prefix of the string that starts at `start`."""
    return int(_LENGTH[byteorder].unpack_from(data, start)[0])


def string_starts(data: Buffer, start: int, count: int, byteorder: ByteOrder) -> Iterator[NDArray[np.int64]]:
    """The positions of `count` strings that follow one another from `start`, in pieces.

    Ends early, without an error, before a string that does not lie within `data` or is longer than
    any may be.  Takes time in proportion to the bytes walked and memory for one window, whatever the
    bytes are.
    """
    position = start
    while count:
        window_end = min(position + _WINDOW, len(data))
        starts = _proven(data, position, window_end, byteorder)[:count] if count > _FEW else _NONE
        if starts.size:
            yield starts
            count -= starts.size
            position = int(starts[-1])
            position += 8 + string_length(data, position, byteorder)
        singly, position = _one_by_one(data, position, window_end, count, byteorder)
        if not singly and not starts.size:
            return
        if singly:
            yield np.array(singly, np.int64)
            count -= len(singly)


def _one_by_one(
    data: Buffer, position: int, window_end: int, count: int, byteorder: ByteOrder
) -> tuple[list[int], int]:
    """At most `count` strings that start before `window_end`, and the position after them."""
    unpack, size = _LENGTH[byteorder].unpack_from, len(data)
    starts: list[int] = []
    while len(starts) < count and position < window_end and position + 8 <= size:
        (length,) = unpack(data, position)
        after = position + 8 + length
        if length > MAX_STRING_BYTES or after > size:
            break
        starts.append(position)
        position = after
    return starts, position


def _proven(data: Buffer, position: int, window_end: int, byteorder: ByteOrder) -> NDArray[np.int64]:
    """The first strings of a window, as many as guesses hold for: none if `position` is not among them.

    ::

        little endian    t  t  L 00 00 00 00 00 00 00 t  t      L below 256, text without zeros
        big endian       t  t 00 00 00 00 00 00 00 L  t  t
                                 └ aligned ┘

    Among the seven zero bytes of a length exactly one aligned 32-bit word is all zeros.  The highest
    byte that is set in the word before it (after it, in big endian) is the length.  That is the guess;
    the proof is that each string ends where the next one starts.
    """
    mark = ORDER_MARK[byteorder]
    base = max(position - 4, 0) & ~3
    n_words = (window_end - base) // 4
    if n_words < 3:
        return _NONE
    words: NDArray[np.uint32] = np.ndarray(n_words, mark + "u4", data, base)
    zeros = np.flatnonzero(words[1:-1] == 0) + 1
    neighbours = words[zeros - 1 if byteorder == "little" else zeros + 1]
    top = (neighbours > 0xFF).view(np.int8) + (neighbours > 0xFFFF) + (neighbours > 0xFFFFFF)
    starts = 4 * zeros + (top - 4 if byteorder == "little" else -top)
    starts = starts[np.searchsorted(starts, position - base) :]
    if not starts.size or starts[0] != position - base:
        return _NONE

    lengths = np.ndarray(4 * n_words - 7, mark + "i8", data, base, (1,))[starts]
    gaps = np.diff(starts) - 8
    holds = (gaps == lengths[:-1]) & (gaps >= 0)
    n_proven = holds.size if holds.all() else int(holds.argmin())
    return starts[:n_proven] + base


class StringArray(Sequence[str]):
    """The strings of a metadata array, decoded when they are asked for.

    Bytes that are not UTF-8 become lone surrogates (`errors="surrogateescape"`), which encode back to
    the same bytes; `raw` gives the bytes themselves.

    >>> from kquant.gguf import GGUFValueType, Metadata
    >>> md = Metadata()
    >>> md.set("tokens", ["<s>", "the"], GGUFValueType.ARRAY, element_type=GGUFValueType.STRING)
    >>> len(md["tokens"]), md["tokens"][1], md["tokens"].raw(0), list(md["tokens"])
    (2, 'the', b'<s>', ['<s>', 'the'])
    """

    __slots__ = ("_byteorder", "_count", "_payload", "_starts")

    def __init__(self, payload: Buffer, count: int, byteorder: ByteOrder) -> None:
        self._payload = payload
        self._count = count
        self._byteorder = byteorder
        self._starts: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        return _text(self.raw(index))

    def __iter__(self) -> Iterator[str]:
        return map(_text, self.iter_raw())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StringArray):
            return len(self) == len(other) and all(map(bytes.__eq__, self.iter_raw(), other.iter_raw()))
        if isinstance(other, list | tuple):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return StringArray, (bytes(self._payload), self._count, self._byteorder)  # memory maps stay here

    def __repr__(self) -> str:
        head = ", ".join(map(repr, self[:3]))
        return f"StringArray([{head}{', …' if self._count > 3 else ''}], {self._count} strings)"

    def raw(self, index: int) -> bytes:
        """The bytes of one string."""
        index = range(self._count)[index]
        if self._starts is None:
            pieces = list(string_starts(self._payload, 0, self._count, self._byteorder))
            self._starts = np.concatenate(pieces)
        start = int(self._starts[index])
        return bytes(self._payload[start + 8 : start + 8 + self._length(start)])

    def iter_raw(self) -> Iterator[bytes]:
        """The bytes of each string."""
        for starts in string_starts(self._payload, 0, self._count, self._byteorder):
            begin, last = int(starts[0]), int(starts[-1])
            end = last + 8 + self._length(last)
            piece = bytes(self._payload[begin:end])
            edges = [*(starts - begin).tolist(), end - begin]
            for start, next_start in pairwise(edges):
                yield piece[start + 8 : next_start]

    def _length(self, start: int) -> int:
        return string_length(self._payload, start, self._byteorder)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
