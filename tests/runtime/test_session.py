"""Sequences: cut, copied, saved and loaded, they go on as if they had been read anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import kquant
from kquant import LanguageModel, ModelError, OptionError
from kquant.gguf import read
from support import drawn_models
from support.golden_models import model_path, recorded

TOKENS = recorded("llama-dense")["tokens"].tolist()


@pytest.fixture
def llm() -> Iterator[LanguageModel]:
    with LanguageModel(model_path("llama-dense"), context=80) as made:
        yield made


def test_one_by_one_or_at_once(llm: LanguageModel) -> None:
    expected = llm.logits(TOKENS)
    session = llm.session()
    one_by_one = [session.read([token]) for token in TOKENS]
    assert np.array_equal(one_by_one, expected)
    assert session.tokens == TOKENS


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(llm: LanguageModel, threads: int) -> None:
    with LanguageModel(model_path("llama-dense"), threads=threads) as other:
        assert np.array_equal(other.logits(TOKENS[:20]), llm.logits(TOKENS[:20]))


def test_a_prefix_is_shared(llm: LanguageModel) -> None:
    expected = llm.logits(TOKENS)
    session = llm.session()
    session.read(TOKENS[:30])
    other = session.copy()
    assert np.array_equal(other.read(TOKENS[30:40]), expected[39])
    session.truncate(10)
    assert np.array_equal(session.read(TOKENS[10:50], every=True), expected[10:50])
    assert session.keep_prefix_of([*TOKENS[:20], 127, 126]) == 20
    assert session.keep_prefix_of(TOKENS[:20]) == 19  # the last one is read again, for its logits
    assert len(other) == 40


def test_saved_and_loaded(llm: LanguageModel, tmp_path: Path) -> None:
    expected = llm.logits(TOKENS)
    session, file = llm.session(), tmp_path / "session.npz"
    session.read(TOKENS[:30])
    session.save(file)
    other = llm.session()
    other.load(file)
    assert other.tokens == TOKENS[:30]
    assert np.array_equal(other.read(TOKENS[30:]), expected[-1])
    assert [path.name for path in tmp_path.iterdir()] == ["session.npz"]


def test_of_another_model_or_none(llm: LanguageModel, tmp_path: Path) -> None:
    file = tmp_path / "session.npz"
    session = llm.session()
    session.read(TOKENS[:3])
    session.save(file)
    for other, type_k, got in (
        ("llama-moe", "F16", r"\['llama: .*, got \['llama: "),
        ("llama-dense", "Q8_0", "'Q8_0', 'F16'.*, got .*'F16', 'F16'"),
    ):
        model = LanguageModel(model_path(other), cache_type_k=type_k)
        with model, pytest.raises(OptionError, match=got):
            model.session().load(file)
    for content in (b"", b"PK\x03\x04", file.read_bytes()[:200]):
        (tmp_path / "broken.npz").write_bytes(content)
        with pytest.raises(OptionError, match=r"broken.npz: expected a session that kquant has saved, got"):
            session.load(tmp_path / "broken.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(OptionError, match="expected a session that kquant has saved"):
        session.load(tmp_path / "other.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(OptionError, match=r"array.npy: expected a session that kquant has saved"):
        session.load(tmp_path / "array.npy")
    with pytest.raises(FileNotFoundError):
        session.load(tmp_path / "none.npz")
    with pytest.raises(kquant.OutputError):
        session.save(tmp_path / "no such folder" / "session.npz")


def test_what_cannot_be_read(llm: LanguageModel) -> None:
    session = llm.session()
    with pytest.raises(OptionError, match="tokens: expected 0 to 127, got 128 at index 1"):
        session.read([3, 128])
    with pytest.raises(OptionError, match="tokens: expected 0 to 127, got -1 at index 0"):
        session.read([-1])
    with pytest.raises(OptionError, match="tokens: expected at least one, got none"):
        session.read([])
    for wrong in ([[1]], [1.5], 3):
        with pytest.raises(OptionError, match=r"tokens: expected integers of shape \(n,\), got"):
            session.read(wrong)
    with pytest.raises(
        OptionError, match="expected at most 80 tokens in the context, got 81: give the model"
    ):
        session.read([1] * 81)
    assert len(session) == 0
    with pytest.raises(OptionError, match="length: expected 0 to 0 tokens, got 1"):
        session.truncate(1)
    with pytest.raises(OptionError, match="length: expected a whole number, got 'a'"):
        session.truncate("a")  # type: ignore[arg-type]


def test_an_empty_one_is_saved_too(llm: LanguageModel, tmp_path: Path) -> None:
    llm.session().save(tmp_path / "empty.npz")
    session = llm.session()
    session.read(TOKENS[:5])
    session.load(tmp_path / "empty.npz")
    assert len(session) == 0
    assert np.array_equal(session.read(TOKENS[:5]), llm.logits(TOKENS[:5])[-1])


def test_a_bomb_is_not_unpacked(llm: LanguageModel, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", kquant_session=np.zeros(1 << 22, np.uint8))
    with pytest.raises(OptionError, match=r"bomb.npz: expected a session .*, got 4194\d* bytes packed into"):
        llm.session().load(tmp_path / "bomb.npz")


def test_a_file_that_does_not_fit_changes_nothing(llm: LanguageModel, tmp_path: Path) -> None:
    session = llm.session()
    session.read(TOKENS[:7])
    session.save(tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as archive:
        arrays = dict(archive)
    del arrays["values.1"]
    np.savez(tmp_path / "part.npz", **arrays)
    other = llm.session()
    other.read(TOKENS[10:20])
    with pytest.raises(OptionError, match=r"values of layer 1: expected uint8 .*, got none"):
        other.load(tmp_path / "part.npz")
    assert np.array_equal(other.read(TOKENS[20:22]), llm.logits(TOKENS[10:22])[-1])


def test_readers_that_take_turns(llm: LanguageModel) -> None:
    session, one, two = llm.session(), object(), object()
    expected, other = llm.logits(TOKENS), llm.logits(TOKENS[::-1])
    logits, n_read = session.read_after([], TOKENS[:10], one)
    assert np.array_equal(logits, expected[9])
    assert n_read == 10
    logits, n_read = session.read_after(TOKENS[:10], TOKENS[10:11], one)
    assert np.array_equal(logits, expected[10])
    assert n_read == 1
    logits, _ = session.read_after([], TOKENS[::-1][:10], two)
    assert np.array_equal(logits, other[9])
    logits, n_read = session.read_after(TOKENS[:11], TOKENS[11:12], one)
    assert np.array_equal(logits, expected[11])
    assert n_read == 12
    session.truncate(3)
    logits, n_read = session.read_after(TOKENS[:12], TOKENS[12:13], one)
    assert np.array_equal(logits, expected[12])
    assert n_read == 10


def test_the_same_model_with_other_weights_or_angles(llm: LanguageModel, tmp_path: Path) -> None:
    path = model_path("llama-dense")
    with read(path) as file:
        at = file.tensors["blk.1.ffn_norm.weight"].offset
    content = bytearray(path.read_bytes())
    content[at + 1] ^= 1
    (tmp_path / "tuned.gguf").write_bytes(content)
    llm.session().save(tmp_path / "session.npz")
    with (
        LanguageModel(tmp_path / "tuned.gguf") as other,
        pytest.raises(OptionError, match="expected a session of"),
    ):
        other.session().load(tmp_path / "session.npz")
    by_length = drawn_models.model_path("phi3-longrope")  # other factors from 33 tokens on
    with LanguageModel(by_length, context=32) as short, LanguageModel(by_length, context=64) as long:
        short.session().save(tmp_path / "session.npz")
        with pytest.raises(OptionError, match="expected a session of"):
            long.session().load(tmp_path / "session.npz")


def test_a_model_whose_tokens_see_all_others() -> None:
    name = next(name for name in drawn_models.EMBEDDERS if "bert" in name)
    with LanguageModel(drawn_models.model_path(name)) as llm:
        session = llm.session()
        with pytest.raises(ModelError, match="expected a model that has logits"):
            session.read([1, 2])
        session.read([1, 2], embeddings=True)
        with pytest.raises(OptionError, match=r"expected an empty sequence, as tokens .*, got 2"):
            session.read([3], embeddings=True)
        session.truncate(0)
        assert session.read([3], embeddings=True).shape == (llm.hyperparameters.n_embd,)


def test_an_interrupt_between_cache_and_tokens(llm: LanguageModel) -> None:
    session = llm.session()
    session.read(TOKENS[:5])
    del session.tokens[3:]
    assert np.array_equal(session.read(TOKENS[3:8]), llm.logits(TOKENS[:8])[-1])
