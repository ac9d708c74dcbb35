"""Output that keeps to a form: a JSON schema, a regular expression or a grammar.

Before a token is chosen, the logits of all tokens that the form does not allow become minus infinity. Which
these are is computed by llguidance (https://github.com/guidance-ai/llguidance), with which llama.cpp can be
built, too: a library without dependencies that takes about a millisecond for a token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kquant._text import printable
from kquant.errors import MissingDependencyError, OptionError, ShapeError

if TYPE_CHECKING:
    from llguidance import LLMatcher

__all__ = ["Constraint", "ConstraintVocabulary"]


class ConstraintVocabulary:
    """A model's vocabulary as constraints need it; made once, for any number of constraints.

    `tokens` are the bytes of each token, `eos` the tokens that end the output and are allowed where the form
    is complete. Other `special` tokens, whose bytes are no text, are never allowed; neither are tokens of no
    bytes. `tokenize` is the model's own tokenizer for bytes: where the form leaves one text only, its token
    is the one that is allowed. Without it, that is the longest token.

    Takes a second for 150,000 tokens. Raises `MissingDependencyError` without llguidance, which the extra
    ``kquant-gguf[constrain]`` has, and `OptionError` for ids beyond the vocabulary.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        eos: int | Sequence[int],
        *,
        special: Iterable[int] = (),
        tokenize: Callable[[bytes], list[int]] | None = None,
    ) -> None:
        if find_spec("llguidance") is None:
            raise MissingDependencyError("not installed, but needed for constraints: llguidance")
        from llguidance import LLTokenizer, TokenizerWrapper

        self.tokens = tuple(tokens)
        self.eos = (eos,) if isinstance(eos, int) else tuple(eos)
        if not self.eos:
            raise OptionError("eos: expected at least one token, got none")
        special = {*special, *self.eos}
        for token in special:
            if not 0 <= token < len(self.tokens):
                raise OptionError(f"special tokens: expected ids below {len(self.tokens)}, got {token}")
        source = _Source(self.tokens, self.eos[0], sorted(special), tokenize or _longest_first(self.tokens))
        # slices would speed up masks that are fast enough, and take as long again to be made
        self.tokenizer = LLTokenizer(TokenizerWrapper(source), eos_token=list(self.eos), slices=[])

    def __len__(self) -> int:
        return len(self.tokens)


