"""From logits to the next token: llama.cpp's chain of samplers with its defaults.

The chain, in this order, as ``common_params_sampling`` and ``common_sampler_init`` have it
(https://github.com/ggml-org/llama.cpp/blob/master/common/common.h, ``common/sampling.cpp``,
``src/llama-sampler.cpp``):

=============== ==================================================================================
logit bias      added to the logits of some tokens; minus infinity bans a token
penalties       of the last ``repeat_last_n`` tokens: logits are divided by ``repeat_penalty`` (multiplied
                if negative), then reduced by count × ``frequency_penalty`` + ``presence_penalty``
top-k           the ``top_k`` largest logits
typical         the tokens whose information is nearest to the entropy, up to a mass of ``typical_p``
top-p           the most likely tokens, up to a mass of ``top_p``
min-p           the tokens that have at least ``min_p`` of the probability of the likeliest
temperature     logits are divided by it; the softmax of what is left is drawn from
=============== ==================================================================================

**The same seed gives the same tokens on every machine**, for the same logits. Random numbers are the raw
words of NumPy's PCG64, whose stream NumPy promises to keep; candidates are ordered by logit and then by id,
so that ties have one order; sums are sequential; and `exp` is made of operations that IEEE 754 rounds in one
way only, because those of libraries differ in the last bit. What is drawn is not what llama.cpp draws with
the same seed: its generator is another.
"""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kquant.errors import NonFiniteError, OptionError, ShapeError

__all__ = ["Sampler", "Sampling"]

FLOAT_MAX = float(np.finfo(np.float32).max)
MOST_TOKENS = 1 << 31

