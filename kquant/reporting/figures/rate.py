"""Rate and distortion: what bits buy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import altair as alt

from kquant.analysis.comparison import TensorError
from kquant.analysis.sums import ErrorSums
from kquant.analysis.sweep_types import Point as Swept
from kquant.analysis.sweeping import Sweep
from kquant.reporting.figures import Figure, Key, Table, plot
from kquant.text import percent, printable

__all__ = ["rate_and_distortion"]

MOST_BITS = 9.0
"""F16 and its like would leave no room for the others; they are in the table."""


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
        """Whether a logarithmic scale of the few bits has room for it."""
        return self.bits <= MOST_BITS and 0 < self.error < math.inf

    @property
    def cells(self) -> tuple[str, ...]:
        """The point for those who read."""
        return self.what, self.kind, f"{self.bits:.5g}", percent(self.error), self.remark


def rate_and_distortion(sweep: Sweep, errors: Sequence[TensorError], name: str) -> Figure | None:
    """Types, mixtures, and where the file and its matrices are among them; None if nothing can be drawn."""
    types = [
        Point(
            point.type.name,
            "type",
            point.bits_per_element,
            point.sums.relative_rmse,
            _remark(point, len(sweep.tensors)),
        )
        for point in sweep.points
    ]
    mixtures = [
        Point(found.file_type.name, "mixture", found.swept_bits_per_element, found.sums.relative_rmse)
        for found in sweep.mixtures
        if found.sums and found.swept_bits_per_element
    ]
    swept = {tensor.name for tensor in sweep.tensors}
    rows = [row for row in errors if row.name in swept]
    matrices = [
        Point(printable(row.name), row.type_b.name, row.bits_per_element, row.sums.relative_rmse)
        for row in rows
    ]
    file = _together(rows, name)
    if not any(point.drawable for point in (*types, *file)):
        return None
    notes = ["Lower is more faithful, further left is smaller; the line joins the best of the types."]
    if sweep.rows:
        notes.append(f"Types and mixtures were tried on {sweep.rows} rows of each matrix.")
    if sweep.from_quantized:
        notes.append("The source is quantized itself: types like its own look better than they are.")
    legend = [Key("one type for all", "var(--accent)", "dot"), Key("a mixture", "var(--text)", "ring")]
    if file:
        legend += [Key("this file", "var(--mark)", "diamond"), Key("a matrix of it", "var(--soft)", "dot")]
    said = ", ".join(
        f"{point.what} {point.bits:g} bits and {percent(point.error)}" for point in (*types, *file)
    )
    return Figure(
        id="rate-and-distortion",
        title="Rate and distortion",
        caption=" ".join(notes),
        alternative=f"Points of bits per element and relative error on a logarithmic scale: {said}.",
        chart=_chart(types, mixtures, matrices, file),
        legend=tuple(legend),
        table=Table(
            ("what", "kind", ">bits per element", ">relative RMSE", "remark"),
            tuple(point.cells for point in (*file, *types, *mixtures)),
        ),
    )


def _together(rows: Sequence[TensorError], name: str) -> list[Point]:
    """The matrices of the file as one point, if there are any."""
    sums = sum((row.sums for row in rows), ErrorSums())
    if not sums.elements:
        return []
    return [
        Point(name, "this file", 8 * sum(row.bytes_b for row in rows) / sums.elements, sums.relative_rmse)
    ]


def _remark(point: Swept, n_matrices: int) -> str:
    """What else is to know about a type; nothing of the best."""
    if point.tensors < n_matrices:
        return f"fits {point.tensors} of {n_matrices} matrices"
    return f"{point.beaten_by.name} beats it" if point.beaten_by else ""


def _ticks(errors: Sequence[float]) -> list[float]:
    """1, 2, 5, 10 and so on, as far as the errors reach.

    >>> _ticks([0.7, 12.0])
    [1.0, 2.0, 5.0, 10.0]
    """
    powers = range(math.floor(math.log10(min(errors))), math.ceil(math.log10(max(errors))) + 1)
    every = (float(f"{step}e{power}") for power in powers for step in (1, 2, 5))
    return [tick for tick in every if min(errors) <= tick <= max(errors)]


def _chart(
    types: Sequence[Point], mixtures: Sequence[Point], matrices: Sequence[Point], file: Sequence[Point]
) -> alt.LayerChart:
    # matrices and mixtures that are nearly exact, because the source has their type, are left to the table
    reach = [100 * point.error for point in (*types, *file) if point.drawable]
    x = alt.X(
        "bits:Q",
        title="bits per element",
        scale=alt.Scale(zero=False, nice=False, padding=14),
        axis=alt.Axis(grid=False, tickCount=7),
    )
    y = alt.Y(
        "error:Q",
        title="relative RMSE, %",
        scale=alt.Scale(type="log", domain=[min(reach), max(reach)], nice=False, padding=14),
        axis=alt.Axis(values=_ticks(reach), format="~g"),
    )
    details = [
        "what:N",
        "kind:N",
        alt.Tooltip("bits:Q", format=".5~g"),
        alt.Tooltip("said:N", title="relative RMSE"),
    ]

    def base(points: Iterable[Point]) -> alt.Chart:
        rows = [
            {
                "what": point.what,
                "kind": point.kind,
                "bits": point.bits,
                "error": 100 * point.error,
                "said": percent(point.error),
                "best": not point.remark,
                "remark": point.remark or "the best for its bits",
            }
            for point in points
            if point.drawable
        ]
        return plot(rows).encode(x=x, y=y)

    # a phone has room for the names of the best
    label = alt.ExprRef("width > 400 || datum.best ? datum.what : ''")
    layers = [
        base(matrices)
        .mark_circle(size=20, fill="var(--soft)", opacity=0.6, clip=True)
        .encode(tooltip=details),
        base(point for point in types if not point.remark).mark_line(
            stroke="var(--accent)", strokeWidth=1.5, opacity=0.5
        ),
        base(mixtures)
        .mark_point(size=44, fill="var(--card)", stroke="var(--text)", strokeWidth=1.2, opacity=1, clip=True)
        .encode(tooltip=details),
        base(types)
        .mark_circle(size=64, fill="var(--accent)", opacity=1)
        .encode(tooltip=[*details, "remark:N"]),
        base(types).mark_text(align="left", dx=7, dy=-6, fill="var(--text)", text=label),
        base(file)
        .mark_point(
            shape="diamond", size=170, fill="var(--mark)", stroke="var(--card)", strokeWidth=1.5, opacity=1
        )
        .encode(tooltip=details),
    ]
    return alt.LayerChart(layer=layers, height=380)
