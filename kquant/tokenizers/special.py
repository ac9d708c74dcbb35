"""Special tokens in a text: where they are, and what lies between them.

https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp (`tokenizer_st_partition`)
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kquant.gguf import Metadata
from kquant.tokenizers.vocabulary import CONTROL, UNKNOWN, USER_DEFINED, Vocabulary

__all__ = ["SpecialTokens"]

_C_SPACES: Final = " \t\n\v\f\r"


class SpecialTokens:
    """The tokens that are found in a text before it is cut into words."""

    def __init__(self, vocabulary: Vocabulary, metadata: Metadata) -> None:
        tokens, kinds = vocabulary.tokens, vocabulary.kinds
        found = np.flatnonzero(np.isin(kinds, (CONTROL, USER_DEFINED, UNKNOWN))).tolist()
        # the longest first, wherever they are: as llama.cpp looks for them
        found.sort(key=lambda id: len(tokens[id].encode()), reverse=True)
        self._all = [(tokens[id], id) for id in found]
        self._shown = [(tokens[id], id) for id in found if kinds[id] == USER_DEFINED]
        self._strips_before, self._strips_after = _stripping(vocabulary, metadata, found)

    def fragments(self, text: str, parse_special: bool) -> list[str | int]:
        """Pieces of text, none of them empty, and ids of special tokens between them."""
        fragments: list[str | int] = [text] if text else []
        for token, id in self._all if parse_special else self._shown:
            if token in text:
                fragments = [part for each in fragments for part in self._cut(each, token, id)]
        return fragments

    def _cut(self, fragment: str | int, token: str, id: int) -> list[str | int]:
        if isinstance(fragment, int) or token not in fragment:
            return [fragment]
        parts: list[str | int] = []
        before, *others = fragment.split(token)
        for other in others:
            if id in self._strips_before:
                before = before.rstrip(_C_SPACES)
            parts += [before, id] if before else [id]
            before = other.lstrip(_C_SPACES) if id in self._strips_after else other
        return [*parts, before] if before else parts


def _stripping(vocabulary: Vocabulary, metadata: Metadata, special: list[int]) -> tuple[set[int], set[int]]:
    """The tokens that take the white space before them, and those that take what follows.

    GGUF does not say; llama.cpp goes by the names of models.
    """
    find = vocabulary.id_of.get
    pre = vocabulary.facts.pre or ""
    name = str(metadata.get("general.name", "")).lower()
    architecture = str(metadata.get("general.architecture", ""))
    before: set[int | None] = set()
    after: set[int | None] = set()
    if any(each in pre for each in ("jina-v2-de", "jina-v2-es", "jina-v2-code")) or any(
        each in architecture for each in ("nomic-bert-moe", "jina-bert-v3")
    ):
        before = {find("<mask>")}
    elif "phi-3" in name or "phi3" in name:
        after = {*special, find("</s>")} - {find("<unk>"), find("<s>"), find("<|endoftext|>")}
    elif "modern-bert" in name:
        before = {find("[MASK]")}
    return {id for id in before if id is not None}, {id for id in after if id is not None}
