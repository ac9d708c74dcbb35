"""Caches of keys and values: rows are packed as `kquant.quantize` packs them, and stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

import kquant
from kquant import ModelError, OptionError, TensorType
from kquant.runtime.cache import CACHE_TYPES, Cache, cache_type

WIDTHS = [(64, 32), (96, 32)]


def made(type_k: str = "F16", type_v: str = "F16", capacity: int = 300) -> Cache:
    return Cache(WIDTHS, capacity, TensorType[type_k], TensorType[type_v])


def rows(n: int, width: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


@pytest.mark.parametrize("name", CACHE_TYPES)
def test_rows_are_those_of_quantize(name: str) -> None:
    cache, k, v = made(name, name), rows(200, 96), rows(200, 32, 1)
    for first in range(0, 200, 70):
        cache.put(1, first, k[first : first + 70], v[first : first + 70])
    assert np.array_equal(cache.keys(1, 3, 150), kquant.dequantize(kquant.quantize(k, name), name)[3:150])
    assert np.array_equal(cache.values(1, 0, 200), kquant.dequantize(kquant.quantize(v, name), name))


def test_memory_grows_with_the_sequence() -> None:
    cache = made()
    assert cache.nbytes == 0
    cache.put(0, 0, rows(1, 64), rows(1, 32))
    few = cache.nbytes
    cache.put(0, 1, rows(299, 64), rows(299, 32))
    assert 0 < few < cache.nbytes <= cache.bytes_at_most == 300 * 2 * (64 + 32 + 96 + 32)


def test_a_copy_goes_on_by_itself() -> None:
    cache = made()
    for layer, (k, v) in enumerate(WIDTHS):
        cache.put(layer, 0, rows(5, k), rows(5, v))
    cache.length = 5
    other = cache.copy()
    other.put(0, 4, rows(1, 64, 9), rows(1, 32, 9))
    assert np.array_equal(cache.keys(0, 0, 4), other.keys(0, 0, 4))
    assert not np.array_equal(cache.keys(0, 4, 5), other.keys(0, 4, 5))
    other.truncate(2)
    assert (cache.length, other.length) == (5, 2)


def test_state_and_restore() -> None:
    cache, other = made("Q8_0", "Q4_0"), made("Q8_0", "Q4_0")
    for layer, (k, v) in enumerate(WIDTHS):
        cache.put(layer, 0, rows(5, k), rows(5, v))
    cache.length = 5
    other.restore(cache.state(), 5)
    assert other.length == 5
    assert np.array_equal(cache.values(1, 0, 5), other.values(1, 0, 5))
    with pytest.raises(OptionError, match=r"keys of layer 0: expected uint8 \(4, 68\), got uint8 \(5, 68\)"):
        other.restore(cache.state(), 4)
    with pytest.raises(OptionError, match=r"values of layer 1: expected uint8 \(5, 18\), got none"):
        other.restore({k: v for k, v in cache.state().items() if k != "values.1"}, 5)
    with pytest.raises(OptionError, match="expected a session of up to 300 tokens, got 301"):
        other.restore(cache.state(), 301)


def test_types_that_cannot_be() -> None:
    assert cache_type("q8_0", "cache_type_k") is TensorType["Q8_0"]
    with pytest.raises(OptionError, match=r"cache_type_v: expected one of F32, .*, IQ4_NL, got 'Q4_K'"):
        cache_type("Q4_K", "cache_type_v")
    with pytest.raises(ModelError, match=r"layer 0: expected values in blocks of 32 .* of Q8_0, got 40 elem"):
        Cache([(64, 40)], 10, TensorType["Q8_0"], TensorType["Q8_0"])
