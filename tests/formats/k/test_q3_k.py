"""Q3_K where the weighted sums of its sub-blocks overflow float32, so that their scales are infinite or NaN.

ggml rounds NaN to level 0, and its super-block ends with d = 0.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.formats import format_of
from kquant.kernels.execute import Execution
from kquant.types import TensorType

RECORDED = {
    (1.0, 1e31): "d52cebec2bcc6e7e",  # no overflow yet
    (1.0, 1e33): "2cdf4d7a79f7573a",  # in the sums over the scales: d = -0
    (1e2, 1e33): "fed38d967e388573",  # in the sums of the sub-blocks, infinite scales: all scales 32, d = 0
    (1e4, 1e29): "fed38d967e388573",
    (1e2, 1e36): "e45fd6ed7d6b4c9a",  # all scales NaN: all scales 0, d = 0
    (1e5, 1e31): "e45fd6ed7d6b4c9a",
}
"""(magnitude of the values, of the weights) -> the beginning of the SHA-256 of the block that ggml writes."""


def block(magnitude: float, weight: float, execution: Execution) -> NDArray[np.uint8]:
    i = np.arange(256)
    x = ((i * 37 % 256 - 128) / 32 * magnitude).astype(np.float32).reshape(1, 256)
    weights = ((i * 53 % 97 + 1) / 97 * weight).astype(np.float32)
    out = np.zeros((1, 110), np.uint8)
    format_of(TensorType.Q3_K).quantize_rows(x, weights, out, execution)
    first: NDArray[np.uint8] = out[0]
    return first


@pytest.mark.parametrize("execution", ["numba", "numpy"])
@pytest.mark.parametrize(("magnitude", "weight"), RECORDED)
def test_weighted_sums_that_overflow(magnitude: float, weight: float, execution: Execution) -> None:
    got = block(magnitude, weight, execution)
    digest = hashlib.sha256(got.tobytes()).hexdigest()
    assert digest[:16] == RECORDED[magnitude, weight], got.tobytes().hex()
