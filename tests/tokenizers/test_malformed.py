"""Vocabularies that do not hold together: one clear line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kquant
from kquant.errors import GGUFError, UnsupportedTypeError
from support.vocabularies import load, write

STRINGS, INTS, FLOATS, BYTES = (("ARRAY", kind) for kind in ("STRING", "INT32", "FLOAT32", "UINT8"))
T = "tokenizer.ggml."
BPE = {
    f"{T}model": ("STRING", None, "gpt2"),
    f"{T}pre": ("STRING", None, "gpt-2"),
    f"{T}tokens": (*STRINGS, ["a", "b", "ab", "Ġ"]),
    f"{T}merges": (*STRINGS, ["a b"]),
}
SPM = {
    f"{T}model": ("STRING", None, "llama"),
    f"{T}tokens": (*STRINGS, ["<unk>", "<s>", "</s>", "▁", "a"]),
    f"{T}scores": (*FLOATS, [0.0] * 5),
    f"{T}token_type": (*INTS, [2, 3, 3, 1, 1]),
}
T5 = SPM | {f"{T}model": ("STRING", None, "t5")}
GOOD: dict[str, dict[str, Any]] = {"bpe": BPE, "spm": SPM, "t5": T5}
CHARSMAP = f"{T}precompiled_charsmap"


@pytest.mark.parametrize("kind", GOOD)
def test_the_files_are_good_otherwise(kind: str, tmp_path: Path) -> None:
    assert kquant.Tokenizer(write(GOOD[kind], tmp_path / "x.gguf")).tokenize("a b")


CASES: list[tuple[str, str, Any, str]] = [
    # vocabulary, key, value (None: missing), message
    ("bpe", f"{T}model", None, "'tokenizer.ggml.model': expected a vocabulary, got none"),
    ("bpe", f"{T}model", ("STRING", None, "none"), "expected a vocabulary, got none"),
    ("bpe", f"{T}model", ("UINT32", None, 7), "'tokenizer.ggml.model': expected STRING, got UINT32"),
    ("bpe", f"{T}tokens", None, "'tokenizer.ggml.tokens': expected the texts of tokens, got none"),
    ("bpe", f"{T}tokens", (*STRINGS, []), "expected the texts of tokens, got none"),
    ("bpe", f"{T}tokens", ("STRING", None, "a"), "expected an array, got STRING"),
    ("bpe", f"{T}tokens", (*INTS, [1]), "expected an array of STRING, got one of INT32"),
    ("bpe", f"{T}tokens", (*STRINGS, ["a", "b", "ab", "b"]), "expected unique tokens, got 'b' as 1 and as 3"),
    ("bpe", f"{T}tokens", (*STRINGS, ["a", b"\xff", "ab"]), r"element 1: expected UTF-8, got b'\xff'"),
    ("bpe", f"{T}merges", None, "'tokenizer.ggml.merges': expected the merges of the vocabulary, got none"),
    ("bpe", f"{T}merges", (*STRINGS, ["a b", "a c"]), "merge 1: expected tokens of the vocabulary, got 'c'"),
    ("bpe", f"{T}merges", (*STRINGS, ["b a"]), "merge 0: expected tokens of the vocabulary, got 'ba'"),
    ("bpe", f"{T}merges", (*STRINGS, ["ab"]), "merge 0: expected tokens of the vocabulary, got ''"),
    ("bpe", f"{T}merges", (*STRINGS, [b"a \xff"]), "element 0: expected UTF-8"),
    ("bpe", f"{T}token_type", (*INTS, [1]), "expected 4 elements, as many as tokens, got 1"),
    ("bpe", f"{T}token_type", (*FLOATS, [1.0] * 4), "expected an array of INT32, got one of FLOAT32"),
    ("bpe", f"{T}token_type", (*INTS, [1, 1, 6, 1]), "token 2: expected a byte as <0x0A>, got 'ab'"),
    ("bpe", f"{T}add_bos_token", ("UINT32", None, 1), "'tokenizer.ggml.add_bos_token': expected BOOL"),
    ("bpe", f"{T}add_bos_token", ("BOOL", None, True), "expected an id for the bos token .* got none"),
    ("bpe", f"{T}bos_token_id", ("STRING", None, "1"), "bos_token_id': expected an integer, got STRING"),
    ("bpe", "tokenizer.chat_template", ("BOOL", None, True), "chat_template': expected STRING, got BOOL"),
    ("spm", f"{T}scores", (*FLOATS, [0.0] * 4), "expected 5 elements, as many as tokens, got 4"),
    ("spm", f"{T}scores", (*FLOATS, [0.0] * 4 + [float("nan")]), "expected numbers, got NaN for token 4"),
    ("spm", f"{T}scores", (*STRINGS, ["0"] * 5), "expected an array of FLOAT32 or INT32, got one of STRING"),
    ("t5", CHARSMAP, (*BYTES, [1]), "expected a table of less than 0 bytes, got one of 1"),
    ("t5", CHARSMAP, (*BYTES, [255] * 64), "expected a table of less than 60 bytes, got one of 4294967295"),
    ("t5", CHARSMAP, (*BYTES, [4, 0, 0, 0, 255, 255, 255, 255, 0]), "expected less than 1 nodes"),
    ("t5", CHARSMAP, (*FLOATS, [1.0]), "expected an array of INT8 or UINT8, got one of FLOAT32"),
]


@pytest.mark.parametrize(("kind", "key", "value", "message"), CASES)
def test_malformed(kind: str, key: str, value: Any, message: str, tmp_path: Path) -> None:
    keys = dict(GOOD[kind])
    keys.pop(key, None)
    if value is not None:
        keys[key] = value
    path = write(keys, tmp_path / "x.gguf")
    with pytest.raises(GGUFError) as caught:
        kquant.Tokenizer(path).tokenize("a b")
    assert "\n" not in str(caught.value)
    caught.match(message.replace("\\", "\\\\") if "xff" in message else message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (f"{T}model", "rwkv", "expected one of llama, gpt2, gemma4, whitespace, bert, t5, got 'rwkv'"),
        (f"{T}model", "plamo2", "got 'plamo2'"),
        (f"{T}pre", "x", "expected one of .*qwen2, .* got 'x'"),
    ],
)
def test_unknown_kinds_name_those_that_are_known(key: str, value: str, message: str, tmp_path: Path) -> None:
    path = write(BPE | {key: ("STRING", None, value)}, tmp_path / "x.gguf")
    with pytest.raises(UnsupportedTypeError, match=message):
        kquant.Tokenizer(path)


def test_bytes_that_have_no_token_are_left_out(tmp_path: Path) -> None:
    """As llama.cpp does; what stands around them does not merge."""
    tokenizer = kquant.Tokenizer(write(BPE, tmp_path / "x.gguf"))
    assert tokenizer.tokenize("ab acb") == [2, 3, 0, 1]


def test_empty_tokens_have_a_name(tmp_path: Path) -> None:
    keys = SPM | {f"{T}tokens": (*STRINGS, ["<unk>", "<s>", "</s>", "▁", ""])}
    assert kquant.Tokenizer(write(keys, tmp_path / "x.gguf")).token_text(4) == "[EMPTY_4]"


def test_bytes_without_token_are_unknown(tmp_path: Path) -> None:
    assert kquant.Tokenizer(write(SPM, tmp_path / "x.gguf")).tokenize("aé") == [1, 3, 4, 0, 0]


def test_long_words_take_time_in_proportion(tmp_path: Path) -> None:
    for kind, keys in GOOD.items():
        ids = kquant.Tokenizer(write(keys, tmp_path / f"{kind}.gguf")).tokenize("a" * 20_000)
        assert len(ids) >= 20_000


def test_a_charsmap_cut_off(tmp_path: Path) -> None:
    """A replacement that does not end."""
    entry = load("small")["t5"]
    kind, element, values = entry["keys"][CHARSMAP]
    cut = [value or 1 for value in values[-50_000:]]
    keys = entry["keys"] | {CHARSMAP: (kind, element, [*values[:-50_000], *cut])}
    tokenizer = kquant.Tokenizer(write(keys, tmp_path / "x.gguf"))
    with pytest.raises(GGUFError, match="expected a replacement that ends"):
        tokenizer.tokenize("".join(map(chr, [*range(0x3300, 0x3400), *range(0xF900, 0xFB00)])))
