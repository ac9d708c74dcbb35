"""The error of values against others: sums that can be added up, and the figures that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ErrorSums"]


@dataclass(frozen=True, slots=True)
class ErrorSums:
    """Sums over values a and their counterparts b, in float64; sums of two sets of values add up.

    Where some b is no number, or infinite, every figure of the error is NaN: there is none to compare.

    >>> import numpy as np
    >>> from kquant.analysis.sums import ErrorSums
    >>> sums = ErrorSums.of(np.array([3.0, 4.0]), np.array([3.0, 3.0]))
    >>> sums.rmse, sums.relative_rmse, sums.max_error, round(sums.cosine, 4)
    (0.7071067811865476, 0.2, 1.0, 0.9899)
    >>> (sums + sums).elements, (sums + sums).relative_rmse == sums.relative_rmse
    (4, True)
    """

    elements: int = 0
    squared_error: float = 0.0
    """Sum of (b - a)²."""
    squared_a: float = 0.0
    squared_b: float = 0.0
    product: float = 0.0
    """Sum of a·b."""
    max_error: float = 0.0
    """Largest |b - a|; NaN where the others are not finite."""

    @classmethod
    def of(cls, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> ErrorSums:
        """The sums for two arrays of the same shape, of any numbers."""
        if not a.size:
            return cls()
        a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            error = b - a
            squared_error = _dot(error, error)
            return cls(
                a.size,
                squared_error,
                _dot(a, a),
                _dot(b, b),
                _dot(a, b),
                max(float(error.max()), -float(error.min())) if math.isfinite(squared_error) else math.nan,
            )

    @classmethod
    def without_counterpart(cls, a: npt.NDArray[Any]) -> ErrorSums:
        """The sums for an array that could not be turned into counterparts: no error is known.

        >>> ErrorSums.without_counterpart(np.array([1e30, 0.0])).figures_known
        False
        """
        wide = a.ravel().astype(np.float64)
        return cls(a.size, math.nan, _dot(wide, wide), math.nan, math.nan, math.nan)

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(
            self.elements + other.elements,
            self.squared_error + other.squared_error,
            self.squared_a + other.squared_a,
            self.squared_b + other.squared_b,
            self.product + other.product,
            _larger(self.max_error, other.max_error),
        )

    def scaled(self, elements: int) -> ErrorSums:
        """What the sums would be for so many elements of the same kind."""
        if not self.elements:
            return self
        k = elements / self.elements
        return ErrorSums(
            elements,
            self.squared_error * k,
            self.squared_a * k,
            self.squared_b * k,
            self.product * k,
            self.max_error,
        )

    @property
    def exact(self) -> ErrorSums:
        """What the sums would be if every b were its a."""
        return ErrorSums(self.elements, 0.0, self.squared_a, self.squared_a, self.squared_a)

    @property
    def figures_known(self) -> bool:
        """Whether the error is a number: every b was."""
        return math.isfinite(self.squared_error)

    @property
    def rank(self) -> float:
        """The relative RMSE, by which errors can be sorted: infinite where it is not known."""
        return self.relative_rmse if self.figures_known else math.inf

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        if not self.figures_known:
            return math.nan
        return math.sqrt(self.squared_error / self.elements) if self.elements else 0.0

    @property
    def relative_rmse(self) -> float:
        """RMSE relative to the root mean square of a; infinite if only a is all zeros."""
        if not self.figures_known:
            return math.nan
        if not self.squared_a:
            return math.inf if self.squared_error else 0.0
        return math.sqrt(self.squared_error / self.squared_a)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between a and b; 1 if both are all zeros, 0 if one of them is."""
        if not self.figures_known:
            return math.nan
        if not self.squared_a or not self.squared_b:
            return float(self.squared_a == self.squared_b)
        if not self.squared_error:
            return 1.0
        return max(-1.0, min(1.0, self.product / (math.sqrt(self.squared_a) * math.sqrt(self.squared_b))))

    def to_dict(self) -> dict[str, Any]:
        """The figures in JSON's types; None for what is no finite number."""
        figures = {
            "rmse": self.rmse,
            "relative_rmse": self.relative_rmse,
            "max_error": self.max_error,
            "cosine": self.cosine,
        }
        finite = {name: figure if math.isfinite(figure) else None for name, figure in figures.items()}
        return {"elements": self.elements, **finite}


def _larger(a: float, b: float) -> float:
    """The larger number; NaN if one is NaN, which `max` would drop or keep by its place."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


def _dot(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """The sum of the products; unlike `np.dot`, by one thread and so always in the same order."""
    return float(np.einsum("i,i->", x, y))
