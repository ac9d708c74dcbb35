"""`kquant.Tokenizer`: facts, both directions, special tokens, streams."""

from __future__ import annotations

import codecs
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kquant
from kquant.errors import MissingDependencyError, OptionError
from kquant.gguf import Metadata, TensorSpec, Writer, layout
from support.vocabularies import Keys, load, metadata, unpack, write

TOKENIZERS = dict[str, kquant.Tokenizer]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=60) | st.text(
    st.sampled_from(" \n\t'sSaAeé1.日🎉"), max_size=60
)
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def spm(
    *tokens: str,
    special: tuple[str, ...] = (),
    own: tuple[str, ...] = (),
    others: dict[str, tuple[str, Any]] | None = None,
) -> Keys:
    """The keys of a small vocabulary with a token for each byte."""
    texts = ["<unk>", "<s>", "</s>", *special, *own, *(f"<0x{byte:02X}>" for byte in range(256)), *tokens]
    types = [2, 3, 3, *[3] * len(special), *[4] * len(own), *[6] * 256, *[1] * len(tokens)]
    return {
        "tokenizer.ggml.model": ("STRING", None, "llama"),
        "tokenizer.ggml.tokens": ("ARRAY", "STRING", texts),
        "tokenizer.ggml.token_type": ("ARRAY", "INT32", types),
        **{key: (kind, None, value) for key, (kind, value) in (others or {}).items()},
    }


def opened(keys: Keys, folder: Path) -> kquant.Tokenizer:
    return kquant.Tokenizer(write(keys, folder / "vocabulary.gguf"))


def test_facts(tokenizers: TOKENIZERS) -> None:
    gpt2, llama, bert = tokenizers["gpt-2"], tokenizers["llama-spm"], tokenizers["bert-bge"]
    assert (gpt2.model, gpt2.pre, len(gpt2)) == ("gpt2", "gpt-2", 50257)
    assert (gpt2.bos_id, gpt2.eos_id, gpt2.eot_id, gpt2.unk_id) == (50256, 50256, 50256, None)
    assert not gpt2.add_bos
    assert not gpt2.add_eos
    assert gpt2.end_ids == {50256}
    assert gpt2.chat_template is None
    assert (llama.bos_id, llama.eos_id, llama.eot_id, llama.unk_id) == (1, 2, None, 0)
    assert llama.add_bos
    assert llama.end_ids == {2}
    assert (bert.cls_id, bert.sep_id, bert.pad_id, bert.mask_id, bert.unk_id) == (101, 102, 0, 103, 100)
    assert llama.cls_id is None
    assert gpt2.eom_id is None
    assert gpt2.fim_ids == dict.fromkeys(["pre", "suf", "mid", "pad", "rep", "sep"])
    assert repr(gpt2) == "Tokenizer(model='gpt2', pre='gpt-2', 50257 tokens)"


def test_tokens(tokenizers: TOKENIZERS) -> None:
    llama = tokenizers["llama-spm"]
    assert [llama.token_text(i) for i in (0, 1, 13, 15043)] == ["<unk>", "<s>", "<0x0A>", "▁Hello"]
    assert [llama.token_type(i) for i in (0, 1, 13, 15043)] == [2, 3, 6, 1]
    assert [llama.token_bytes(i) for i in (0, 1, 13, 15043)] == [b"<unk>", b"<s>", b"\n", b" Hello"]
    assert [llama.token_bytes(i, special=False) for i in (0, 1, 13)] == [b"", b"", b"\n"]


def test_a_model_that_is_open(tmp_path: Path) -> None:
    specs = [TensorSpec("w", (32,), kquant.TensorType["Q8_0"])]
    path = tmp_path / "model.gguf"
    with Writer(path, layout(metadata(spm("a")), specs)) as writer:
        writer.write(0, 0, bytes(34))
        writer.commit()
    with kquant.open(path) as model:
        tokenizer = kquant.Tokenizer(model)
    assert tokenizer.tokenize("a", add_special=False) == kquant.Tokenizer(path).tokenize(
        "a", add_special=False
    )


def test_special_tokens_count_only_if_asked_for(tokenizers: TOKENIZERS) -> None:
    gpt2 = tokenizers["gpt-2"]
    assert gpt2.tokenize("a<|endoftext|>b", parse_special=True) == [64, 50256, 65]
    as_text = gpt2.tokenize("a<|endoftext|>b")
    assert 50256 not in as_text
    assert gpt2.detokenize(as_text) == "a<|endoftext|>b"
    assert gpt2.detokenize([64, 50256, 65]) == "ab"
    assert gpt2.detokenize([64, 50256, 65], special=True) == "a<|endoftext|>b"


def test_the_longest_special_token_wins_wherever_it_is(tmp_path: Path) -> None:
    tokenizer = opened(spm("a", special=("<ab>", "b>cdefg")), tmp_path)
    assert tokenizer.tokenize("<ab>cdefg", False, True)[-1] == 4


