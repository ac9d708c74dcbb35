"""Byte pair encoding (`gpt2`): words, spelled in bytes, whose neighbours merge in the order of a list.

The merging is that of the library `tokenizers`, which is exact; how text is cut into words is not, and is
kquant's own (`kquant.tokenizers.pretokenizers`).
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp (`llm_tokenizer_bpe_session`)
"""

from __future__ import annotations

import re
import reprlib
from typing import TYPE_CHECKING, Final

from kquant.errors import GGUFError, MissingDependencyError
from kquant.tokenizers.pretokenizers import PreTokenizer
from kquant.tokenizers.unicode import WHITESPACE
from kquant.tokenizers.vocabulary import Vocabulary
from kquant.tokenizers.words import Words, byte_ids

if TYPE_CHECKING:
    from tokenizers import models

__all__ = ["BYTE_OF_LETTER", "LETTERS", "BytePairs"]


def _letters() -> str:
    """GPT-2's alphabet: a printable character for each byte, itself where it is one.

    https://github.com/openai/gpt-2/blob/master/src/encoder.py (`bytes_to_unicode`)
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


LETTERS: Final = _letters()
"""The letter of each byte."""
BYTE_OF_LETTER: Final = {letter: byte for byte, letter in enumerate(LETTERS)}
_SPELL: Final = dict(enumerate(LETTERS))


class BytePairs:
    """Text -> ids.

    Raises `MissingDependencyError` without the library `tokenizers`, `GGUFError` for merges that do not fit
    the vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary, pre_tokenizer: PreTokenizer) -> None:
        self._pre = pre_tokenizer
        self._id_of = vocabulary.id_of
        self._drops_spaces = vocabulary.facts.model == "whitespace"
        self._lowercase = self._drops_spaces and vocabulary.facts.lowercase
        self._bytes = byte_ids(self._id_of, unknown=None, or_character=False)
        self._merge = _library_model(self._id_of, vocabulary.merges())
        if pre_tokenizer.byte_level:
            missing = "".join(letter for letter in LETTERS if letter not in self._id_of)
            self._unknown = re.compile(f"([{re.escape(missing)}])") if missing else None
        self._words = Words(self._word)

    def encode(self, text: str) -> list[int]:
        """The ids of a text without special tokens."""
        ids: list[int] = []
        words = self._words
        if self._pre.escape_spaces:
            text = text.replace(" ", "▁")
        for piece in self._pieces(text):
            for word in self._pre.words(piece):
                ids += words[word]
        return ids

    def _pieces(self, text: str) -> list[str]:
        if not self._drops_spaces:
            return [text]
        if self._lowercase:
            text = "".join(letter.lower()[0] for letter in text)
        return text.translate(dict.fromkeys(WHITESPACE, " ")).split(" ")

    def _word(self, word: str) -> tuple[int, ...]:
        pre = self._pre
        if pre.byte_level:
            word = word.encode().decode("latin-1").translate(_SPELL)
        is_whole = pre.ignore_merges or (pre.always_bos and not word.strip("\n"))  # Gemma 4: newlines
        if is_whole and (found := self._id_of.get(word)) is not None:
            return (found,)
        if pre.byte_level:
            parts = [word] if self._unknown is None else self._unknown.split(word)[::2]
            return tuple(token.id for part in parts for token in self._merge.tokenize(part))
        return self._characters(word)

    def _characters(self, word: str) -> tuple[int, ...]:
        """As it is without the alphabet of bytes: a character that is no token becomes its bytes."""
        ids: list[int] = []
        start = 0
        unknown = {letter for letter in set(word) if letter not in self._id_of}
        for at, letter in enumerate(word if unknown else ""):
            if letter in unknown:
                ids += (token.id for token in self._merge.tokenize(word[start:at]))
                for byte in letter.encode():
                    ids += self._bytes[byte]
                start = at + 1
        ids += (token.id for token in self._merge.tokenize(word[start:]))
        return tuple(ids)


def _library_model(id_of: dict[str, int], merges: list[tuple[str, str]]) -> models.BPE:
    try:
        from tokenizers import models
    except ImportError:
        raise MissingDependencyError(
            "not installed, but needed for byte pair encoding: tokenizers (the extra `run` of kquant-gguf)"
        ) from None
    try:
        return models.BPE(id_of, merges)
    except Exception as error:  # the library raises nothing more specific
        for index, (first, second) in enumerate(merges):
            for part in (first, second, first + second):
                if part not in id_of:
                    raise GGUFError(
                        f"metadata key 'tokenizer.ggml.merges': merge {index}: expected tokens of the "
                        f"vocabulary, got {reprlib.repr(part)}"
                    ) from None
        raise GGUFError(f"metadata key 'tokenizer.ggml.merges': {error}") from None
