"""Rotary position embeddings: the angle of each pair of elements at each position.

Source: `ggml_rope_cache_init` in
https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-cpu/ops.cpp
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from kquant.errors import ModelError

__all__ = ["Rope", "angles"]

LEAST, MOST = 1e-4, 1e18
"""Of factors and bases: wide of what models have, and near enough for logarithms and floats."""


@dataclass(frozen=True)
class Rope:
    """How the elements of a head are rotated.  Raises `ModelError` for numbers that no rotation has."""

    n_dims: int
    """Elements that are rotated; those behind them stay."""
    pairs: Literal["adjacent", "halves"]
    """Which elements make a pair: 2 i and 2 i + 1, or i and i + n_dims / 2."""
    base: float = 10000.0
    scale: float = 1.0
    """Positions are multiplied with it (linear scaling)."""
    factors: str | None = None
    """A tensor (n_dims / 2,) that angles are divided by (Llama 3, LongRoPE)."""
    magnitude: float = 1.0
    """Results are multiplied with it."""
    extrapolation: float = 0.0
    """How much of YaRN's mixture is used: 0 for none."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    original_context: int = 0
    """Tokens of the context that the model was trained with, for YaRN."""

    def __post_init__(self) -> None:
        if self.n_dims < 2 or self.n_dims % 2:
            raise ModelError(f"rope: expected pairs of elements to rotate, got {self.n_dims} elements")
        least_base = 1 + LEAST if self.extrapolation else LEAST
        betas = ("beta_fast", self.beta_fast, LEAST), ("beta_slow", self.beta_slow, LEAST)
        for name, number, least in (("freq_base", self.base, least_base), *betas):
            if not least <= number <= MOST:
                raise ModelError(f"rope: expected a {name} of {least:g} to {MOST:g}, got {number:g}")


def angles(
    rope: Rope, positions: npt.NDArray[np.int32], factors: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    """Cosine and sine of each pair at each position, times the magnitude.

    Angles are multiplied up in float32 from pair to pair, as ggml does.

    Args:
        rope: How to rotate.
        positions: Shape (n,).
        factors: The values of the tensor that `rope.factors` names.

    Returns:
        float32 (2, n, n_dims / 2).

    >>> import numpy as np
    >>> angles(Rope(n_dims=4, pairs="halves"), np.array([0, 1], np.int32), None)[0].round(4)
    array([[1.    , 1.    ], [0.5403, 1.    ]], dtype=float32)
    """
    n_pairs = rope.n_dims // 2
    step = np.float32(np.float32(rope.base) ** np.float32(-2.0 / rope.n_dims))
    theta = np.empty((n_pairs, len(positions)), np.float32)
    value = positions.astype(np.float32)
    for i in range(n_pairs):
        theta[i] = value
        value = value * step
    theta = theta.T
    if factors is not None:
        theta = theta / factors
    mixed, magnitude = np.float32(rope.scale) * theta, np.float32(rope.magnitude)
    if rope.extrapolation:
        ramp = _ramp(rope) * np.float32(rope.extrapolation)
        mixed = mixed * (1 - ramp) + theta * ramp
        magnitude *= np.float32(1 + 0.1 * math.log(1 / rope.scale))
    wide = mixed.astype(np.float64)  # rounded from float64, they are the same on every processor
    cos, sin = np.cos(wide).astype(np.float32), np.sin(wide).astype(np.float32)
    return np.stack([cos * magnitude, sin * magnitude])


def _ramp(rope: Rope) -> npt.NDArray[np.float32]:
    """(n_dims / 2,): 1 for pairs that turn so fast that they are extrapolated, 0 for the slowest."""

    def pair_of(rotations: float) -> float:
        turns = rope.original_context / (rotations * 2 * math.pi)
        return rope.n_dims * math.log(turns) / (2 * math.log(rope.base))

    low = max(0.0, math.floor(pair_of(rope.beta_fast)))
    high = min(rope.n_dims - 1.0, math.ceil(pair_of(rope.beta_slow)))
    pairs = np.arange(rope.n_dims // 2, dtype=np.float32)
    along = (pairs - np.float32(low)) / np.float32(max(0.001, high - low))
    ramp: npt.NDArray[np.float32] = 1 - np.clip(along, 0, 1).astype(np.float32)
    return ramp
