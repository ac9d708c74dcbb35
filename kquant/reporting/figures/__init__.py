"""The pictures of a report: each with its text alternative, its legend and its data as a table."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt

__all__ = ["LAYERS", "Figure", "Key", "Table", "plot", "row_height"]


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend."""

    label: str
    colour: str
    """CSS."""
    shape: str = "square"
    """`square`, `dot`, `ring`, `diamond` or `line`."""


@dataclass(frozen=True, slots=True)
class Table:
    """Headers and cells; a header that begins with `>` stands over right-aligned figures."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture with all that belongs to it."""

    id: str
    title: str
    caption: str
    """What it shows and how to read it, below the title."""
    alternative: str
    """What somebody who does not see the picture should know."""
    chart: alt.Chart | alt.LayerChart
    table: Table
    legend: tuple[Key, ...] = ()


LAYERS = alt.Axis(labelAngle=0, labelOverlap=True, labelSeparation=6, ticks=False)
"""The axis below columns, one for each layer."""


def plot(rows: list[dict[str, object]]) -> alt.Chart:
    """An empty chart of these rows, as wide as the place where it is put."""
    return alt.Chart({"values": rows}, width="container")


def row_height(n: int) -> int:
    """Pixels for each of n rows: enough for text, unless there are too many.

    >>> row_height(1), row_height(32), row_height(126), row_height(1000)
    (24, 24, 7, 7)
    """
    return max(7, min(24, 900 // max(n, 1)))
