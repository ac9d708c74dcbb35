"""Rate and distortion: what bits buy."""

from __future__ import annotations

from collections.abc import Sequence

from kquant._text import percent, printable
from kquant.analysis.comparison import TensorError
from kquant.analysis.sums import ErrorSums
from kquant.analysis.sweep_types import Point as Swept
from kquant.analysis.sweeping import Sweep
from kquant.reporting.figures import Figure, Key, Table
from kquant.reporting.figures.rate_chart import Point, rate_chart

__all__ = ["rate_and_distortion"]


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
        chart=rate_chart(types, mixtures, matrices, file),
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
    if point.cannot_hold:
        return f"cannot hold {len(point.cannot_hold)} of {n_matrices} matrices"
    if point.tensors < n_matrices:
        return f"fits {point.tensors} of {n_matrices} matrices"
    return f"{point.beaten_by.name} beats it" if point.beaten_by else ""
