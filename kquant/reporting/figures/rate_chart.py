"""The picture of rate and distortion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import altair as alt

from kquant._text import percent
from kquant.reporting.figures import plot
from kquant.reporting.figures.labels import CORNERS, corners

__all__ = ["Point", "rate_chart"]

MOST_BITS = 9.0
"""Types with more bits, such as F16, would leave no space for the others; they are in the table."""
HEIGHT = 380
"""Pixels of the plot."""
WIDE, NARROW = 700, 220
"""Pixels of a plot on a desktop, and on a phone: where names have their places."""


@dataclass(frozen=True, slots=True)
class Point:
    """Something that costs bits and loses accuracy."""

    what: str
    kind: str
    bits: float
    error: float
    remark: str = ""

    @property
    def drawable(self) -> bool:
        """Whether a point fits on the chart: few bits, and an error that a logarithmic scale can show."""
        return self.bits <= MOST_BITS and 0 < self.error < math.inf

    @property
    def cells(self) -> tuple[str, ...]:
        """The point for those who read."""
        return self.what, self.kind, f"{self.bits:.5g}", percent(self.error), self.remark


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the axes reach: bits, and errors in per cent on a logarithmic scale."""

    bits: tuple[float, float]
    errors: tuple[float, float]

    @classmethod
    def around(cls, points: Iterable[Point]) -> _Frame:
        """The axes, with a little space around the outermost points."""
        drawn = [point for point in points if point.drawable]
        bits, errors = [point.bits for point in drawn], [100 * point.error for point in drawn]
        return cls((min(bits) - 0.12, max(bits) + 0.12), (min(errors) / 1.15, max(errors) * 1.15))

    def holds(self, point: Point) -> bool:
        """Whether a point is to be seen."""
        (left, right), (low, high) = self.bits, self.errors
        return point.drawable and left < point.bits < right and low < 100 * point.error < high

    def place(self, point: Point, width: int) -> tuple[float, float]:
        """A point in the pixels of a plot, y downwards."""
        (left, right), (low, high) = self.bits, self.errors
        x = (point.bits - left) / (right - left)
        y = math.log(high / (100 * point.error)) / math.log(high / low)
        return width * x, HEIGHT * y

    @property
    def ticks(self) -> list[float]:
        """1, 2, 5, 10 and so on, between the smallest and the largest error."""
        low, high = self.errors
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = (float(f"{step}e{power}") for power in powers for step in (1, 2, 5))
        return [tick for tick in every if low <= tick <= high]


def rate_chart(
    types: Sequence[Point], mixtures: Sequence[Point], matrices: Sequence[Point], file: Sequence[Point]
) -> alt.LayerChart:
    """Types joined by a line, mixtures, the file and its matrices.

    What is nearly exact because the source has its type is left to the table: it would flatten the rest.
    """
    frame = _Frame.around((*types, *file))
    x = alt.X(
        "bits:Q",
        title="bits per element",
        scale=alt.Scale(domain=frame.bits, nice=False),
        axis=alt.Axis(grid=False, tickCount=7),
    )
    y = alt.Y(
        "error:Q",
        title="relative RMSE, %",
        scale=alt.Scale(type="log", domain=frame.errors, nice=False),
        axis=alt.Axis(values=frame.ticks, format="~g"),
    )
    details = [
        "what:N",
        "kind:N",
        alt.Tooltip("bits:Q", format=".5~g"),
        alt.Tooltip("said:N", title="relative RMSE"),
    ]

    def base(points: Iterable[Point]) -> alt.Chart:
        return plot([_row(point) for point in points if frame.holds(point)]).encode(x=x, y=y)

    best = [point for point in types if not point.remark]
    layers = [
        base(matrices).mark_circle(size=20, fill="var(--soft)", opacity=0.6).encode(tooltip=details),
        base(best).mark_line(stroke="var(--accent)", strokeWidth=1.5, opacity=0.5),
        base(mixtures)
        .mark_point(size=44, fill="var(--card)", stroke="var(--text)", strokeWidth=1.2, opacity=1)
        .encode(tooltip=details),
        base(types)
        .mark_circle(size=64, fill="var(--accent)", opacity=1)
        .encode(tooltip=[*details, "remark:N"]),
        base(file)
        .mark_point(
            shape="diamond", size=170, fill="var(--mark)", stroke="var(--card)", strokeWidth=1.5, opacity=1
        )
        .encode(tooltip=details),
    ]
    names = plot(_names(frame, types, mixtures, file)).encode(x=x, y=y)
    for corner in CORNERS:
        side, height = corner.split()
        text = alt.ExprRef(f"(width >= {WIDE} ? datum.wide : datum.narrow) == '{corner}' ? datum.what : ''")
        layers.append(
            names.mark_text(
                align="left" if side == "right" else "right",
                baseline="bottom" if height == "above" else "top",
                dx=7 if side == "right" else -7,
                dy=-2 if height == "above" else 2,
                text=text,
                fontSize=11,
                fill=alt.ExprRef("datum.mixture ? 'var(--muted)' : 'var(--text)'"),
            )
        )
    return alt.LayerChart(layer=layers, height=HEIGHT)


def _row(point: Point) -> dict[str, object]:
    return {
        "what": point.what,
        "kind": point.kind,
        "bits": point.bits,
        "error": 100 * point.error,
        "said": percent(point.error),
        "remark": point.remark or "the best for its bits",
    }


def _names(
    frame: _Frame, types: Sequence[Point], mixtures: Sequence[Point], file: Sequence[Point]
) -> list[dict[str, object]]:
    """Which points are named, and where: types first, the best before others."""
    best_first = sorted(types, key=lambda point: bool(point.remark))
    known = {point.what for point in types}
    points = [point for point in (*best_first, *mixtures, *file) if frame.holds(point)]
    # a mixture that is called like a type would only say it twice, and the file is in the legend
    names = ["" if p.kind != "type" and (p.what in known or p in file) else p.what for p in points]

    def beside(width: int) -> list[str]:
        places = zip(points, names, strict=True)
        return corners([(*frame.place(point, width), name) for point, name in places], width)

    return [
        {**_row(point), "what": name, "wide": wide, "narrow": narrow, "mixture": point.kind == "mixture"}
        for point, name, wide, narrow in zip(points, names, beside(WIDE), beside(NARROW), strict=True)
    ]
