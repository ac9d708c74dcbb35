"""Options by the names that the command has for them: the library speaks of keyword arguments."""

from __future__ import annotations

import re

__all__ = ["by_option"]

_KEYWORDS = (
    "cache_type_k|cache_type_v|exclude_weights|file_types|frequency_penalty|include_weights|keep_split|"
    "leave_output_tensor|logit_bias|min_p|output_tensor_type|override_kv|presence_penalty|prune_layers|"
    "repeat_last_n|repeat_penalty|tensor_types|token_embedding_type|top_k|top_p|typical_p"
)
_FIRST_WORDS = "context|gbnf|imatrix|json_schema|pure|rows|seed|stop|temperature|tensors|threads|types"
_NAMES = {
    "context": "--ctx-size",
    "gbnf": "--grammar",
    "stop": "--reverse-prompt",
    "temperature": "--temp",
    "tensor_types": "--tensor-type",
    "typical_p": "--typical",
}
"""Options whose names are not those of the keyword arguments."""


def by_option(text: str) -> str:
    """A sentence of the library's with the options of the command in the place of keyword arguments.

    >>> by_option("tensor_types: 'atn' matches no tensor"), by_option("the types: 3")
    ("--tensor-type: 'atn' matches no tensor", 'the types: 3')
    >>> by_option("temperature: expected a number, got nan"), by_option("top_k: expected an integer")
    ('--temp: expected a number, got nan', '--top-k: expected an integer')
    """

    def option(found: re.Match[str]) -> str:
        return _NAMES.get(found[0]) or "--" + found[0].replace("_", "-")

    return re.sub(rf"\b({_KEYWORDS})\b|^({_FIRST_WORDS})(?=: )", option, text)
