"""What `kquant run` is asked for, and the answer as it grows."""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import kquant
from kquant.cli import show
from kquant.cli.signals import Postponed
from kquant.errors import OptionError

if TYPE_CHECKING:
    from kquant.runtime.language_model import LanguageModel
    from kquant.runtime.sampling import Sampling

__all__ = ["Answer", "Asked", "logit_bias", "unescaped"]

BATCH = 256
"""Tokens of a prompt that are read before a signal is answered."""

SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical": "typical_p",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
"""llama.cpp's options and the fields of `kquant.Sampling`."""

ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}


def logit_bias(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[int, float]:
    """ID+BIAS or ID-BIAS, as llama.cpp writes them: `15043+1`, `15043-1.5`, `15043-inf`.

    A usage error for anything else.
    """
    biases = {}
    for value in values:
        found = re.fullmatch(r"([0-9]{1,9})([+-](?:[0-9]+\.?[0-9]*|\.[0-9]+|inf))", value)
        if not found:
            raise click.BadParameter(
                f"expected ID+BIAS or ID-BIAS, such as 15043+1 or 15043-inf, got {value!r}"
            )
        biases[int(found[1])] = float(found[2])
    return biases


@dataclass(frozen=True)
class Asked:
    """The options of the command."""

    prompt: str | None
    file: Path | None
    interactive: bool
    is_chat: bool
    system: str | None
    template: str | None
    max_tokens: int | None
    context: int | None
    threads: int | None
    cache_type_k: str
    cache_type_v: str
    slide: bool
    stop: tuple[str, ...]
    form: dict[str, str]
    """What the text keeps to: `json_schema` or `gbnf`; empty for nothing."""
    sampling: Sampling
    seed: int
    shows_timings: bool
    as_json: bool

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Asked:
        """What the command line says, checked before a model is loaded.

        Raises `click.UsageError`, `OptionError`, and `OSError` if a template cannot be read.
        """
        given = dict(options)
        if given["prompt"] is not None and given["file"] is not None:
            raise click.UsageError("--prompt and --file exclude each other")
        if given["interactive"] and given["as_json"]:
            raise click.UsageError("--interactive and --json exclude each other")
        given["form"] = _form(given)
        settings = {SAMPLING[key]: given.pop(key) for key in SAMPLING}
        settings = {key: value for key, value in settings.items() if value is not None}
        if given["seed"] == -1:
            given["seed"] = secrets.randbits(32)
        if not given.pop("no_escape"):
            given["prompt"], given["system"] = map(unescaped, (given["prompt"], given["system"]))
            given["stop"] = tuple(map(unescaped, given["stop"]))
        file = given.pop("template_file")
        given["template"] = None if file is None else show.read_text(file)
        given["is_chat"] |= given["system"] is not None or file is not None
        given["max_tokens"] = None if given["max_tokens"] < 0 else given["max_tokens"]
        given["context"] = given["context"] or None
        given["shows_timings"] = not (given.pop("no_perf") or given["as_json"])
        bias = given.pop("logit_bias")
        given["sampling"] = kquant.Sampling(**settings, logit_bias=bias, seed=given["seed"])
        return cls(**given)

    def text(self) -> str | None:
        """The prompt, unless it is still to be typed or read from standard input."""
        return self.prompt if self.file is None else show.read_text(self.file).removesuffix("\n")

    def messages(self, prompt: str) -> list[dict[str, Any]]:
        """The first messages of a conversation."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": prompt}]


def _form(given: dict[str, Any]) -> dict[str, str]:
    """Takes the options of constraints away and says what they mean."""
    forms = []
    for option, name in (("json_schema", "json_schema"), ("grammar", "gbnf")):
        text, file = given.pop(option), given.pop(f"{option}_file")
        forms += [] if text is None else [(name, text)]
        forms += [] if file is None else [(name, show.read_text(file))]
    if len(forms) > 1:
        raise click.UsageError(
            "--json-schema, --json-schema-file, --grammar and --grammar-file exclude each other"
        )
    return dict(forms)


def unescaped(text: Any) -> Any:
    r"""A text of the command line in which \n is a new line, as in llama.cpp.

    >>> unescaped(r"a\nb \\n \d"), unescaped(None)
    ('a\nb \\n \\d', None)
    """
    return text and re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[0]), text)


@dataclass
class Answer:
    """What a model generates: grows while it does."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None

    def pieces(
        self, llm: LanguageModel, asked: Asked, ids: Sequence[int], sampling: Sampling | None = None
    ) -> Generator[str]:
        """The pieces of the text as they come.  Signals are answered between them and while a prompt is read.

        Raises `OptionError` if there are no tokens or more than fit the context, and what `generate` raises.
        """
        if not ids:
            raise OptionError("the prompt: expected at least one token, got an empty text")
        if len(ids) > llm.context:
            raise OptionError(
                f"the prompt: expected at most {llm.context} tokens, the size of the context, got {len(ids)}"
            )
        constraint = llm.constraint(**asked.form) if asked.form else None
        with Postponed() as signals:
            for end in range(BATCH, len(ids), BATCH):
                for _ in llm.generate(ids[:end], 0):
                    signals.check()
            for piece in llm.generate(
                ids,
                asked.max_tokens,
                sampling=sampling or asked.sampling,
                stop=asked.stop,
                slide=asked.slide,
                constraint=constraint,
            ):
                self.text += piece.text
                self.tokens += [] if piece.token is None else [piece.token]
                self.finish = piece.finish
                yield piece.text
                signals.check()
