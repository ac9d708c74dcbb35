"""The vocabulary of a GGUF file: what its metadata says, checked, with llama.cpp's defaults.

https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp (`llama_vocab::impl::load`)
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from kquant.errors import GGUFError, UnsupportedTypeError
from kquant.gguf import Metadata
from kquant.tokenizers.pretokenizers import PRE_TOKENIZERS, PreTokenizer

__all__ = [
    "BYTE",
    "CONTROL",
    "NORMAL",
    "UNKNOWN",
    "UNUSED",
    "USER_DEFINED",
    "Facts",
    "Vocabulary",
]

_PREFIX: Final = "tokenizer.ggml."
SPM, BPE, WORDPIECE, UNIGRAM = "llama", "gpt2", "bert", "t5"

# the values of `tokenizer.ggml.token_type`
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_MODELS: Final = {
    # name -> algorithm, bos, eos, unk, sep, pad, mask where the file does not say
    "llama": (SPM, 1, 2, 0, None, None, None),
    "gpt2": (BPE, 11, 11, None, None, None, None),
    "gemma4": (BPE, None, None, None, None, None, None),
    "whitespace": (BPE, 11, 11, None, None, None, None),
    "bert": (WORDPIECE, 101, None, 100, 102, 0, 103),
    "t5": (UNIGRAM, None, 1, 2, None, 0, None),
}

_ID_KEYS: Final = {
    "bos": ("bos",),
    "eos": ("eos",),
    "eot": ("eot",),
    "eom": ("eom",),
    "unk": ("unknown",),
    "sep": ("seperator",),  # as GGUF spells it
    "pad": ("padding",),
    "cls": ("cls",),
    "mask": ("mask",),
    "fim_pre": ("fim_pre", "prefix"),
    "fim_suf": ("fim_suf", "suffix"),
    "fim_mid": ("fim_mid", "middle"),
    "fim_pad": ("fim_pad",),
    "fim_rep": ("fim_rep",),
    "fim_sep": ("fim_sep",),
}
"""Name of a special token -> its keys, without `_token_id`; the last one that the file has counts."""

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


@dataclass(frozen=True, slots=True)
class _Reader:
    """Typed values of the metadata; raises `GGUFError` for any other type."""

    metadata: Metadata

    def text(self, key: str) -> str | None:
        if key not in self.metadata:
            return None
        if (found := self.metadata.type_of(key)) != GGUFValueType.STRING:
            raise GGUFError(f"metadata key {key!r}: expected STRING, got {found.name}")
        value: str = self.metadata[key]
        return value

    def flag(self, key: str, default: bool) -> bool:
        if key not in self.metadata:
            return default
        if (found := self.metadata.type_of(key)) != GGUFValueType.BOOL:
            raise GGUFError(f"metadata key {key!r}: expected BOOL, got {found.name}")
        return bool(self.metadata[key])

    def integer(self, key: str) -> int | None:
        if key not in self.metadata:
            return None
        if (found := self.metadata.type_of(key)) not in _INTEGERS:
            raise GGUFError(f"metadata key {key!r}: expected an integer, got {found.name}")
        return int(self.metadata[key])

    def array(self, key: str, *types: GGUFValueType) -> Any:
        """The elements of an array; None if there is no such key."""
        if key not in self.metadata:
            return None
        if (found := self.metadata.array_type_of(key)) not in types:
            names = " or ".join(each.name for each in types)
            raise GGUFError(f"metadata key {key!r}: expected an array of {names}, got one of {found.name}")
        return self.metadata[key]


_INTEGERS: Final = {
    getattr(GGUFValueType, f"{sign}INT{bits}") for sign in ("U", "") for bits in (8, 16, 32, 64)
}


class Facts:
    """What the keys say, without the tokens: read at once, when a file is opened.

    Raises `GGUFError` for keys that are missing or of another type, `UnsupportedTypeError` for kinds of
    vocabularies that kquant does not know.
    """

    def __init__(self, metadata: Metadata) -> None:
        self._read = read = _Reader(metadata)
        model = read.text(f"{_PREFIX}model")
        if model is None or model in ("none", "no_vocab"):
            raise GGUFError(f"metadata key {_PREFIX + 'model'!r}: expected a vocabulary, got none")
        if model not in _MODELS:
            raise UnsupportedTypeError(
                f"metadata key {_PREFIX + 'model'!r}: expected one of {', '.join(_MODELS)}, got {model!r}"
            )
        self.model = model
        self.algorithm, *defaults = _MODELS[model]
        self.pre = read.text(f"{_PREFIX}pre")
        self.pre_tokenizer: PreTokenizer | None = None
        if self.algorithm == BPE:
            self.pre_tokenizer = self._pre_tokenizer()
        tokens = read.array(f"{_PREFIX}tokens", GGUFValueType.STRING)
        if not tokens:
            raise GGUFError(f"metadata key {_PREFIX + 'tokens'!r}: expected the texts of tokens, got none")
        self.n_vocab = len(tokens)
        self.ids = self._ids(dict(zip(("bos", "eos", "unk", "sep", "pad", "mask"), defaults, strict=True)))
        self.chat_template = read.text("tokenizer.chat_template")
        self._flags()

    def _pre_tokenizer(self) -> PreTokenizer:
        name = "gemma4" if self.model == "gemma4" else self.pre or "default"
        if name not in PRE_TOKENIZERS:
            raise UnsupportedTypeError(
                f"metadata key {_PREFIX + 'pre'!r}: expected one of {', '.join(sorted(PRE_TOKENIZERS))}, "
                f"got {name!r}"
            )
        return PRE_TOKENIZERS[name]

    def _flags(self) -> None:
        read, pre = self._read, self.pre_tokenizer
        self.add_bos = read.flag(
            f"{_PREFIX}add_bos_token", pre.add_bos if pre else self.algorithm in (SPM, WORDPIECE)
        )
        # llama.cpp adds one to Gemma 4's prompts whatever the file says
        self.add_bos |= bool(pre and pre.always_bos)
        self.add_eos = read.flag(f"{_PREFIX}add_eos_token", self.algorithm == UNIGRAM)
        self.add_space_prefix = read.flag(f"{_PREFIX}add_space_prefix", self.algorithm == SPM)
        self.merge_spaces = read.flag(f"{_PREFIX}remove_extra_whitespaces", False)
        self.lowercase = read.flag(f"{_PREFIX}normalizer.lowercase", self.model != "whitespace")
        self.strip_accents = read.flag(f"{_PREFIX}normalizer.strip_accents", self.lowercase)
        wanted = [("bos", self.add_bos), ("eos", self.add_eos)]
        if self.algorithm == WORDPIECE:
            wanted = [("bos", True), ("sep", True)]
        for name, adds in wanted:
            if adds and self.ids[name] is None:
                raise GGUFError(
                    f"metadata: expected an id for the {name} token that is added to texts, got none"
                )

    def _ids(self, defaults: Mapping[str, int | None]) -> dict[str, int | None]:
        """Ids of special tokens; as in llama.cpp, one beyond the vocabulary counts as not given."""
        ids: dict[str, int | None] = {}
        for name, keys in _ID_KEYS.items():
            found = defaults.get(name)
            if name == "bos" and self.pre_tokenizer and not self.pre_tokenizer.has_bos:
                found = None
            given = [self._read.integer(f"{_PREFIX}{key}_token_id") for key in keys]
            for each in [found, *given]:
                if each is not None and 0 <= each < self.n_vocab:
                    ids[name] = each
            ids.setdefault(name, None)
        return ids


class Vocabulary:
    """The tokens of a file, checked.

    Raises `GGUFError` for texts that are not UTF-8 or occur twice, and for arrays that do not fit.
    """

    def __init__(self, metadata: Metadata, facts: Facts) -> None:
        self.facts = facts
        self._read = read = _Reader(metadata)
        key = f"{_PREFIX}tokens"
        self.tokens = _decoded(key, read.array(key, GGUFValueType.STRING))
        for index in (i for i, text in enumerate(self.tokens) if not text):
            self.tokens[index] = f"[EMPTY_{index}]"  # llama.cpp's name for it
        self.id_of = dict(zip(self.tokens, range(len(self.tokens)), strict=True))
        if len(self.id_of) < len(self.tokens):
            index = next(i for i, text in enumerate(self.tokens) if self.id_of[text] != i)
            raise GGUFError(
                f"metadata key {key!r}: expected unique tokens, got {self.tokens[index]!r} as {index} "
                f"and as {self.id_of[self.tokens[index]]}"
            )
        self.types = self._types()
        self.kinds = self.types.copy()
        """The types as llama.cpp corrects them by the texts."""
        self.ids, self.end_ids = self._special_tokens()

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """The score of each token."""
        key = f"{_PREFIX}scores"
        scores = self._read.array(key, GGUFValueType.FLOAT32, GGUFValueType.INT32)
        if scores is None:
            return np.zeros(len(self.tokens), np.float32)
        scores = self._fitting(key, scores).astype(np.float32)
        if (wrong := np.isnan(scores)).any():
            raise GGUFError(f"metadata key {key!r}: expected numbers, got NaN for token {wrong.argmax()}")
        return scores

    def merges(self) -> list[tuple[str, str]]:
        """The pairs that byte pair encoding merges, the first one first; none twice."""
        key = f"{_PREFIX}merges"
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
        key = f"{_PREFIX}precompiled_charsmap"
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
        key = f"{_PREFIX}token_type"
        types = self._read.array(key, GGUFValueType.INT32)
        if types is None:
            return np.full(len(self.tokens), NORMAL, np.int32)
        types = self._fitting(key, types)
        for index in np.flatnonzero(types == BYTE):
            if not re.fullmatch("<0x[0-9A-Fa-f]{2}>", self.tokens[index]):
                raise GGUFError(
                    f"metadata key {_PREFIX + 'tokens'!r}: token {index}: expected a byte as <0x0A>, "
                    f"got {self.tokens[index]!r}"
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
