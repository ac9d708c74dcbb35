"""SentencePiece's byte pair encoding (`llama`): neighbours merge to the token with the highest score.

The library `tokenizers` could do it with merges made from the scores, but not exactly: it orders merges by
the pair, SentencePiece by the score alone and then from left to right.
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp (`llm_tokenizer_spm_session`)
"""

from __future__ import annotations

import re
from heapq import heapify, heappop, heappush
from typing import Final

from kquant.tokenizers.vocabulary import Vocabulary
from kquant.tokenizers.words import Words, byte_ids

__all__ = ["ScoredPairs"]

_BETWEEN: Final = "\ud800"
"""Stands in no token, for no text has it."""


class ScoredPairs:
    """Text -> ids."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._id_of = vocabulary.id_of
        # lowest first, as heaps have it
        self._costs: list[float] = (-vocabulary.scores).tolist()
        self._bytes = byte_ids(self._id_of, unknown=vocabulary.ids["unk"], or_character=True)
        # if ▁ follows something else in no token, nothing merges across its left side: words are independent
        across = re.search(f"[^▁{_BETWEEN}]▁", _BETWEEN.join(vocabulary.tokens))
        self._split = re.compile("▁+[^▁]*|[^▁]+" if across is None else r"[\s\S]+")
        self._words = Words(self._word)

    def encode(self, text: str) -> list[int]:
        """The ids of a text without special tokens."""
        ids: list[int] = []
        words = self._words
        for word in self._split.findall(text.replace(" ", "▁")):
            ids += words[word]
        return ids

    def _word(self, word: str) -> tuple[int, ...]:
        id_of, costs, n = self._id_of, self._costs, len(word)
        end = list(range(1, n + 1))  # of the symbol that starts here; 0: there is none any more
        before = list(range(-1, n - 1))  # start of the symbol before the one that starts here
        heap = [
            (costs[found], start, start + 2)
            for start in range(n - 1)
            if (found := id_of.get(word[start : start + 2])) is not None
        ]
        heapify(heap)
        while heap:
            _, start, stop = heappop(heap)
            middle = end[start]
            if not middle or middle == n or end[middle] != stop:  # one of both has merged since
                continue
            end[start], end[middle] = stop, 0
            if stop < n:
                before[stop] = start
                if (found := id_of.get(word[start : end[stop]])) is not None:
                    heappush(heap, (costs[found], start, end[stop]))
            previous = before[start]
            if previous >= 0 and (found := id_of.get(word[previous:stop])) is not None:
                heappush(heap, (costs[found], previous, stop))
        ids: list[int] = []
        start = 0
        while start < n:
            symbol = word[start : end[start]]
            start = end[start]
            if (found := id_of.get(symbol)) is not None:
                ids.append(found)
            else:
                for byte in symbol.encode():
                    ids += self._bytes[byte]
        return tuple(ids)