def test_user_defined_tokens_always_count(tmp_path: Path) -> None:
    tokenizer = opened(spm("▁", "a", own=("<u>",)), tmp_path)
    ids = tokenizer.tokenize("a<u>a")
    assert 3 in ids
    assert tokenizer.detokenize(ids) == "a<u> a"  # as upstream: each text after a special token gets a space


def test_phi_3_takes_the_white_space_after_special_tokens(tmp_path: Path) -> None:
    keys = spm("a", special=("<|end|>",), others={"general.name": ("STRING", "Phi-3 mini")})
    ids = opened(keys, tmp_path).tokenize("<|end|> \n a", False, True)
    plain = opened(spm("a", special=("<|end|>",)), tmp_path).tokenize("<|end|>a", False, True)
    assert ids == plain


def test_the_mask_takes_the_white_space_before(tmp_path: Path) -> None:
    name = {"general.architecture": ("STRING", "jina-bert-v3")}
    ids = opened(spm("a", special=("<mask>",), others=name), tmp_path).tokenize("a  <mask> a", False, True)
    assert ids == opened(spm("a", special=("<mask>",)), tmp_path).tokenize("a<mask> a", False, True)


def test_bos_and_eos(tmp_path: Path) -> None:
    tokenizer = opened(spm("▁a", others={"tokenizer.ggml.add_eos_token": ("BOOL", True)}), tmp_path)
    assert tokenizer.add_eos
    assert tokenizer.tokenize("") == [1, 2]
    assert tokenizer.tokenize("", add_special=False) == []


def test_bytes_for_characters_without_token(tmp_path: Path) -> None:
    tokenizer = opened(spm("▁", "a"), tmp_path)
    ids = tokenizer.tokenize("aé🎉", add_special=False)
    assert ids == [259, 260, *(3 + byte for byte in "é🎉".encode())]
    assert tokenizer.detokenize(ids) == "aé🎉"
    assert tokenizer.detokenize(ids[:-1]) == "aé\ufffd"


@pytest.mark.parametrize("name", ["gpt-2", "llama-spm"])
@relaxed
@given(text=TEXTS)
def test_texts_come_back(name: str, tokenizers: TOKENIZERS, text: str) -> None:
    tokenizer = tokenizers[name]
    ids = tokenizer.tokenize(text)
    if name == "llama-spm":
        text = text.replace("▁", " ")
    assert tokenizer.detokenize(ids) == text


@pytest.mark.parametrize("name", ["gpt-2", "llama-spm"])
@relaxed
@given(text=TEXTS)
def test_streams_join_to_the_text(name: str, tokenizers: TOKENIZERS, text: str) -> None:
    tokenizer = tokenizers[name]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    ids = tokenizer.tokenize(text, add_special=False)
    pieces = [decoder.decode(tokenizer.token_bytes(id)) for id in ids]
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text
    joined = "".join(pieces)
    assert tokenizer.detokenize(ids) == (joined.removeprefix(" ") if name == "llama-spm" else joined)


@relaxed
@given(text=TEXTS)
def test_a_text_has_the_same_ids_again(tokenizers: TOKENIZERS, text: str) -> None:
    """The memory for words changes nothing."""
    for tokenizer in tokenizers.values():
        assert tokenizer.tokenize(text) == tokenizer.tokenize(text)


def test_bert_text(tokenizers: TOKENIZERS) -> None:
    bert = tokenizers["bert-bge"]
    assert bert.detokenize(bert.tokenize("Hello, wörld! It's fine.")) == "hello, world! it's fine."
    assert bert.tokenize("")[0] == 101
    assert bert.tokenize("")[-1] == 102


def test_half_a_surrogate_pair(tokenizers: TOKENIZERS) -> None:
    for tokenizer in tokenizers.values():
        assert tokenizer.tokenize("a\ud83d!") == tokenizer.tokenize("a\ufffd!")
        assert tokenizer.tokenize("\ud83c\udf89") == tokenizer.tokenize("🎉")


@pytest.mark.parametrize(
    ("id", "message"),
    [
        (-1, "expected 0 to 50256, got -1"),
        (50257, "expected 0 to 50256, got 50257"),
        (1.5, "expected an integer, got 1.5"),
    ],
)
def test_ids_that_are_none(tokenizers: TOKENIZERS, id: Any, message: str) -> None:
    gpt2 = tokenizers["gpt-2"]
    for ask in (gpt2.token_bytes, gpt2.token_text, gpt2.token_type, lambda id: gpt2.detokenize([id])):
        with pytest.raises(OptionError, match=message):
            ask(id)


def test_a_text_must_be_a_string(tokenizers: TOKENIZERS) -> None:
    wrong: Any = b"bytes"
    with pytest.raises(OptionError, match="text: expected a string, got bytes"):
        tokenizers["gpt-2"].tokenize(wrong)


