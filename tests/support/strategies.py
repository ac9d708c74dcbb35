"""Hypothesis strategies for super-blocks that quantizers dislike.

An example is a seed and a list of recipes, out of which a whole batch of rows is made: thousands of
super-blocks then cost a few hundred draws, and shrinking still ends at one recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hypothesis import strategies as st
from numpy.random import Generator
from numpy.typing import NDArray

from kquant.types import TensorType

N = 256
Recipe = Callable[[Generator], NDArray[np.floating]]


def _normal(rng: Generator) -> NDArray[np.floating]:
    return rng.standard_normal(N) * 10 ** rng.uniform(-3, 1)


def _sign(rng: Generator) -> NDArray[np.floating]:
    return rng.choice([-1.0, 1.0], N)


def _constant(rng: Generator) -> NDArray[np.floating]:
    return np.full(N, rng.standard_normal() * 10 ** rng.uniform(-6, 4))


def _constant_sub_blocks(rng: Generator) -> NDArray[np.floating]:
    width = rng.choice([16, 32, 64])
    return np.repeat(rng.standard_normal(N // width), width)


def _equal_sub_blocks(rng: Generator) -> NDArray[np.floating]:
    width = rng.choice([16, 32, 64])
    return np.tile(rng.standard_normal(width), N // width)


def _zero_runs(rng: Generator) -> NDArray[np.floating]:
    return _normal(rng) * np.repeat(rng.integers(0, 2, N // 16), 16)


def _ties(rng: Generator) -> NDArray[np.floating]:
    """Levels and half levels, with the ends of a format's range among them, times a power of two."""
    top = rng.choice([3, 4, 7, 8, 15, 16, 31, 32, 63, 127])
    levels = rng.integers(-2 * top, 2 * top + 1, N) / 2
    levels[rng.integers(0, N, 24)] = rng.choice([-top, top], 24)
    return levels * 2.0 ** rng.integers(-12, 6)