Ids: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; the defaults are llama.cpp's.

    `OptionError` names the option that is out of its range.

    >>> Sampling(temperature=0.0).greedy
    True
    >>> Sampling(top_p=95)
    Traceback (most recent call last):
    ...
    kquant.errors.OptionError: top_p: expected a number from 0 to 1, got 95
    """

    temperature: float = 0.8
    """Logits are divided by it; 0 or less takes the largest logit."""
    top_k: int = 40
    """How many tokens are left; 0 or less: all."""
    top_p: float = 0.95
    """Mass of the most likely tokens that are left; 1: all."""
    min_p: float = 0.05
    """The least probability, as a share of the largest; 0: none."""
    typical_p: float = 1.0
    """Mass of the most typical tokens that are left; 1: all."""
    repeat_penalty: float = 1.0
    """Divides the logits of tokens that were there; 1: no penalty."""
    repeat_last_n: int = 64
    """How many tokens back the three penalties look; 0: none, -1: all."""
    frequency_penalty: float = 0.0
    """Is subtracted once for each time that a token was there."""
    presence_penalty: float = 0.0
    """Is subtracted once if a token was there."""
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    """Token id -> what is added to its logit; ``-math.inf`` bans it."""
    seed: int | None = None
    """Of the random numbers; None draws a seed."""

    def __post_init__(self) -> None:
        _integer("top_k", self.top_k)
        _integer("repeat_last_n", self.repeat_last_n, least=-1)
        if self.seed is not None:
            _integer("seed", self.seed, least=0)
        for name in ("temperature", "frequency_penalty", "presence_penalty"):
            _number(name, getattr(self, name))
        for name in ("top_p", "min_p", "typical_p"):
            value = _number(name, getattr(self, name))
            if not 0 <= value <= 1:
                raise OptionError(f"{name}: expected a number from 0 to 1, got {value:g}")
        # with a subnormal penalty, 1 / penalty is infinite
        if not (_number("repeat_penalty", self.repeat_penalty) > 1e-30):
            raise OptionError(f"repeat_penalty: expected a number above 0, got {self.repeat_penalty:g}")
        if not isinstance(self.logit_bias, Mapping):
            raise OptionError(f"logit_bias: expected token ids and numbers, got {self.logit_bias!r}")
        for token, bias in self.logit_bias.items():
            _integer("logit_bias: token", token, least=0, most=MOST_TOKENS)
            if bias != -math.inf:
                _number(f"logit_bias of token {token}", bias)
        object.__setattr__(self, "logit_bias", dict(self.logit_bias))  # not the caller's, who may change it

    @property
    def greedy(self) -> bool:
        """Whether the largest logit is taken and nothing is drawn."""
        return self.temperature <= 0

    @property
    def penalizes(self) -> bool:
        """Whether tokens that were there change the logits."""
        neutral = self.repeat_penalty == 1 and self.frequency_penalty == 0 and self.presence_penalty == 0
        return self.repeat_last_n != 0 and not neutral


class Sampler:
    """Chooses tokens; holds the state of the random numbers.

    >>> logits = np.array([0.0, 2.0, 1.0, -3.0], np.float32)
    >>> Sampler(Sampling(temperature=0)).sample(logits)
    1
    >>> sampler = Sampler(Sampling(temperature=1.5, seed=7))
    >>> [sampler.sample(logits) for _ in range(8)]
    [2, 0, 2, 1, 1, 0, 1, 2]
    """

    def __init__(self, sampling: Sampling | None = None) -> None:
        self.sampling = sampling or Sampling()
        self.seed = secrets.randbits(32) if self.sampling.seed is None else self.sampling.seed
        """The seed that is used, with which a run can be repeated."""
        self._random = np.random.PCG64(self.seed)

    def sample(self, logits: npt.NDArray[np.float32], previous: Sequence[int] = ()) -> int:
        """The id of the next token. Each call draws one random number; a greedy one draws none.

        `logits`, float32 (n_vocab,), is not changed; minus infinity means that a token is not allowed.
        `previous` are the ids so far, oldest first. Of equal logits, the one with the lowest id comes first.

        Raises `ShapeError` if `logits` is not one row, `NonFiniteError` if it has NaN or infinity or allows
        no token, `OptionError` if `previous` or `logit_bias` has a token that the vocabulary has not.
        """
        ids, shifted = self._candidates(logits, previous)
        if self.sampling.greedy:
            return int(ids[0])
        running = np.cumsum(_exp(shifted))
        # below 1 by 2**-53 or more: the product is below running[-1] after rounding, too
        fraction = (int(self._random.random_raw()) >> 11) * 2.0**-53
        return int(ids[np.searchsorted(running, fraction * running[-1], side="right")])

    def probabilities(
        self, logits: npt.NDArray[np.float32], previous: Sequence[int] = ()
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The tokens that `sample` chooses from, the most likely first, and their probabilities.

        int64 (n,) and float64 (n,), whose sum is 1. Draws no random number; raises what `sample` raises.

        >>> logits = np.log(np.array([1, 3, 4, 2], np.float32))
        >>> ids, p = Sampler(Sampling(temperature=1, top_k=2)).probabilities(logits)
        >>> ids.tolist(), p.round(4).tolist()
        ([2, 1], [0.5714, 0.4286])
        """
        ids, shifted = self._candidates(logits, previous)
        order = _descending(shifted, len(shifted))
        weights = _exp(shifted[order])
        return ids[order], weights / _sum(weights)

    def _candidates(self, logits: npt.NDArray[np.float32], previous: Sequence[int]) -> tuple[Ids, Floats]:
        """The ids that are left and their logits after the temperature, less the largest.

        In the order in which they are drawn: by id, or from the largest if a sampler has sorted them.
        """
        options = self.sampling
        if logits.ndim != 1 or not len(logits):
            raise ShapeError(f"logits: expected (n_vocab,), found {logits.shape}")
        logits = self._adjusted(logits, previous)
        highest = np.max(logits)
        if not np.isfinite(highest):
            what = "no token that is allowed" if highest < 0 else "NaN or infinity"
            raise NonFiniteError(f"logits: expected numbers, found {what}")
        if options.greedy:
            return np.array([np.argmax(logits)]), np.zeros(1)
        ids = np.arange(len(logits))
        if 0 < options.top_k < len(logits):
            ids = _descending(logits, options.top_k)
        ids = ids[logits[ids] != -np.inf]
        shifted = logits[ids].astype(np.float64) - np.float64(highest)
        if options.typical_p < 1:
            kept = _typical(shifted, options.typical_p)
            ids, shifted = ids[kept], shifted[kept] - np.max(shifted[kept])
        if options.top_p < 1:
            kept = _top_p(shifted, options.top_p)
            ids, shifted = ids[kept], shifted[kept]
        if options.min_p > 0:
            kept = np.flatnonzero(_exp(shifted) >= options.min_p)
            ids, shifted = ids[kept], shifted[kept]
        with np.errstate(over="ignore"):  # to minus infinity, if the temperature is tiny
            return ids, shifted / options.temperature

    def _adjusted(self, logits: npt.NDArray[np.float32], previous: Sequence[int]) -> npt.NDArray[np.float32]:
        """The logits after bias and penalties: themselves if there are none."""
        options = self.sampling
        biased = np.array(list(options.logit_bias), np.int64)
        window = previous[-options.repeat_last_n :] if options.repeat_last_n > 0 else previous
        seen, counts = np.unique(np.array(window if options.penalizes else [], np.int64), return_counts=True)
        if not len(biased) and not len(seen):
            return logits
        for name, tokens in (("logit_bias", biased), ("previous", seen)):
            if len(tokens) and not 0 <= tokens.min() <= tokens.max() < len(logits):
                worst = tokens.min() if tokens.min() < 0 else tokens.max()
                raise OptionError(f"{name}: expected token ids below {len(logits)}, got {worst}")
        logits = logits.copy()
        penalty = np.float32(options.repeat_penalty)
        with np.errstate(over="ignore", invalid="ignore"):  # `_candidates` looks at the results
            logits[biased] += np.array(list(options.logit_bias.values()), np.float32)
            values = logits[seen]
            values = np.where(values > 0, values / penalty, values * penalty)
            values -= np.float32(options.frequency_penalty) * counts.astype(np.float32)
            logits[seen] = values - np.float32(options.presence_penalty)
        return logits