class Constraint:
    """A form that the output of one sequence keeps to, and how far it has come.

    Exactly one of the four is given:

    * `json_schema`: a schema, as a dictionary or as text; True allows any JSON;
    * `regex`: a regular expression in Rust's syntax (https://docs.rs/regex/latest/regex/#syntax);
    * `lark`: a grammar as llguidance reads it
      (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md);
    * `gbnf`: a grammar of llama.cpp (https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md).

    Raises `OptionError` with what is wrong in them.

    >>> letters = ConstraintVocabulary([b"", b"y", b"n", b"yes", b"o", b"!"], eos=0)
    >>> constraint = Constraint(letters, regex="yes|no")
    >>> logits = np.zeros(6, np.float32)
    >>> constraint.mask(logits)
    >>> logits.tolist()
    [-inf, 0.0, 0.0, 0.0, -inf, -inf]
    >>> constraint.accept(3)
    >>> constraint.complete, constraint.finished
    (True, True)
    """

    def __init__(
        self,
        vocabulary: ConstraintVocabulary,
        *,
        json_schema: Mapping[str, Any] | str | bool | None = None,
        regex: str | None = None,
        lark: str | None = None,
        gbnf: str | None = None,
    ) -> None:
        forms = {"json_schema": json_schema, "regex": regex, "lark": lark, "gbnf": gbnf}
        given = [name for name, form in forms.items() if form is not None]
        if len(given) != 1:
            raise OptionError(
                f"constraint: expected one of {', '.join(forms)}, got {' and '.join(given) or 'none'}"
            )
        from llguidance import LLMatcher, grammar_from

        (name,) = given
        form = forms[name]
        if name == "json_schema":
            form = _json(form)
        if not isinstance(form, str):
            raise OptionError(f"{name}: expected a string, got {form!r}")
        self.vocabulary = vocabulary
        try:
            grammar = grammar_from(name, form)  # type: ignore[arg-type]
        except ValueError as error:
            raise OptionError(f"{name}: {_line(str(error))}") from error
        self._matcher: LLMatcher = LLMatcher(vocabulary.tokenizer, grammar, log_level=0)
        if self._matcher.is_error():
            raise OptionError(f"{name}: {_line(self._matcher.get_error())}")

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits of the tokens that are not allowed to minus infinity, in place.

        Float32 (n,), where n may be more than the vocabulary has: there are models whose logits are padded.
        Raises `ShapeError` for fewer, and `OptionError` if no token of the vocabulary continues the output,
        or if the form is too complex.
        """
        n = len(self.vocabulary)
        if logits.ndim != 1 or len(logits) < n:
            raise ShapeError(f"logits: expected (n,), n at least {n}, found {logits.shape}")
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=n, bitorder="little").view(np.bool_)
        if self._matcher.is_error() or not allowed.any():
            reason = self._matcher.stop_reason()
            complex_ = reason in ("ParserTooComplex", "LexerTooComplex")
            what = (
                "the form is too complex" if complex_ else "no token of the vocabulary continues the output"
            )
            raise OptionError(f"constraint: {what} ({reason})")
        logits[:n][~allowed] = -np.inf
        logits[n:] = -np.inf

    def accept(self, token: int) -> None:
        """Go on with the token that was chosen.

        Raises `OptionError` for a token that is not allowed here, and stays where it was.
        """
        if not 0 <= token < len(self.vocabulary):
            raise OptionError(f"constraint: expected a token below {len(self.vocabulary)}, got {token}")
        end = token in self.vocabulary.eos  # which validate_tokens does not know
        fits = self.complete if end else self._matcher.validate_tokens([token]) == 1
        if not fits or not self._matcher.consume_token(token):
            raise OptionError(f"constraint: token {token}, {self.vocabulary.tokens[token]!r}, is not allowed")

    def reset(self) -> None:
        """Go back to the beginning, for another output."""
        self._matcher.reset()

    @property
    def complete(self) -> bool:
        """Whether the output may end here."""
        return self._matcher.is_accepting()

    @property
    def finished(self) -> bool:
        """Whether the output must end here: nothing but the end is allowed."""
        return self._matcher.is_stopped()


class _Source:
    """What llguidance's TokenizerWrapper asks for."""

    bos_token_id = None

    def __init__(
        self,
        tokens: Sequence[bytes],
        eos: int,
        special: list[int],
        tokenize: Callable[[bytes], list[int]],
    ) -> None:
        self.tokens = tokens
        self.eos_token_id = eos
        self.special_token_ids = special
        self._tokenize = tokenize

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenize(text)


def _longest_first(tokens: Sequence[bytes]) -> Callable[[bytes], list[int]]:
    """A tokenizer that takes the longest token again and again; it ends at a byte that begins no token."""
    ids = {token: i for i, token in reversed(list(enumerate(tokens))) if token}
    longest = max(map(len, ids), default=0)

    def tokenize(text: bytes) -> list[int]:
        found, start = [], 0
        while start < len(text):
            ends = range(min(len(text), start + longest), start, -1)
            end = next((e for e in ends if text[start:e] in ids), None)
            if end is None:
                break
            found.append(ids[text[start:end]])
            start = end
        return found

    return tokenize


def _json(schema: Any) -> str:
    """A schema as JSON text; llguidance takes objects only."""
    try:
        if isinstance(schema, str):
            schema = json.loads(schema)
        return json.dumps({} if schema is True else schema)
    except (TypeError, ValueError) as error:
        raise OptionError(f"json_schema: {error}") from error


def _line(text: str) -> str:
    """The line that says what is wrong, of an error with a picture of the grammar."""
    first, *rest = [" ".join(line.split()) for line in text.splitlines()] or [""]
    errors = [line.removeprefix("error: ") for line in rest if line.startswith("error: ")]
    return printable(" ".join([first, *errors])[:300])
