"""What the keys of a GGUF file say about its vocabulary, with llama.cpp's defaults for what they do not.

https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp (`llama_vocab::impl::load`)
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gguf import GGUFValueType

from kquant.errors import GGUFError, UnsupportedTypeError
from kquant.gguf import Metadata
from kquant.tokenizers.pretokenizers import PRE_TOKENIZERS, PreTokenizer

__all__ = ["BPE", "PREFIX", "SPM", "UNIGRAM", "WORDPIECE", "Facts", "TypedMetadata"]

PREFIX: Final = "tokenizer.ggml."
SPM, BPE, WORDPIECE, UNIGRAM = "llama", "gpt2", "bert", "t5"

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


@dataclass(frozen=True, slots=True)
class TypedMetadata:
    """Typed values of the metadata; raises `GGUFError` for any other type."""

    metadata: Metadata

    def text(self, key: str) -> str | None:
        """A string; None if there is no such key."""
        if key not in self.metadata:
            return None
        if (found := self.metadata.type_of(key)) != GGUFValueType.STRING:
            raise GGUFError(f"metadata key {key!r}: expected STRING, got {found.name}")
        value: str = self.metadata[key]
        return value

    def flag(self, key: str, default: bool) -> bool:
        """A truth value."""
        if key not in self.metadata:
            return default
        if (found := self.metadata.type_of(key)) != GGUFValueType.BOOL:
            raise GGUFError(f"metadata key {key!r}: expected BOOL, got {found.name}")
        return bool(self.metadata[key])

    def integer(self, key: str) -> int | None:
        """An integer of any width; None if there is no such key."""
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
        self._read = read = TypedMetadata(metadata)
        model = read.text(f"{PREFIX}model")
        if model is None or model in ("none", "no_vocab"):
            raise GGUFError(f"metadata key {PREFIX + 'model'!r}: expected a vocabulary, got none")
        if model not in _MODELS:
            raise UnsupportedTypeError(
                f"metadata key {PREFIX + 'model'!r}: expected one of {', '.join(_MODELS)}, "
                f"got {reprlib.repr(model)}"
            )
        self.model = model
        self.algorithm, *defaults = _MODELS[model]
        self.pre = read.text(f"{PREFIX}pre")
        self.pre_tokenizer: PreTokenizer | None = None
        if self.algorithm == BPE:
            self.pre_tokenizer = self._pre_tokenizer()
        tokens = read.array(f"{PREFIX}tokens", GGUFValueType.STRING)
        if not tokens:
            raise GGUFError(f"metadata key {PREFIX + 'tokens'!r}: expected the texts of tokens, got none")
        self.n_vocab = len(tokens)
        self.ids = self._ids(dict(zip(("bos", "eos", "unk", "sep", "pad", "mask"), defaults, strict=True)))
        self.chat_template = read.text("tokenizer.chat_template")
        self._flags()

    def _pre_tokenizer(self) -> PreTokenizer:
        name = "gemma4" if self.model == "gemma4" else self.pre or "default"
        if name not in PRE_TOKENIZERS:
            raise UnsupportedTypeError(
                f"metadata key {PREFIX + 'pre'!r}: expected one of {', '.join(sorted(PRE_TOKENIZERS))}, "
                f"got {reprlib.repr(name)}"
            )
        return PRE_TOKENIZERS[name]

    def _flags(self) -> None:
        read, pre = self._read, self.pre_tokenizer
        self.add_bos = read.flag(
            f"{PREFIX}add_bos_token", pre.add_bos if pre else self.algorithm in (SPM, WORDPIECE)
        )
        # llama.cpp adds one to Gemma 4's prompts whatever the file says
        self.add_bos |= bool(pre and pre.always_bos)
        self.add_eos = read.flag(f"{PREFIX}add_eos_token", self.algorithm == UNIGRAM)
        self.add_space_prefix = read.flag(f"{PREFIX}add_space_prefix", self.algorithm == SPM)
        self.merge_spaces = read.flag(f"{PREFIX}remove_extra_whitespaces", False)
        self.lowercase = read.flag(f"{PREFIX}normalizer.lowercase", self.model != "whitespace")
        self.strip_accents = read.flag(f"{PREFIX}normalizer.strip_accents", self.lowercase)
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
            given = [self._read.integer(f"{PREFIX}{key}_token_id") for key in keys]
            for each in [found, *given]:
                if each is not None and 0 <= each < self.n_vocab:
                    ids[name] = each
            ids.setdefault(name, None)
        return ids
