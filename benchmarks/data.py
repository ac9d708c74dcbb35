"""Weights as models have them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROW = 4096
"""Elements of a row: the width of many models."""


def weights(n_rows: int, seed: int = 0) -> NDArray[np.float32]:
    """float32 (n_rows, 4096): normal with a scale for each column, and one in 500 many times larger."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_rows, ROW), np.float32)
    x *= (0.02 * np.exp(0.4 * rng.standard_normal(ROW))).astype(np.float32)
    outliers = rng.integers(0, x.size, x.size // 500)
    x.reshape(-1)[outliers] *= rng.uniform(4, 16, outliers.size).astype(np.float32)
    return x


def importance(seed: int = 1) -> NDArray[np.float32]:
    """float32 (4096,): mean squares of activations, which spread over some orders of magnitude."""
    return np.exp(1.5 * np.random.default_rng(seed).standard_normal(ROW)).astype(np.float32)
