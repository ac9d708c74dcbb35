"""The tokens of a GGUF file, checked; which of them are special, and which end a generation.

https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp (`llama_vocab::impl::load`)
"""

from __future__ import annotations

import re
import reprlib
from functools import cached_property
from typing import Any, Final

import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from kquant.errors import GGUFError
from kquant.gguf import Metadata
from kquant.tokenizers.facts import PREFIX, Facts, TypedMetadata

__all__ = ["BYTE", "CONTROL", "NORMAL", "UNKNOWN", "UNUSED", "USER_DEFINED", "Vocabulary"]

# the values of `tokenizer.ggml.token_type`
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_BY_TEXT: Final = {
    "eot": (
        *(
            "<|eot_id|>",
            "<|im_end|>",
            "<|end|>",
            "<end_of_turn>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<EOT>",
        ),
        *("_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>"),
    ),
    "eom": ("<|eom_id|>",),
    "fim_pre": (
        *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>"),
        *("<|code_prefix|>", "<|prefix|>"),
    ),
    "fim_suf": (
        *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>"),
        *("<|code_suffix|>", "<|suffix|>"),
    ),
    "fim_mid": (
        *("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>"),
        *("<|code_middle|>", "<|middle|>"),
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
"""Name of a special token -> texts that it has where no key names it, the first one first.

Of several llama.cpp takes whichever its hash table has first.
"""

_END_TEXTS: Final = (
    *(
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
    ),
    *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
    *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
)
"""Texts of tokens that end a generation, whatever the keys say."""

_SHOWN_TEXTS: Final = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
"""Texts of control tokens (gpt-oss) that a reader of the output needs to see."""


class Vocabulary:
    """The tokens of a file, checked.

    Raises `GGUFError` for texts that are not UTF-8 or occur twice, and for arrays that do not fit.
    """

    def __init__(self, metadata: Metadata, facts: Facts) -> None:
        self.facts = facts
        self._read = read = TypedMetadata(metadata)
        key = f"{PREFIX}tokens"
        self.tokens = _decoded(key, read.array(key, GGUFValueType.STRING))
        for index in (i for i, text in enumerate(self.tokens) if not text):
            self.tokens[index] = f"[EMPTY_{index}]"  # llama.cpp's name for it
        self.id_of = dict(zip(self.tokens, range(len(self.tokens)), strict=True))
        if len(self.id_of) < len(self.tokens):
            index = next(i for i, text in enumerate(self.tokens) if self.id_of[text] != i)
            text = self.tokens[index]
            raise GGUFError(
                f"metadata key {key!r}: expected unique tokens, got {reprlib.repr(text)} as {index} "
                f"and as {self.id_of[text]}"
            )
        self.types = self._types()
        self.kinds = self.types.copy()
        """The types as llama.cpp corrects them by the texts."""
        self.ids, self.end_ids = self._special_tokens()

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """The score of each token."""
        key = f"{PREFIX}scores"
        scores = self._read.array(key, GGUFValueType.FLOAT32, GGUFValueType.INT32)
        if scores is None:
            return np.zeros(len(self.tokens), np.float32)
        scores = self._fitting(key, scores).astype(np.float32)
        if (wrong := np.isnan(scores)).any():
            raise GGUFError(f"metadata key {key!r}: expected numbers, got NaN for token {wrong.argmax()}")
        return scores

    def merges(self) -> list[tuple[str, str]]:
        """The pairs that byte pair encoding merges, the first one first; none twice."""
        key = f"{PREFIX}merges"
        array = self._read.array(key, GGUFValueType.STRING)
        if array is None:
            if self.facts.pre == "kimi-k2":
                return []
            raise GGUFError(f"metadata key {key!r}: expected the merges of the vocabulary, got none")
        texts = dict.fromkeys(_decoded(key, array))
        pairs = []
        for text in texts:
            first, _, second = text.partition(" ")
            if not first:  # the first one begins with a space
                first, _, second = text[1:].partition(" ")
                first = f" {first}"
            pairs.append((first, second))
        return pairs

    def charsmap(self) -> bytes:
        """SentencePiece's table of normalizations, empty if there is none."""
        key = f"{PREFIX}precompiled_charsmap"
        array = self._read.array(key, GGUFValueType.INT8, GGUFValueType.UINT8)
        return b"" if array is None else array.tobytes()

    def _fitting(self, key: str, array: NDArray[Any]) -> NDArray[Any]:
        if len(array) < len(self.tokens):
            raise GGUFError(
                f"metadata key {key!r}: expected {len(self.tokens)} elements, as many as tokens, "
                f"got {len(array)}"
            )
        return array[: len(self.tokens)]

    def _types(self) -> NDArray[np.int32]:
        key = f"{PREFIX}token_type"
        types = self._read.array(key, GGUFValueType.INT32)
        if types is None:
            return np.full(len(self.tokens), NORMAL, np.int32)
        types = self._fitting(key, types)
        for index in np.flatnonzero(types == BYTE):
            if not re.fullmatch("<0x[0-9A-Fa-f]{2}>", self.tokens[index]):
                raise GGUFError(
                    f"metadata key {PREFIX + 'tokens'!r}: token {index}: expected a byte as <0x0A>, "
                    f"got {reprlib.repr(self.tokens[index])}"
                )
        fitting: NDArray[np.int32] = types
        return fitting

    def _special_tokens(self) -> tuple[dict[str, int | None], frozenset[int]]:
        """Ids by name, and the tokens that end a generation; corrects the kinds of tokens."""
        ids, find = dict(self.facts.ids), self.id_of.get
        for name, texts in _BY_TEXT.items():
            if ids[name] is None:
                ids[name] = next((found for text in texts if (found := find(text)) is not None), None)
                if ids[name] is not None:
                    self.kinds[ids[name]] = CONTROL
        ends = {text: found for text in _END_TEXTS if (found := find(text)) is not None}
        self.kinds[list(ends.values())] = CONTROL
        for text in _SHOWN_TEXTS:
            if (found := find(text)) is not None:
                self.kinds[found] = USER_DEFINED
        named = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
        ends |= {self.tokens[found]: found for name in named if (found := ids[name]) is not None}
        # harmony and Solar end a part of a message with <|end|>, and the message with others
        calls, returns = {"<|call|>", "<|calls|>"} & set(ends), {"<|return|>", "<|flush|>"} & set(ends)
        if "<|end|>" in ends and calls and returns:
            self.kinds[ends.pop("<|end|>")] = USER_DEFINED
        if "</s>" in ends and {"<|tool_response>", "<|plamo:eos|>"} & set(ends):
            self.kinds[ends.pop("</s>")] = NORMAL  # in Gemma 4 it is markup like any other
        return ids, frozenset(ends.values())


def _decoded(key: str, array: Any) -> list[str]:
    raw = list(array.iter_raw())
    try:
        return [text.decode() for text in raw]
    except UnicodeDecodeError:
        index = next(i for i, text in enumerate(raw) if not _is_utf8(text))
        shown = reprlib.repr(raw[index])
        raise GGUFError(f"metadata key {key!r}: element {index}: expected UTF-8, got {shown}") from None


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
