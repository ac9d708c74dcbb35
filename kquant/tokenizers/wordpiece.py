"""WordPiece (`bert`): words without accents and capitals, each cut into the longest tokens from the left.

https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp (`llm_tokenizer_wpm_session`)
"""

from __future__ import annotations

import unicodedata
from typing import Final

from kquant.errors import GGUFError
from kquant.tokenizers.unicode import WHITESPACE, Kind, kinds
from kquant.tokenizers.vocabulary import Vocabulary
from kquant.tokenizers.words import Words

__all__ = ["WordPieces"]

_IDEOGRAPHS: Final = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)),
    *((0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)


class WordPieces:
    """Text -> ids.  Raises `GGUFError` if the vocabulary has no token for unknown words."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        facts = vocabulary.facts
        self._id_of = vocabulary.id_of
        self._lowercase, self._strip_accents = facts.lowercase, facts.strip_accents
        if (unknown := vocabulary.ids["unk"]) is None:
            raise GGUFError("metadata: expected an id for unknown words, got none")
        self._unknown = (unknown,)
        self._lengths = sorted({len(token) for token in vocabulary.tokens}, reverse=True)
        self._normal: dict[str, str] = {}
        self._words = Words(self._word)

    def encode(self, text: str) -> list[int]:
        """The ids of a text without special tokens."""
        ids: list[int] = []
        words = self._words
        for word in self.words(text):
            ids += words[word]
        return ids

    def words(self, text: str) -> list[str]:
        """The words of a text; a mark of punctuation or a Chinese character is one of its own."""
        normal = self._normal
        if not normal.keys() >= (letters := set(text)):
            normal |= {letter: self._normalized(letter) for letter in letters}
        return "".join([normal[letter] for letter in text]).split(" ")

    def _normalized(self, letter: str) -> str:
        """What stands for a character: " " ends a word, around a character it stands alone."""
        if self._strip_accents:  # as in llama.cpp the first code point, be it of an accent or of a syllable
            letter = unicodedata.normalize("NFD", letter)[0]
        code = ord(letter)
        kind = kinds()[code]
        if code in WHITESPACE:
            return " "
        if code in (0, 0xFFFD) or kind == Kind.CONTROL or (self._strip_accents and kind == Kind.MARK):
            return ""
        shown = letter.lower()[0] if self._lowercase else letter
        alone = kind == Kind.PUNCTUATION or (code < 0x7F and kind == Kind.SYMBOL)
        if alone or any(first <= code <= last for first, last in _IDEOGRAPHS):
            return f" {shown} "
        return shown

    def _word(self, word: str) -> tuple[int, ...]:
        if not word:
            return ()
        word = f"▁{word}"
        ids = []
        start, n = 0, len(word)
        while start < n:
            for length in self._lengths:
                if (
                    start + length <= n
                    and (found := self._id_of.get(word[start : start + length])) is not None
                ):
                    break
            else:
                return self._unknown
            ids.append(found)
            start += length
        return tuple(ids)
