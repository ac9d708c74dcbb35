"""Against what llama-cpp-python 0.3.36 answered to the same calls: `tests/support/llama_calls.py`."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from kquant.llama_cpp import Llama
from support.files import smollm2
from support.llama_calls import CALLS, EMBEDDINGS, ERRORS, answers, recorded, shape_of

pytestmark = [pytest.mark.demo, pytest.mark.slow]

# greedy texts that hang on two logits nearer to each other than llama.cpp is to itself; what it does with a
# suffix, and the log probabilities of a prompt, that it takes from the row after
OTHER_TEXTS = {"unlimited", "repeat penalty", "suffix", "logprobs, echo", "create_embedding, list"}
OTHER_ERRORS = {"error: empty", "error: option"}


@cache
def found() -> dict[str, Any]:
    return answers(Llama, str(smollm2()))


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Numbers may differ by what llama.cpp differs from itself: half a unit in a log probability."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}[{i}]")
        ]
    if isinstance(a, float) and isinstance(b, float) and abs(a - b) < 0.5:
        return []
    return [] if a == b else [f"{where}: {a!r}, {b!r}"]


@pytest.mark.parametrize("name", [*CALLS, *EMBEDDINGS])
def test_dictionaries_have_the_same_keys_and_types(name: str) -> None:
    expected, got = shape_of(recorded()[name]), shape_of(found()[name])
    if name == "metadata":  # in an order of its own
        assert got == expected
    elif name != "logprobs, echo":
        assert json.dumps(got).replace("\\n", "") == json.dumps(expected).replace("\\n", "")


@pytest.mark.parametrize("name", sorted({*CALLS, *EMBEDDINGS, "scores"} - OTHER_TEXTS))
def test_answers_are_the_same(name: str) -> None:
    assert not differences(recorded()[name], found()[name])


@pytest.mark.parametrize("name", [f"error: {name}" for name in ERRORS])
def test_errors_are_the_same(name: str) -> None:
    if name in OTHER_ERRORS:
        assert found()[name][0] == {"error: empty": "ValueError", "error: option": "TypeError"}[name]
    else:
        assert found()[name] == recorded()[name]


def test_the_probabilities_of_a_prompt_are_those_of_its_own_tokens() -> None:
    """llama-cpp-python gives each token the row that follows it, and leaves the last out."""
    ours = found()["logprobs, echo"]["choices"][0]["logprobs"]
    theirs = recorded()["logprobs, echo"]["choices"][0]["logprobs"]
    assert ours["tokens"][:4] == theirs["tokens"]
    assert ours["text_offset"][:4] == theirs["text_offset"]
    assert ours["token_logprobs"][0] is None
    for mine, other in zip(ours["top_logprobs"][2:], theirs["top_logprobs"][1:], strict=True):
        assert next(iter(mine)) == next(iter(other))