def _integer(name: str, value: Any, least: int | None = None, most: int | None = None) -> None:
    try:
        number = operator.index(value)
    except TypeError:
        raise OptionError(f"{name}: expected an integer, got {value!r}") from None
    if least is not None and number < least:
        raise OptionError(f"{name}: expected an integer of at least {least}, got {number}")
    if most is not None and number > most:
        raise OptionError(f"{name}: expected an integer of at most {most}, got {number}")


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise OptionError(f"{name}: expected a number, got {value!r}") from None
    if isinstance(value, str) or not abs(number) <= FLOAT_MAX:
        raise OptionError(f"{name}: expected a number, got {value!r}")
    return number


def _descending(values: npt.NDArray[np.floating[Any]], k: int) -> Ids:
    """The indices of the k largest values, the largest first; of equal values, the first first."""
    if k < len(values):
        # argpartition would leave to the machine which of several equal values are taken
        threshold = np.partition(values, len(values) - k)[len(values) - k]
        chosen = np.flatnonzero(values >= threshold)
    else:
        chosen = np.arange(len(values))
    return chosen[np.argsort(-values[chosen], kind="stable")[:k]]


def _typical(shifted: Floats, mass: float) -> Ids:
    """The indices, in their order, of the tokens nearest to the entropy whose sum is more than the mass.

    With x the logits, -log p = log Z - x and the entropy is log Z - E[x]: their distance is abs(E[x] - x),
    and no logarithm is needed.
    """
    p = _exp(shifted)
    p /= _sum(p)
    order = np.argsort(np.abs(_sum(p * shifted) - shifted), kind="stable")
    n = np.searchsorted(np.cumsum(p[order]), mass, side="right") + 1
    return np.sort(order[:n])


def _top_p(shifted: Floats, mass: float) -> Ids:
    """The indices of the most likely tokens, from the largest, that together have at least the mass."""
    weights = _exp(shifted)
    target = mass * _sum(weights)
    for k in (256, 4096, len(shifted)):  # the few that matter are found without sorting a whole vocabulary
        order = _descending(shifted, k)
        running = np.cumsum(weights[order])
        if running[-1] >= target:
            break
    return order[: np.searchsorted(running, target, side="left") + 1]


def _sum(x: Floats) -> np.float64:
    """The sum from left to right; `np.sum` adds in an order that is its own affair."""
    total: np.float64 = np.cumsum(x)[-1]
    return total


# log(2) in two parts; the first has 32 bits, so that its product with an exponent is exact
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
RECIPROCALS = [1 / math.factorial(n) for n in range(13, -1, -1)]


def _exp(x: Floats) -> Floats:
    """exp(x) for x <= 0: within two units in the last place, and the same bits everywhere.

    exp(x) = 2**k · exp(r) with r = x - k·log(2) in ±0.35, and the series of exp(r) up to r**13.
    """
    x = np.maximum(x, -800.0)  # below -745.2 the result is 0
    k = np.rint(x * (1 / math.log(2)))
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    series = np.full_like(r, RECIPROCALS[0])
    for coefficient in RECIPROCALS[1:]:
        series *= r
        series += coefficient
    with np.errstate(under="ignore"):
        result: Floats = np.ldexp(series, k.astype(np.int32))
    return result
