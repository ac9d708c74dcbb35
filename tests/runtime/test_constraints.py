"""Constraints: what is allowed, token by token, and forms that are none."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kquant.errors import MissingDependencyError, OptionError, ShapeError
from kquant.runtime.constraints import Constraint, ConstraintVocabulary
from kquant.runtime.sampling import Sampler, Sampling

WORDS = [b'{"', b'": ', b"true", b"name", b'"na', b'me"', b'"}', b"<|im_end|>", b"", b"\xc3", "é".encode()]
TOKENS = [*(bytes([i]) for i in range(256)), *WORDS, b"<eos>"]
IM_END = TOKENS.index(b"<|im_end|>")
EOS = len(TOKENS) - 1
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def vocabulary() -> ConstraintVocabulary:
    return ConstraintVocabulary(TOKENS, EOS, special=[IM_END])


def allowed(constraint: Constraint, n: int = len(TOKENS)) -> set[bytes]:
    logits = np.zeros(n, np.float32)
    constraint.mask(logits)
    assert set(logits.tolist()) <= {0, -np.inf}
    assert not (logits[len(TOKENS) :] == 0).any()
    return {TOKENS[i] for i in np.flatnonzero(logits == 0)}


def accept(constraint: Constraint, text: bytes) -> None:
    for byte in text:
        constraint.accept(byte)


def generated(constraint: Constraint, seed: int) -> str:
    """What a model without preferences says."""
    sampler = Sampler(Sampling(temperature=1, top_k=0, top_p=1, min_p=0, seed=seed))
    said = b""
    for _ in range(200):
        logits = np.zeros(len(TOKENS), np.float32)
        constraint.mask(logits)
        token = sampler.sample(logits)
        constraint.accept(token)
        if token == EOS:
            return said.decode()
        said += TOKENS[token]
    return ""


def test_a_regular_expression(vocabulary: ConstraintVocabulary) -> None:
    constraint = Constraint(vocabulary, regex="name|tr?y")
    assert allowed(constraint) == {b"n", b"name", b"t"}
    constraint.accept(ord("t"))
    assert allowed(constraint) == {b"r", b"y"}
    assert not constraint.complete
    accept(constraint, b"ry")
    assert (constraint.complete, constraint.finished) == (True, True)
    assert allowed(constraint) == {b"<eos>"}
    constraint.accept(EOS)
    constraint.reset()
    assert allowed(constraint) == {b"n", b"name", b"t"}


def test_a_form_that_may_end_or_go_on(vocabulary: ConstraintVocabulary) -> None:
    constraint = Constraint(vocabulary, regex="a+")
    constraint.accept(ord("a"))
    assert (constraint.complete, constraint.finished) == (True, False)
    assert allowed(constraint) == {b"a", b"<eos>"}


def test_tokens_may_be_parts_of_characters(vocabulary: ConstraintVocabulary) -> None:
    constraint = Constraint(vocabulary, regex="[éx]!")
    assert allowed(constraint) == {b"x", b"\xc3", "é".encode()}
    constraint.accept(0xC3)
    assert allowed(constraint) == {b"\xa9"}


def test_special_tokens_are_no_text(vocabulary: ConstraintVocabulary) -> None:
    constraint = Constraint(vocabulary, regex=".*")
    assert not {b"<|im_end|>", b""} & allowed(constraint)
    assert {b"<eos>", b"<"} <= allowed(constraint)


def test_several_tokens_may_end_the_output() -> None:
    constraint = Constraint(ConstraintVocabulary(TOKENS, [EOS, IM_END]), regex="a")
    constraint.accept(ord("a"))
    assert allowed(constraint) == {b"<eos>", b"<|im_end|>"}
    constraint.accept(IM_END)


def test_a_forced_text_is_tokenized_by_the_model() -> None:
    mine = ConstraintVocabulary(TOKENS, EOS, tokenize=lambda text: list(text))
    longest = ConstraintVocabulary(TOKENS, EOS)
    assert allowed(Constraint(longest, regex='"name"')) >= {b'"na'}
    assert allowed(Constraint(mine, regex='"name"')) >= {b'"'}


@pytest.mark.parametrize("schema", [PERSON, json.dumps(PERSON)], ids=["dict", "text"])
def test_a_json_schema(vocabulary: ConstraintVocabulary, schema: Any) -> None:
    constraint = Constraint(vocabulary, json_schema=schema)
    accept(constraint, b'{"name": "Ada", "age": 3')
    assert b"6" in allowed(constraint)
    assert b'"' not in allowed(constraint)
    accept(constraint, b"6}")
    assert constraint.finished


def test_any_json(vocabulary: ConstraintVocabulary) -> None:
    constraint = Constraint(vocabulary, json_schema=True)
    accept(constraint, b'[{"a": null}, -1.5e3]')
    assert constraint.complete


@settings(max_examples=15)
@given(st.integers(0, 2**32))
def test_whatever_is_drawn_keeps_to_the_schema(vocabulary: ConstraintVocabulary, seed: int) -> None:
    constraint = Constraint(vocabulary, json_schema=PERSON)
    if text := generated(constraint, seed):
        person = json.loads(text)
        assert isinstance(person["name"], str)
        assert isinstance(person["age"], int)
        assert set(person) == {"name", "age"}


@pytest.mark.parametrize(
    ("kind", "grammar"),
    [
        ("lark", 'start: term ("+" term)*\nterm: /[0-9]/ | "(" start ")"'),
        ("gbnf", 'root ::= term ("+" term)*\nterm ::= [0-9] | "(" root ")"'),
    ],
)
def test_grammars(vocabulary: ConstraintVocabulary, kind: str, grammar: str) -> None:
    constraint = Constraint(vocabulary, **{kind: grammar})
    accept(constraint, b"(1+(2)")
    assert allowed(constraint) == {b"+", b")"}
    accept(constraint, b")")
    assert constraint.complete


def test_logits_that_are_padded(vocabulary: ConstraintVocabulary) -> None:
    assert allowed(Constraint(vocabulary, regex="a"), 320) == {b"a"}


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({}, "constraint: expected one of json_schema, regex, lark, gbnf, got none"),
        ({"regex": "a", "lark": "b"}, "constraint: expected one of json_schema, .*, got regex and lark"),
        ({"regex": 1}, "regex: expected a string, got 1"),
        ({"regex": "(a"}, 'regex: .*invalid regex "\\(a".* unclosed group'),
        ({"lark": "start: foo"}, 'lark: .*unknown name: "foo"'),
        ({"gbnf": "root ::= foo"}, "gbnf: .*Rule 'foo' not found"),
        ({"json_schema": {"type": "nope"}}, "json_schema: Invalid type: nope"),
        ({"json_schema": False}, "json_schema: Unsatisfiable schema"),
        ({"json_schema": [1]}, "json_schema: schema must be an object"),
        ({"json_schema": "{"}, "json_schema: Expecting property name .* line 1"),
        ({"json_schema": {"a": 1j}}, "json_schema: Object of type complex is not JSON serializable"),
        ({"json_schema": {"$ref": "http://localhost/a"}}, "json_schema: Resource 'http://localhost/a'"),
    ],
    ids=range(12),
)
def test_forms_that_are_none(vocabulary: ConstraintVocabulary, form: Any, message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}") as error:
        Constraint(vocabulary, **form)
    assert str(error.value).isprintable()


def test_a_token_that_is_not_allowed_changes_nothing(vocabulary: ConstraintVocabulary) -> None:
    constraint = Constraint(vocabulary, regex="ab")
    constraint.accept(ord("a"))
    with pytest.raises(OptionError, match=re.escape("constraint: token 97, b'a', is not allowed")):
        constraint.accept(ord("a"))
    for token in (-1, len(TOKENS)):
        with pytest.raises(
            OptionError, match=f"constraint: expected a token below {len(TOKENS)}, got {token}"
        ):
            constraint.accept(token)
    assert allowed(constraint) == {b"b"}


def test_a_vocabulary_that_cannot_go_on() -> None:
    constraint = Constraint(ConstraintVocabulary([b"", b"a"], 0), regex="ab")
    constraint.accept(1)
    with pytest.raises(OptionError, match="constraint: no token of the vocabulary continues the output"):
        constraint.mask(np.zeros(2, np.float32))


def test_logits_of_other_shapes(vocabulary: ConstraintVocabulary) -> None:
    for shape in ((1, len(TOKENS)), (len(TOKENS) - 1,)):
        with pytest.raises(ShapeError, match=rf"logits: expected \(n,\), n at least {len(TOKENS)}, found"):
            Constraint(vocabulary, regex="a").mask(np.zeros(shape, np.float32))


def test_special_tokens_beyond_the_vocabulary() -> None:
    with pytest.raises(OptionError, match="special tokens: expected ids below 1, got 1"):
        ConstraintVocabulary([b"a"], 1)
    with pytest.raises(OptionError, match="eos: expected at least one token, got none"):
        ConstraintVocabulary([b"a"], [])


def test_without_llguidance(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "kquant.runtime.constraints.find_spec", lambda name: None if name == "llguidance" else find(name)
    )
    with pytest.raises(MissingDependencyError, match="not installed, but needed for constraints: llguidance"):
        ConstraintVocabulary([b"a"], 0)
