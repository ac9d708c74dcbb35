"""Token ids that llama.cpp wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

import kquant
from kquant.tokenizers.bpe import LETTERS
from kquant.tokenizers.pretokenizers import PRE_TOKENIZERS
from support.files import smollm2
from support.vocabularies import NAMES, SMALL, WHOLE, load, unpack, write


@pytest.mark.parametrize("name", NAMES)
def test_texts_of_llama_cpp(name: str, vocabularies: Path) -> None:
    tokenizer = kquant.Tokenizer(unpack(name, vocabularies))
    cases = load("cases")["llama.cpp"]
    expected = cases["ids"][name]
    assert len(cases["texts"]) == len(expected) == 46
    found = [tokenizer.tokenize(text, add_special=False) for text in cases["texts"]]
    assert found == expected
    if tokenizer.model != "bert":
        assert [tokenizer.detokenize(ids) for ids in found] == cases["texts"]


@pytest.mark.parametrize("name", WHOLE)
def test_random_texts(name: str, tokenizers: dict[str, kquant.Tokenizer]) -> None:
    for add_special, parse_special, text, expected in load("cases")["random"][name]:
        assert tokenizers[name].tokenize(text, add_special, parse_special) == expected, text


@pytest.mark.parametrize("name", SMALL)
def test_small_vocabularies(name: str, tmp_path: Path) -> None:
    """Scores that tie, tokens across spaces, characters instead of bytes, normalization, accents."""
    entry = load("small")[name]
    tokenizer = kquant.Tokenizer(write(entry["keys"], tmp_path / "small.gguf"))
    for add_special, parse_special, text, expected in entry["cases"]:
        assert tokenizer.tokenize(text, add_special, parse_special) == expected, text


def test_every_pre_tokenizer_is_in_the_golden_data() -> None:
    golden = {name for names in load("pretokenizers")["ids"] for name in names.split()}
    assert golden == {name for name, pre in PRE_TOKENIZERS.items() if pre.byte_level}


@pytest.mark.parametrize("names", load("pretokenizers")["ids"])
def test_pre_tokenizers(names: str, tmp_path: Path) -> None:
    """All pairs of bytes that are neighbours in the texts merge, so the ids show where words end."""
    golden = load("pretokenizers")
    keys = {
        "tokenizer.ggml.model": ("STRING", None, "gpt2"),
        "tokenizer.ggml.tokens": ("ARRAY", "STRING", golden["tokens"]),
        "tokenizer.ggml.merges": ("ARRAY", "STRING", golden["merges"]),
    }
    for name in names.split():
        path = write(keys | {"tokenizer.ggml.pre": ("STRING", None, name)}, tmp_path / f"{name}.gguf")
        tokenizer = kquant.Tokenizer(path)
        for text, expected in zip(golden["texts"], golden["ids"][names], strict=True):
            assert tokenizer.tokenize(text) == expected, (name, text)


@pytest.mark.demo
def test_smollm2() -> None:
    tokenizer = kquant.Tokenizer(smollm2())
    letters = {tokenizer.token_text(id) for id in range(len(tokenizer))}  # of some bytes it has none
    for add_special, parse_special, text, expected in load("smollm2"):
        found = tokenizer.tokenize(text, add_special, parse_special)
        assert found == expected, text
        if not add_special and all(LETTERS[byte] in letters for byte in text.encode()):
            assert tokenizer.detokenize(found, special=True) == text
    assert tokenizer.end_ids == {0, 2, 4}
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eot_id) == (1, 2, 2)
    assert "<|im_start|>" in (tokenizer.chat_template or "")
