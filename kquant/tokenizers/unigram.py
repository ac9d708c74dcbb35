"""SentencePiece's unigram model (`t5`): of all ways to cut a text the one with the highest sum of scores.

https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp (`llm_tokenizer_ugm_session`)
"""

from __future__ import annotations

from bisect import bisect
from typing import Final

import numpy as np

from kquant.errors import GGUFError
from kquant.tokenizers.vocabulary import NORMAL, UNUSED, USER_DEFINED, Vocabulary

__all__ = ["CharsMap", "Unigrams"]

_UNKNOWN_PENALTY: Final = 10.0
_STEM: Final = 2
"""Characters by which tokens are looked up: the lengths of those that begin so."""


class Unigrams:
    """Text -> ids.

    Raises `GGUFError` for a table of normalizations that is malformed, and if no token stands for what is
    unknown.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        facts = vocabulary.facts
        if (unknown := vocabulary.ids["unk"]) is None:
            raise GGUFError("metadata: expected an id for unknown characters, got none")
        self._unknown = unknown
        self._prefix, self._merge_spaces = facts.add_space_prefix, facts.merge_spaces
        types, scores = vocabulary.types, vocabulary.scores.astype(np.float64)
        normal = scores[types == NORMAL]
        lowest = normal.min() if normal.size else np.finfo(np.float32).max
        # computed in float32, as llama.cpp does
        self._unknown_score = float(np.float32(lowest) - np.float32(_UNKNOWN_PENALTY))
        scores[types == USER_DEFINED] = 0.0
        usable = np.flatnonzero(np.isin(types, (NORMAL, USER_DEFINED, UNUSED))).tolist()
        tokens = vocabulary.tokens
        self._pieces = {
            tokens[i]: (i, score) for i, score in zip(usable, scores[usable].tolist(), strict=True)
        }
        lengths: dict[str, set[int]] = {}
        for token in self._pieces:
            lengths.setdefault(token[:_STEM], set()).add(len(token))
        self._lengths = {stem: sorted(each) for stem, each in lengths.items()}
        self._own = sorted(tokens[i] for i in np.flatnonzero(types == USER_DEFINED))
        self._own_begin = {token[0] for token in self._own}
        self._own_longest = max(map(len, self._own), default=0)
        self._map = CharsMap(vocabulary.charsmap())

    def encode(self, text: str) -> list[int]:
        """The ids of a text without special tokens."""
        text = self.normalized(text)
        n = len(text)
        best = [-np.inf] * (n + 1)
        best[0] = 0.0
        token, start_of = [self._unknown] * (n + 1), [0] * (n + 1)
        pieces, lengths = self._pieces, self._lengths
        for start in range(n):
            score = best[start]
            is_known = False
            stem = text[start : start + _STEM]
            for length in (*lengths.get(stem[0], ()), *(lengths.get(stem, ()) if len(stem) > 1 else ())):
                if (found := pieces.get(text[start : start + length])) is None or start + length > n:
                    continue
                is_known |= length == 1
                total = score + found[1]
                if total > best[start + length]:
                    best[start + length], token[start + length], start_of[start + length] = (
                        total,
                        found[0],
                        start,
                    )
            if not is_known and (total := score + self._unknown_score) > best[start + 1]:
                best[start + 1], token[start + 1], start_of[start + 1] = total, self._unknown, start
        ids: list[int] = []
        end = n
        while end:
            if not (
                ids and ids[-1] == token[end] == self._unknown
            ):  # a run of unknown characters is one token
                ids.append(token[end])
            end = start_of[end]
        return ids[::-1]

    def normalized(self, text: str) -> str:
        """The text as the model sees it: normal forms, spaces as ▁."""
        out: list[str] = []
        in_word = started = False
        at = 0
        while at < len(text):
            if text[at] in self._own_begin:
                normal = self._own_prefix(text[at : at + self._own_longest])
                at += len(normal)
            else:
                normal, at = self._map.normal(text, at)
            for letter in normal:
                if letter != " ":
                    if not in_word:
                        in_word = True
                        if (self._prefix and not started) or self._merge_spaces:
                            out.append("▁")
                            started = True
                    out.append(letter)
                else:
                    in_word = False
                    if not self._merge_spaces:
                        out.append("▁")
        return "".join(out)

    def _own_prefix(self, text: str) -> str:
        """What a text has in common with the beginning of a user-defined token, even if not all of it.

        llama.cpp does not normalize that.  It compares bytes, and may cut a character in two; this does not.
        """
        at = bisect(self._own, text)
        return text[: max(_in_common(text, each) for each in self._own[max(at - 1, 0) : at + 1])]


def _in_common(first: str, second: str) -> int:
    """The number of characters with which both begin."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


class CharsMap:
    """SentencePiece's table of normalizations: a prefix of a text -> what stands for it; the longest counts.

    ::

        u32 size | double array of `size` bytes, u32 each | replacements, each ended by a NUL

    A node of the double array (Kanda 2018) has the base of its children in bits 10 to 30, shifted by 8 if
    bit 9 is set, in bit 8 whether a replacement ends here, and in bits 0 to 7 the byte that leads to it.

    Raises `GGUFError` if it is malformed.
    """

    def __init__(self, data: bytes) -> None:
        self._nodes: list[int] = []
        self._replacements = b""
        if not data:
            return
        size = int.from_bytes(data[:4], "little")
        if len(data) <= 4 or 4 + size >= len(data) or size % 4:
            raise GGUFError(
                f"metadata key 'tokenizer.ggml.precompiled_charsmap': expected a table of less than "
                f"{max(len(data) - 4, 0)} bytes, got one of {size}"
            )
        self._nodes = np.frombuffer(data, "<u4", size // 4, 4).tolist()
        self._replacements = data[4 + size :]

    def normal(self, text: str, at: int) -> tuple[str, int]:
        """What stands for the longest known prefix of the text from `at`, and where it ends."""
        nodes = self._nodes
        longest, value = 0, 0
        node = self._base(0) if nodes else 0
        position = at
        while nodes and position < len(text):
            for byte in text[position].encode():
                node ^= byte
                if not byte or self._node(node) & 0x800000FF != byte:
                    break
                ends_here = self._node(node) >> 8 & 1
                node ^= self._base(node)
            else:
                position += 1
                if ends_here:
                    longest, value = position, self._node(node) & 0x7FFFFFFF
                continue
            break
        if not longest:
            return text[at], at + 1
        end = self._replacements.find(b"\0", value)
        if end < 0:
            raise _malformed("a replacement that ends")
        return self._replacements[value:end].decode("utf-8", "replace"), longest

    def _node(self, index: int) -> int:
        try:
            return self._nodes[index]
        except IndexError:
            raise _malformed(f"less than {len(self._nodes)} nodes") from None

    def _base(self, index: int) -> int:
        packed = self._node(index)
        return (packed >> 10) << ((packed & 0x200) >> 6)


def _malformed(expected: str) -> GGUFError:
    return GGUFError(
        f"metadata key 'tokenizer.ggml.precompiled_charsmap': expected {expected}, got a loose end"
    )
