"""Options by the names that the command has for them: the library speaks of keyword arguments."""

from __future__ import annotations

import re

__all__ = ["by_option"]

_KEYWORDS = (
    "exclude_weights|file_types|include_weights|keep_split|leave_output_tensor|output_tensor_type|override_kv|"
    "prune_layers|tensor_types|token_embedding_type"
)
_FIRST_WORDS = "imatrix|pure|rows|tensors|threads|types"


def by_option(text: str) -> str:
    """A sentence of the library's with the options of the command in the place of keyword arguments.

    >>> by_option("tensor_types: 'atn' matches no tensor"), by_option("the types: 3")
    ("--tensor-type: 'atn' matches no tensor", 'the types: 3')
    """

    def option(found: re.Match[str]) -> str:
        return "--tensor-type" if found[0] == "tensor_types" else "--" + found[0].replace("_", "-")

    return re.sub(rf"\b({_KEYWORDS})\b|^({_FIRST_WORDS})(?=: )", option, text)
