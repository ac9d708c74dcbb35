"""Pictures of errors where some are not known: they rank as the worst, and are never shown as numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from kquant.analysis.comparison import TensorError
from kquant.analysis.sums import ErrorSums
from kquant.reporting.colours import ERROR_STEPS
from kquant.reporting.figures import Figure
from kquant.reporting.figures.errors import by_layer, by_matrix, roles, worst
from kquant.types import TensorType

Q4_K = TensorType.Q4_K


def error(layer: int, sums: ErrorSums) -> TensorError:
    return TensorError(f"blk.{layer}.ffn_up.weight", (4, 256), TensorType.F32, Q4_K, 4096, 576, sums)


A = np.linspace(-1, 1, 1024)
ERRORS = [
    error(0, ErrorSums.of(A, A + 0.01)),
    error(1, ErrorSums.without_counterpart(A)),
    error(2, ErrorSums.of(A, A + 0.1)),
]


def drawn(picture: Callable[..., Figure | None]) -> Figure:
    found = picture(ERRORS)
    assert found
    return found


def test_what_is_not_known_is_the_worst() -> None:
    assert worst(ERRORS).rows[0][:2] == ("blk.1.ffn_up.weight", "–")
    assert [row[0] for row in worst(ERRORS).rows] == [f"blk.{i}.ffn_up.weight" for i in (1, 2, 0)]
    assert "– in layer 1." in drawn(by_layer).alternative
    assert "The largest is –, in ffn_up of layer 1." in drawn(by_matrix).alternative


def test_nothing_is_shown_as_nan() -> None:
    pictures = [drawn(by_layer), drawn(by_matrix)]
    shown = [json.dumps(picture.chart.to_dict()) for picture in pictures]
    tables = [*(picture.table for picture in pictures), roles(ERRORS), worst(ERRORS)]
    text = " ".join([*shown, *(p.alternative for p in pictures), *(str(table) for table in tables)])
    assert "NaN" not in text
    assert "nan" not in text.replace("ordinal", "")
    levels = {row["text"]: row["level"] for row in _cells(drawn(by_matrix).chart.to_dict())}
    assert levels["–"] == ERROR_STEPS - 1


def _cells(found: object) -> list[dict[str, Any]]:
    """Every row of data with a level, wherever it stands."""
    if isinstance(found, dict):
        own = [found] if "level" in found and "text" in found else []
        return own + [cell for value in found.values() for cell in _cells(value)]
    return [cell for value in found for cell in _cells(value)] if isinstance(found, list) else []