def test_without_the_library(vocabularies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only byte pairs need it, and only to tokenize."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    gpt2 = kquant.Tokenizer(unpack("gpt-2", vocabularies))
    assert gpt2.detokenize([64, 65]) == "ab"
    with pytest.raises(MissingDependencyError, match=r"tokenizers \(the extra `run` of kquant-gguf\)"):
        gpt2.tokenize("a")
    assert kquant.Tokenizer(unpack("llama-spm", vocabularies)).tokenize("Hello") == [1, 15043]


def ends(*texts: str, folder: Path, others: dict[str, tuple[str, Any]] | None = None) -> set[str]:
    tokenizer = opened(spm(special=texts, others=others), folder)
    return {tokenizer.token_text(id) for id in tokenizer.end_ids} - {"</s>"}


def test_tokens_that_end_a_generation(tmp_path: Path) -> None:
    assert ends("<|eot_id|>", "<|eom_id|>", "<x>", folder=tmp_path) == {"<|eot_id|>", "<|eom_id|>"}
    assert ends("<|im_end|>", "<|im_start|>", folder=tmp_path) == {"<|im_end|>"}
    assert ends("<|fim_pad|>", "<|repo_name|>", folder=tmp_path) == {"<|fim_pad|>", "<|repo_name|>"}
    by_key = {"tokenizer.ggml.eot_token_id": ("UINT32", 3)}
    assert ends("<bye>", folder=tmp_path, others=by_key) == {"<bye>"}
    harmony = ("<|return|>", "<|call|>", "<|end|>", "<|channel|>")
    assert ends(*harmony, folder=tmp_path) == {"<|return|>", "<|call|>"}
    tokenizer = opened(spm(special=harmony), tmp_path)
    assert [tokenizer.token_bytes(id, special=False) for id in (3, 4, 5, 6)] == [
        b"",
        b"",
        b"<|end|>",
        b"<|channel|>",
    ]
    gemma = opened(spm(special=("<|tool_response>",)), tmp_path)
    assert {gemma.token_text(id) for id in gemma.end_ids} == {"<|tool_response>"}  # </s> is markup in Gemma 4


def test_ids_beyond_the_vocabulary_do_not_count(tmp_path: Path) -> None:
    others = {"tokenizer.ggml.padding_token_id": ("UINT32", 4294967295)}
    others["tokenizer.ggml.eos_token_id"] = ("UINT32", 9999)
    tokenizer = opened(spm("a", others=others), tmp_path)
    assert (tokenizer.pad_id, tokenizer.eos_id) == (None, 2)


def test_beginnings_of_user_defined_tokens_are_not_normalized(tmp_path: Path) -> None:
    """Of `t5`: where the table would make a newline a space, a token that begins with it prevents that."""
    keys = dict(load("small")["t5"]["keys"])
    assert 0 not in opened(keys, tmp_path).tokenize("the\nthe")
    for key, kind, value in (
        ("tokens", "STRING", "\n\n"),
        ("scores", "FLOAT32", 0.0),
        ("token_type", "INT32", 4),
    ):
        name = f"tokenizer.ggml.{key}"
        keys[name] = ("ARRAY", kind, [*keys[name][2], value])
    assert 0 in opened(keys, tmp_path).tokenize("the\nthe")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gpt2", "llama", "t5"])
def test_a_vocabulary_of_262144_tokens_is_built_in_time(model: str, tmp_path: Path) -> None:
    letters = [*load("pretokenizers")["tokens"][:256]]
    pairs = [a + b for a in letters for b in letters]
    more = [a + b for a in pairs[::37] for b in letters[:128]]
    tokens = list(dict.fromkeys(["<unk>", "<s>", "</s>", *letters, *pairs, *more]))[:262_144]
    assert len(tokens) == 262_144
    merges = [f"{token[:-1]} {token[-1]}" for token in tokens[259:]]
    merges += [f"{token[0]} {token[1:]}" for token in tokens[259:] if len(token) == 3]
    keys: Keys = {
        "tokenizer.ggml.model": ("STRING", None, model),
        "tokenizer.ggml.tokens": ("ARRAY", "STRING", tokens),
        "tokenizer.ggml.token_type": ("ARRAY", "INT32", [2, 3, 3] + [1] * (len(tokens) - 3)),
        "tokenizer.ggml.merges": ("ARRAY", "STRING", merges),
        "tokenizer.ggml.scores": ("ARRAY", "FLOAT32", [-float(i) for i in range(len(tokens))]),
    }
    path = write(keys, tmp_path / "large.gguf")
    start = time.process_time()
    assert kquant.Tokenizer(path).tokenize("Hello")
    assert time.process_time() - start < 1.5


def test_opening_builds_nothing(tmp_path: Path) -> None:
    tokenizer = opened(spm("a"), tmp_path)
    assert not {"_vocabulary", "_encoder", "_special"} & set(vars(tokenizer))
    assert len(tokenizer) == 260
    assert "_vocabulary" not in vars(tokenizer)
    assert isinstance(tokenizer._metadata, Metadata)
