"""Generations that take turns, or are left; options; vocabularies that do not fit; the end of a model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kquant import LanguageModel, OptionError
from support.speaking_models import write_speaking_model

ONE, OTHER = [5, 6, 7, 8, 9, 10, 11], [50, 61, 40, 41]
WARM: dict[str, Any] = {"temperature": 0.1, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 2}


@pytest.fixture
def llm(tmp_path: Path) -> Iterator[LanguageModel]:
    with LanguageModel(write_speaking_model(tmp_path / "m.gguf"), context=64) as made:
        yield made


def alone(llm: LanguageModel, prompt: list[int], n: int = 30, **options: Any) -> list[int | None]:
    session = llm.session()
    return [piece.token for piece in llm.generate(prompt, n, session=session, **(WARM | options))]


def test_generations_take_turns(llm: LanguageModel) -> None:
    one, other = llm.generate(ONE, 30, **WARM), llm.generate(OTHER, 30, **WARM)
    found: tuple[list[int | None], list[int | None]] = [], []
    for pair in zip(one, other, strict=True):
        for tokens, piece in zip(found, pair, strict=True):
            tokens.append(piece.token)
    assert found == (alone(llm, ONE), alone(llm, OTHER))
    assert found[0] != found[1]


def test_one_is_left_and_taken_up_again(llm: LanguageModel) -> None:
    left = llm.generate(ONE, 30, **WARM)
    first = [piece.token for piece in islice(left, 3)]
    assert [piece.token for piece in llm.generate(OTHER, 30, **WARM)] == alone(llm, OTHER)
    assert first + [piece.token for piece in left] == alone(llm, ONE)


def test_generations_in_threads(llm: LanguageModel) -> None:
    prompts = [ONE, OTHER, ONE, OTHER]
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda ids: [piece.token for piece in llm.generate(ids, 30, **WARM)], prompts)
        assert list(found) == [alone(llm, ids) for ids in prompts]


def test_a_context_slides_whoever_takes_turns(llm: LanguageModel) -> None:
    expected = alone(llm, ONE, 90, slide=True)
    found = []
    for i, piece in enumerate(llm.generate(ONE, 90, slide=True, **WARM)):
        found.append(piece.token)
        if i % 20 == 0:
            list(llm.generate(OTHER, 2, **WARM))
    assert found == expected


def test_only_what_differs_is_read(llm: LanguageModel) -> None:
    list(llm.generate(ONE, 4, **WARM))
    llm.timings.reset()
    list(llm.generate([*ONE, 50], 4, **WARM))
    assert llm.timings.prompt_tokens == 1


def test_options_of_other_types(llm: LanguageModel) -> None:
    for options, message in (
        ({"max_tokens": "3"}, "max_tokens: expected a whole number, got '3'"),
        ({"max_tokens": 1.5}, "max_tokens: expected a whole number, got 1.5"),
        ({"stop": 3}, "stop: expected a string or a list of strings, got 3"),
        ({"stop": ""}, "stop: expected strings with characters, got ''"),
        ({"logit_bias": {5: 1e39}}, "logit_bias of token 5: expected a number, got 1e[+]39"),
        ({"logit_bias": {1 << 70: 1.0}}, "logit_bias: token: expected an integer of at most"),
    ):
        with pytest.raises(OptionError, match=message):
            llm.generate([5], **options)
    for prompt in (None, 3):
        with pytest.raises(OptionError, match="tokens: expected integers of shape"):
            llm.generate(prompt)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="texts: expected a string or a list of strings, got None"):
        llm.embed(None)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"context: expected a whole number, got 2\.5"):
        LanguageModel(llm.path, context=2.5)  # type: ignore[arg-type]


def test_rows_beyond_the_vocabulary_have_no_text(tmp_path: Path) -> None:
    path = write_speaking_model(tmp_path / "m.gguf", n_tokens=110)
    with LanguageModel(path) as llm:
        pieces = list(llm.generate([5], 3, temperature=0.0, logit_bias={127: 1000.0}))
    assert [(piece.token, piece.text) for piece in pieces] == [(127, "")] * 3


def test_what_is_watched_cannot_be_written(llm: LanguageModel) -> None:
    def spoil(name: str, x: npt.NDArray[np.float32], expert: int | None) -> None:
        x[:] = 0

    expected = llm.logits(ONE)
    session = llm.session()
    session.read(ONE[:3])
    with llm.watch("blk.1.ffn_up.weight", spoil), pytest.raises(ValueError, match="read-only"):
        session.read(ONE[3:])
    assert np.array_equal(session.read(ONE[3:], every=True), expected[3:])  # as if it had not been tried


def test_a_model_that_is_closed(llm: LanguageModel) -> None:
    going_on = llm.generate(ONE, 30, **WARM)
    next(going_on)
    llm.close()
    for use in (lambda: llm.logits(ONE), lambda: llm.embed("a"), lambda: next(going_on)):
        with pytest.raises(OptionError, match="expected an open model, got one that is closed"):
            use()
