"""Texts that are drawn anew, beside llama.cpp itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kquant
from support.vocabularies import WHOLE, unpack

pytestmark = [pytest.mark.peer, pytest.mark.slow]

WORDS = ["the", "It's", "I'LL", "naïve", "12345", "3.14", "日本語", "한국어", "नमस्ते", "🎉", "▁", "<u>"]
SPECIAL = ["<s>", "<|endoftext|>", "[SEP]"]
SPACES = [" ", "  ", "\n", "\n\n", "\r\n", "\t"]
TEXTS = st.lists(
    st.sampled_from(WORDS + SPECIAL)
    | st.sampled_from(SPACES)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    max_size=20,
).map("".join)


@pytest.fixture(scope="module")
def models(vocabularies: Path) -> dict[str, Any]:
    import llama_cpp

    return {
        name: llama_cpp.Llama(str(unpack(name, vocabularies)), vocab_only=True, verbose=False)
        for name in WHOLE
        if name != "bert-bge"  # llama.cpp asks for keys of the architecture
    }


@pytest.mark.parametrize("name", ["gpt-2", "llama-spm"])
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, add_special=st.booleans(), parse_special=st.booleans())
def test_ids(
    name: str,
    models: dict[str, Any],
    tokenizers: dict[str, kquant.Tokenizer],
    text: str,
    add_special: bool,
    parse_special: bool,
) -> None:
    expected = models[name].tokenize(text.encode(), add_special, parse_special) if text else None
    found = tokenizers[name].tokenize(text, add_special, parse_special)
    assert expected is None or found == expected
