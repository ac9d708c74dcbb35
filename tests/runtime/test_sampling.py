"""Sampling: llama.cpp's candidates and probabilities, reproducible draws, and every option out of range."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kquant.errors import NonFiniteError, OptionError, ShapeError
from kquant.runtime.sampling import Sampler, Sampling, _exp
from support.golden import document

GOLDEN = document("runtime/sampling.json")
ALL: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
"""No sampler but the temperature."""


def options_of(case: dict[str, Any]) -> Sampling:
    options = dict(case["options"])
    if "logit_bias" in options:
        options["logit_bias"] = {int(token): bias for token, bias in options["logit_bias"].items()}
    return Sampling(**options)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['logits']}-{case['options']}")
def test_candidates_and_probabilities_are_those_of_llama_cpp(case: dict[str, Any]) -> None:
    logits = np.array(GOLDEN["logits"][case["logits"]], np.float32)
    ids, p = Sampler(options_of(case)).probabilities(logits, GOLDEN["previous"])
    assert sorted(ids.tolist()) == sorted(case["ids"])
    known = dict(zip(case["ids"], case["p"], strict=False))
    np.testing.assert_allclose([p[ids == token][0] for token in known], list(known.values()), rtol=1e-5)
    assert ids.tolist() == sorted(ids.tolist(), key=lambda token: (-p[ids == token][0], token))


def test_the_defaults_are_those_of_llama_cpp() -> None:
    assert {f.name: getattr(Sampling(), f.name) for f in dataclasses.fields(Sampling)} == {
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "typical_p": 1.0,
        "repeat_penalty": 1.0,
        "repeat_last_n": 64,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "seed": None,
    }


# ---------------------------------------------------------------- draws


def test_a_seed_draws_these_tokens_on_every_machine() -> None:
    logits = np.array([7 * i % 13 / 4 for i in range(60)], np.float32)  # many ties
    sampler = Sampler(Sampling(temperature=1.0, seed=42, **ALL))
    assert [sampler.sample(logits) for _ in range(12)] == [46, 25, 50, 42, 7, 59, 46, 48, 9, 27, 22, 55]
    sampler = Sampler(Sampling(seed=2**64 + 1))
    assert [sampler.sample(logits) for _ in range(12)] == [18, 50, 16, 37, 22, 46, 42, 50, 42, 9, 11, 31]


def test_a_seed_that_was_drawn_repeats_its_run() -> None:
    logits = np.zeros(1000, np.float32)
    first = Sampler(Sampling(**ALL))
    second = Sampler(Sampling(seed=first.seed, **ALL))
    assert [first.sample(logits) for _ in range(5)] == [second.sample(logits) for _ in range(5)]
    assert Sampler(Sampling()).seed != Sampler(Sampling()).seed


def test_draws_are_as_frequent_as_probable() -> None:
    logits = np.array([0, 1, 2, -1, 0.5, -math.inf], np.float32)
    sampler = Sampler(Sampling(temperature=1.3, seed=1, **ALL))
    ids, p = sampler.probabilities(logits)
    n = 8_000
    counts = Counter(sampler.sample(logits) for _ in range(n))
    for token, expected in zip(ids.tolist(), p, strict=True):
        assert abs(counts[token] / n - expected) < 5 * math.sqrt(expected * (1 - expected) / n)
    assert 5 not in counts


def test_a_single_candidate_draws_too() -> None:
    """So that a constraint that leaves one token does not shift what follows."""
    logits = np.arange(4, dtype=np.float32)
    one, many = Sampler(Sampling(seed=3, **ALL)), Sampler(Sampling(seed=3, **ALL))
    one.sample(np.array([0, -math.inf], np.float32))
    many.sample(logits)
    assert [one.sample(logits) for _ in range(9)] == [many.sample(logits) for _ in range(9)]


# ---------------------------------------------------------------- ties and extremes


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_greedy_takes_the_lowest_id_of_the_largest(temperature: float) -> None:
    sampler = Sampler(Sampling(temperature=temperature))
    logits = np.array([1, 5, 5, 2], np.float32)
    assert sampler.sample(logits) == 1
    assert [x.tolist() for x in sampler.probabilities(logits)] == [[1], [1.0]]


def test_of_equal_logits_the_lowest_ids_are_kept() -> None:
    ids, p = Sampler(Sampling(top_k=3, top_p=1)).probabilities(np.zeros(5000, np.float32))
    assert ids.tolist() == [0, 1, 2]
    assert p.tolist() == [1 / 3] * 3
    ids, _ = Sampler(Sampling(top_k=0, top_p=0.5)).probabilities(np.zeros(5000, np.float32))
    assert ids.tolist() == list(range(2500))


def test_tiny_temperatures_and_wide_logits_end_in_the_largest() -> None:
    logits = np.array([-3e38, 3e38, 1, 3e38], np.float32)
    ids, p = Sampler(Sampling(temperature=1e-308, **ALL)).probabilities(logits)
    assert ids.tolist() == [1, 3, 0, 2]
    assert p.tolist() == [0.5, 0.5, 0, 0]


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40),
    st.builds(
        Sampling,
        temperature=st.floats(0.05, 4),
        top_k=st.integers(-1, 45),
        top_p=st.floats(0, 1),
        min_p=st.floats(0, 1),
        typical_p=st.floats(0, 1),
        seed=st.integers(0, 2**70),
    ),
)
def test_what_is_drawn_is_a_candidate(logits: list[float], sampling: Sampling) -> None:
    array = np.array(logits, np.float32)
    before = array.copy()
    sampler = Sampler(sampling)
    ids, p = sampler.probabilities(array)
    assert len(ids)
    assert math.isclose(p.sum(), 1)
    assert (np.diff(p) <= 0).all()
    assert len(ids) <= (sampling.top_k if sampling.top_k > 0 else len(array))
    assert sampler.sample(array) in ids
    np.testing.assert_array_equal(array, before)


@given(st.lists(st.floats(-760, 0), min_size=1))
def test_the_exponential_is_exact_to_two_units(values: list[float]) -> None:
    x = np.array(values)
    expected = np.array([math.exp(v) for v in values])
    assert (np.abs(_exp(x) - expected) <= 2 * np.spacing(expected)).all()


def test_the_exponential_of_nothing_and_of_minus_infinity() -> None:
    assert _exp(np.array([0.0, -1e300, -np.inf])).tolist() == [1, 0, 0]


# ---------------------------------------------------------------- penalties and bias


def test_penalties_look_at_the_last_tokens_or_at_all() -> None:
    logits = np.array([2, 2, -2, 0], np.float32)
    previous = [0, 2, 2, 1]

    def adjusted(last_n: int) -> list[float]:
        sampling = Sampling(repeat_penalty=2, frequency_penalty=0.5, presence_penalty=1, repeat_last_n=last_n)
        return list(Sampler(sampling)._adjusted(logits, previous))

    assert adjusted(0) == [2, 2, -2, 0]
    assert adjusted(1) == [2, -0.5, -2, 0]
    assert adjusted(3) == [2, -0.5, -6, 0]
    assert adjusted(-1) == adjusted(64) == [-0.5, -0.5, -6, 0]


def test_bias_bans_and_prefers() -> None:
    logits = np.array([3, 2, 1], np.float32)
    bias = {0: -math.inf, 2: 5.0}
    sampling = Sampling(logit_bias=bias, **ALL)
    bias.clear()
    ids, _ = Sampler(sampling).probabilities(logits)
    assert ids.tolist() == [2, 1]
    assert logits.tolist() == [3, 2, 1]


# ---------------------------------------------------------------- speed


@pytest.mark.slow
def test_a_large_vocabulary_is_sampled_in_two_milliseconds() -> None:
    logits = np.random.default_rng(0).normal(size=151_936).astype(np.float32)
    sampler = Sampler(Sampling(repeat_penalty=1.1))
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        sampler.sample(logits, range(1000))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.002


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": math.nan}, "temperature: expected a number, got nan"),
        ({"temperature": math.inf}, "temperature: expected a number, got inf"),
        ({"temperature": "0.8"}, "temperature: expected a number, got '0.8'"),
        ({"temperature": None}, "temperature: expected a number, got None"),
        ({"top_k": 1.5}, "top_k: expected an integer, got 1.5"),
        ({"top_p": 1.5}, "top_p: expected a number from 0 to 1, got 1.5"),
        ({"min_p": -0.1}, "min_p: expected a number from 0 to 1, got -0.1"),
        ({"typical_p": math.nan}, "typical_p: expected a number, got nan"),
        ({"repeat_penalty": 0}, "repeat_penalty: expected a number above 0, got 0"),
        ({"repeat_penalty": -1}, "repeat_penalty: expected a number above 0, got -1"),
        ({"repeat_last_n": -2}, "repeat_last_n: expected an integer of at least -1, got -2"),
        ({"frequency_penalty": -math.inf}, "frequency_penalty: expected a number, got -inf"),
        ({"presence_penalty": math.nan}, "presence_penalty: expected a number, got nan"),
        ({"logit_bias": [1]}, "logit_bias: expected token ids and numbers, got [1]"),
        ({"logit_bias": {"a": 1}}, "logit_bias: token: expected an integer, got 'a'"),
        ({"logit_bias": {-1: 1}}, "logit_bias: token: expected an integer of at least 0, got -1"),
        ({"logit_bias": {1: math.inf}}, "logit_bias of token 1: expected a number, got inf"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"seed": 0.5}, "seed: expected an integer, got 0.5"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as error:
        Sampling(**options)
    assert str(error.value) == message


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(
    ("logits", "what"),
    [
        ([1, math.nan], "NaN or infinity"),
        ([1, math.inf], "NaN or infinity"),
        ([-math.inf] * 3, "no token that is allowed"),
    ],
)
def test_logits_that_are_no_numbers(temperature: float, logits: list[float], what: str) -> None:
    with pytest.raises(NonFiniteError, match=f"logits: expected numbers, found {what}"):
        Sampler(Sampling(temperature=temperature)).sample(np.array(logits, np.float32))


def test_logits_of_other_shapes() -> None:
    for shape in ((2, 3), (0,)):
        with pytest.raises(ShapeError, match=r"logits: expected \(n_vocab,\), found "):
            Sampler().sample(np.zeros(shape, np.float32))


def test_tokens_beyond_the_vocabulary() -> None:
    logits = np.zeros(3, np.float32)
    with pytest.raises(OptionError, match="logit_bias: expected token ids below 3, got 3"):
        Sampler(Sampling(logit_bias={3: 1.0})).sample(logits)
    sampler = Sampler(Sampling(repeat_penalty=2))
    for token in (3, -1):
        with pytest.raises(OptionError, match=f"previous: expected token ids below 3, got {token}"):
            sampler.sample(logits, [0, token])
