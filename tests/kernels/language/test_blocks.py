"""Every word for whole blocks gives the same under NumPy and compiled by Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.kernels.compile import compiled
from kquant.kernels.language.blocks import (
    BLOCKS,
    apart,
    are_finite,
    count,
    first_of,
    highest,
    largest,
    lowest,
    of_block,
    put_bits,
    put_run,
    put_shorts,
    put_sum,
    run_of,
    together,
)
from kquant.kernels.language.lanes import Rows, as_float, as_int, bits_of_float, half_bits
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.products import block_from

pytestmark = pytest.mark.usefixtures("compiled_here")


def many_blocks(seed: int = 0) -> NDArray[np.float32]:
    """Also with ties between both signs, zeros of both signs, and the extreme anywhere."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20 * BLOCKS, 32)).astype(np.float32)
    x[: 8 * BLOCKS] = np.round(x[: 8 * BLOCKS])
    x[8 * BLOCKS : 12 * BLOCKS] = np.abs(x[8 * BLOCKS : 12 * BLOCKS])
    x[9 * BLOCKS : 11 * BLOCKS] *= rng.choice([0, -0.0, 1], (2 * BLOCKS, 32))
    x[11 * BLOCKS : 13 * BLOCKS] = rng.choice([0, -0.0], (2 * BLOCKS, 32))
    x[13 * BLOCKS : 15 * BLOCKS] = 0
    rows = np.arange(13 * BLOCKS, 15 * BLOCKS)
    x[rows, rows % 32] = np.where(rows % 2, -3, 3)
    return x


@kernel
def extremes(x: Rows, out: Rows) -> None:
    for start in range(0, x.shape[0], BLOCKS):
        some, packed = block_from(x, start, 0, 16), block_from(out, start, 0, 16)
        put_shorts(packed, 0, bits_of_float(highest(some)) >> 16)
        put_shorts(packed, 2, bits_of_float(lowest(some)) >> 16)
        put_shorts(packed, 4, bits_of_float(largest(some)) >> 16)
        put_shorts(packed, 6, bits_of_float(first_of(some, largest(some))) >> 16)
        put_shorts(packed, 8, half_bits(first_of(some, np.abs(lowest(some)))))


@kernel
def runs(x: Rows, out: Rows) -> None:
    for start in range(0, x.shape[0], BLOCKS):
        some, packed = block_from(x, start, 0, 16), block_from(out, start, 0, 16)
        factor, sums = apart(largest(some)), apart(as_int(largest(some)))
        for b in range(count(some)):
            low, high = run_of(some, b, 0, 16), run_of(some, b, 16, 16)
            put_run(packed, b, 0, as_int(low * of_block(factor, b)))
            put_bits(packed, b, 16, high > low)
            q = as_int(np.copysign(run_of(some, b, 0, 32), -of_block(factor, b)) * np.float32(9))
            put_run(packed, b, 18, q)
            put_sum(sums, b, q)
        put_shorts(packed, 50, as_int(as_float(together(sums))))


@pytest.mark.parametrize(("words", "n_bytes"), [(extremes, 10), (runs, 52)])
def test_both_executions(words: Any, n_bytes: int) -> None:
    x = many_blocks()
    x.flags.writeable = False
    numpy, numba = (np.full((len(x), n_bytes), 77, np.uint8) for _ in range(2))
    words(x, numpy)
    compiled(words, "R(float32, 2), uint8[:, ::1]", words.__name__)(x, numba)
    if words is extremes:  # zeros of both signs are equal: either may be the highest or lowest
        for at in (0, 2):
            for packed in (numpy, numba):
                zero = packed[:, at : at + 2].copy().view(np.uint16) == 0x8000
                packed[:, at + 1] = np.where(zero[:, 0], 0, packed[:, at + 1])
    assert np.array_equal(numpy, numba)


def test_the_first_of_equal_magnitudes() -> None:
    x = np.ones((3, 32), np.float32)
    x[0, 5:], x[1, :4], x[2, 31] = -2, -1, -1
    assert first_of(x, np.array([2, 1, 1], np.float32)).tolist() == [-2, -1, 1]


@kernel
def is_finite(x: Rows) -> bool:
    return are_finite(block_from(x, 0, 0, 16))


def test_finite() -> None:
    run = compiled(is_finite, "R(float32, 2)", "is_finite")
    whole = many_blocks()[:BLOCKS]
    for value in (np.nan, -np.nan, np.inf, -np.inf):
        for at in (0, 15, 16, 31, 32, 511):
            x = whole.copy()
            x.reshape(-1)[at] = value
            assert not run(x)
            assert not is_finite(x)
    whole[3] = np.finfo(np.float32).max
    assert run(whole)
    assert is_finite(whole)
