"""IQ4_NL: the nearest level is the one that ggml's search by halves finds, at every border between two."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import kquant
from kquant.formats.iq import iq4_nl
from kquant.formats.iq.iq4_nl import LEVELS
from kquant.kernels.execute import Execution

f32 = np.float32


def as_ggml_does(x: np.float32) -> int:
    """`best_index_int8`: float32 differences to the levels around the value; the upper for equal ones."""
    if x <= LEVELS[0]:
        return 0
    if x >= LEVELS[-1]:
        return 15
    upper = next((i for i, level in enumerate(LEVELS) if x < level), 15)
    return upper - 1 if x - f32(LEVELS[upper - 1]) < f32(LEVELS[upper]) - x else upper


def around(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each value with the eight float32 numbers that are next to it."""
    found = [values]
    for end in (-np.inf, np.inf):
        near = values
        for _ in range(4):
            near = np.nextafter(near, f32(end))
            found.append(near)
    return np.concatenate(found)


def test_nearest() -> None:
    levels = np.array(LEVELS, f32)
    spread = np.random.default_rng(0).uniform(-150, 150, 2000).astype(f32)
    x = np.concatenate([around((levels[1:] + levels[:-1]) * f32(0.5)), around(levels), spread])
    x = np.concatenate([x, [0, -0.0, 1e-40, -1e-40, 3e38, -3e38, np.inf, -np.inf, np.nan]]).astype(f32)
    assert iq4_nl.nearest(x).tolist() == [as_ggml_does(value) for value in x]


@pytest.mark.parametrize("execution", ["numba", "numpy"])
def test_levels_times_a_scale_come_back(execution: Execution) -> None:
    x = np.array([*LEVELS, *LEVELS], f32)[None] * f32(0.5)
    packed = kquant.quantize(x, "IQ4_NL", execution=execution)
    fields = iq4_nl.unpack(packed)
    assert float(fields["d"][0, 0]) == 0.5
    assert fields["q"][0, 0].tolist() == [*range(16), *range(16)]
    assert np.array_equal(kquant.dequantize(packed, "IQ4_NL", execution=execution), x)


def test_a_block_of_zeros_has_the_level_nearest_to_zero() -> None:
    packed = kquant.quantize(np.zeros(32, f32), "IQ4_NL")
    assert packed.tobytes().hex() == "0000" + "88" * 16