def _grid(rng: Generator) -> NDArray[np.floating]:
    """Values that a k-quant can hold: what requantizing meets."""
    scales = np.repeat(rng.integers(0, 64, N // 32), 32)
    minima = np.repeat(rng.integers(0, 64, N // 32), 32)
    return (scales * rng.integers(0, 16, N) - minima) * float(np.float16(10 ** rng.uniform(-4, 0)))


def _one_outlier(rng: Generator) -> NDArray[np.floating]:
    x = rng.standard_normal(N) * 0.01
    x[rng.integers(N)] = rng.choice([-1, 1]) * 10 ** rng.uniform(0, 4)
    return x


def _one_value(rng: Generator) -> NDArray[np.floating]:
    x = np.zeros(N)
    x[rng.integers(N)] = rng.standard_normal()
    return x


def _two_values(rng: Generator) -> NDArray[np.floating]:
    return rng.choice(rng.standard_normal(2), N)


def _plus_minus(rng: Generator) -> NDArray[np.floating]:
    """Every magnitude equal: the first of several largest has to win."""
    return _sign(rng) * abs(rng.standard_normal())


def _sparse(rng: Generator) -> NDArray[np.floating]:
    """Nine in ten are zeros of either sign."""
    return np.where(rng.random(N) < 0.9, np.copysign(0.0, _sign(rng)), rng.standard_normal(N))


def _tiny_range(rng: Generator) -> NDArray[np.floating]:
    noise = rng.standard_normal(N) * 10 ** rng.uniform(-8, -4)
    centre = float(rng.standard_normal())
    return centre + centre * noise


def _mixed(rng: Generator) -> NDArray[np.floating]:
    return _sign(rng) * 10 ** rng.uniform(-20, 4, N)


def _mixed_sub_blocks(rng: Generator) -> NDArray[np.floating]:
    return rng.standard_normal(N) * np.repeat(10 ** rng.uniform(-8, 3, N // 16), 16)


def _near_group_eps(rng: Generator) -> NDArray[np.floating]:
    """Around 1e-15, below which a group counts as zero."""
    return rng.standard_normal(N) * np.repeat(10 ** rng.uniform(-16, -14, N // 16), 16)


def _near_half_limits(rng: Generator) -> NDArray[np.floating]:
    """Scales that become subnormal fp16 numbers, or nearly infinite ones."""
    return rng.standard_normal(N) * float(rng.choice([1e-8, 1e-7, 1e-6, 1e-5, 1e4, 1e5]))


def _subnormal(rng: Generator) -> NDArray[np.float32]:
    bits = rng.integers(0, 1 << rng.integers(1, 24), N, dtype=np.uint32)
    return (bits | rng.integers(0, 2, N, dtype=np.uint32) << np.uint32(31)).view(np.float32)


def _any_bits(rng: Generator) -> NDArray[np.float32]:
    """Any finite float32 at all."""
    bits = rng.integers(0, 1 << 32, N, dtype=np.uint32)
    infinite = bits & np.uint32(0x7F800000) == 0x7F800000
    return np.where(infinite, bits & np.uint32(0xBFFFFFFF), bits).view(np.float32)


RECIPES: Mapping[str, Recipe] = {
    "normal": _normal,
    "heavy tails": lambda rng: rng.standard_t(2.5, N) * 0.02,
    "uniform": lambda rng: rng.uniform(-1, 1, N),
    "zeros": lambda rng: np.zeros(N),
    "negative zeros": lambda rng: np.full(N, -0.0),
    "zeros of both signs": lambda rng: np.copysign(0.0, _sign(rng)),
    "constant": _constant,
    "constant sub-blocks": _constant_sub_blocks,
    "equal sub-blocks": _equal_sub_blocks,
    "zero runs": _zero_runs,
    "ties": _ties,
    "grid": _grid,
    "one outlier": _one_outlier,
    "one value": _one_value,
    "two values": _two_values,
    "plus and minus": _plus_minus,
    "sparse": _sparse,
    "tiny range": _tiny_range,
    "ramp": lambda rng: np.linspace(rng.standard_normal(), rng.standard_normal(), N),
    "all positive": lambda rng: np.abs(_normal(rng)),
    "all negative": lambda rng: -np.abs(_normal(rng)),
    "mixed magnitudes": _mixed,
    "mixed sub-blocks": _mixed_sub_blocks,
    "near the smallest group": _near_group_eps,
    "near the ends of fp16": _near_half_limits,
    "subnormal": _subnormal,
    "huge": lambda rng: rng.standard_normal(N) * 10 ** rng.uniform(20, 37),
    "any bits": _any_bits,
}

WEIGHTS: Mapping[str, Recipe] = {
    "ones": lambda rng: np.ones(N),
    "log-normal": lambda rng: np.exp(rng.standard_normal(N) * 2),
    "squares": lambda rng: rng.standard_normal(N) ** 2,
    "some zeros": lambda rng: rng.random(N) * (rng.random(N) < 0.8),
    "zero sub-blocks": lambda rng: rng.random(N) * np.repeat(rng.integers(0, 2, N // 16), 16),
    "one column": lambda rng: (np.arange(N) == rng.integers(N)) * 1.0,
    "nothing": lambda rng: np.zeros(N),
    "tiny": lambda rng: rng.random(N) * 1e-30,
    "large": lambda rng: rng.random(N) * 1e6,
    "mixed magnitudes": lambda rng: 10 ** rng.uniform(-12, 6, N),
    "huge": lambda rng: rng.random(N) * 10 ** rng.uniform(20, 38),
    "any magnitude": lambda rng: 10 ** rng.uniform(-37, 38, N),
}


@dataclass(frozen=True)
class Batch:
    """Rows made of super-blocks by recipe, and importance weights for their columns."""

    seed: int
    n_blocks: int
    recipes: tuple[str, ...]
    weight_recipes: tuple[str, ...]
    n_rows: int

    @cached_property
    def _made(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rng = np.random.default_rng(self.seed)
        blocks = _make(RECIPES, self.recipes, self.n_rows * self.n_blocks, rng)
        weights = _make(WEIGHTS, self.weight_recipes, self.n_blocks, rng)
        return blocks.reshape(self.n_rows, -1), weights.reshape(-1)

    @property
    def x(self) -> NDArray[np.float32]:
        """float32 (n_rows, 256 * n_blocks), every one finite."""
        return self._made[0]

    @property
    def weights(self) -> NDArray[np.float32] | None:
        """float32 (256 * n_blocks,), or None if no weight recipe was drawn."""
        return self._made[1] if self.weight_recipes else None

    def recipe(self, row: int, element: int) -> str:
        """Which recipe made an element: for a message that says where two results differ."""
        return self.recipes[(row * self.n_blocks + element // N) % len(self.recipes)]


def _make(
    recipes: Mapping[str, Recipe], names: Sequence[str], count: int, rng: Generator
) -> NDArray[np.float32]:
    made = np.empty((count, N), np.float32)
    for i in range(count if names else 0):
        made[i] = recipes[names[i % len(names)]](rng)
    return made


def batches(*, weighted: bool, n_rows: int = 32) -> st.SearchStrategy[Batch]:
    """Batches of 64 super-blocks or so; with importance weights or without."""
    return st.builds(
        Batch,
        seed=st.integers(0, 2**32 - 1),
        n_blocks=st.integers(1, 3),
        recipes=_some(RECIPES, 8),
        weight_recipes=_some(WEIGHTS, 3) if weighted else st.just(()),
        n_rows=st.just(n_rows),
    )


def _some(names: Mapping[str, Recipe], most: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(list(names)), min_size=1, max_size=most).map(tuple)


def random_blocks(type_name: str, n: int, seed: int) -> NDArray[np.uint8]:
    """n blocks of arbitrary bytes: uint8 (n, type_size)."""
    return np.random.default_rng(seed).integers(0, 256, (n, TensorType[type_name].type_size), np.uint8)
