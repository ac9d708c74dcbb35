"""`LlamaGrammar`: a form that the text keeps to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kquant.runtime.constraints import Constraint
    from kquant.runtime.language_model import LanguageModel

__all__ = ["LlamaGrammar"]


class LlamaGrammar:
    """A grammar of llama.cpp (GBNF) or a JSON schema, given as `grammar=`.

    Source: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md

    >>> LlamaGrammar.from_string('root ::= "yes" | "no"')
    LlamaGrammar(gbnf='root ::= "yes" | "no"')
    """

    def __init__(self, *, gbnf: str | None = None, json_schema: Any = None) -> None:
        self._forms = {"gbnf": gbnf, "json_schema": json_schema}

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> LlamaGrammar:
        """From GBNF."""
        return cls(gbnf=grammar)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], verbose: bool = True) -> LlamaGrammar:
        """From a file of GBNF."""
        return cls(gbnf=Path(file).read_text(encoding="utf-8"))

    @classmethod
    def from_json_schema(cls, json_schema: str, verbose: bool = True) -> LlamaGrammar:
        """From a JSON schema, as text."""
        return cls(json_schema=json.loads(json_schema))

    def constraint(self, llm: LanguageModel) -> Constraint:
        """For one text of a model.  Raises `OptionError` if the grammar is wrong."""
        return llm.constraint(**self._forms)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={form!r}" for name, form in self._forms.items() if form is not None)
        return f"LlamaGrammar({given})"
