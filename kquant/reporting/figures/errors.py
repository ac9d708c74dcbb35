"""Where the error is: by layer, and by matrix."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import altair as alt

from kquant._text import figure, percent, printable, size
from kquant.analysis.comparison import GroupError, TensorError
from kquant.reporting.colours import ERROR_STEPS
from kquant.reporting.figures import LAYERS, Figure, Key, Table, grid, plot

__all__ = ["by_layer", "by_matrix", "roles", "worst"]

FIGURES = (">relative RMSE", ">bits", ">RMSE", ">cosine")
SHOWN = 12
"""Tensors in the list of the worst."""


def by_layer(errors: Sequence[TensorError]) -> Figure | None:
    """A column for each layer; None without any."""
    members: defaultdict[int, list[TensorError]] = defaultdict(list)
    for row in errors:
        if row.layer is not None:
            members[row.layer].append(row)
    if not members:
        return None
    groups = {layer: GroupError.of(members[layer]) for layer in sorted(members)}
    worst = max(groups, key=lambda layer: groups[layer].sums.rank)
    rows: list[dict[str, object]] = [
        {
            "layer": layer,
            "error": 100 * _finite(group.sums.relative_rmse),
            "relative RMSE": percent(group.sums.relative_rmse),
            "bits": f"{group.bits_per_element:.4g}",
        }
        for layer, group in groups.items()
    ]
    chart = plot(rows).mark_bar(fill="var(--accent)", stroke="var(--card)", strokeWidth=0.5)
    chart = chart.encode(
        x=alt.X("layer:O", title="layer", axis=LAYERS),
        y=alt.Y("error:Q", title="relative RMSE, %", axis=alt.Axis(tickCount=5)),
        tooltip=["layer:O", "relative RMSE:N", "bits:N"],
    )
    least = min(group.sums.rank for group in groups.values())
    return Figure(
        id="errors-by-layer",
        title="Error by layer",
        caption="The relative RMSE of all matrices of a layer together.",
        alternative=f"Columns of the relative error of {len(groups)} layers, from {percent(least)} to "
        f"{percent(groups[worst].sums.relative_rmse)} in layer {worst}.",
        chart=chart.properties(height=220),
        table=Table(
            ("layer", *FIGURES, ">matrices"),
            tuple((str(layer), *_figures(group), str(group.tensors)) for layer, group in groups.items()),
        ),
    )


def by_matrix(errors: Sequence[TensorError]) -> Figure | None:
    """The error of each matrix of each layer; None without any."""
    found, left_out = grid.cells((row.name, row.sums.elements, row) for row in errors)
    if not found:
        return None
    limits = _limits(row.sums.relative_rmse for row in found.values())
    said = {
        cell: {
            "text": _short(row.sums.relative_rmse),
            "level": _level(row.sums.rank, limits),
            "relative RMSE": percent(row.sums.relative_rmse),
            "type": row.type_b.name,
            "largest error": figure(row.sums.max_error, ".3e"),
        }
        for cell, row in found.items()
    }
    (layer, kind), worst = max(found.items(), key=lambda item: item[1].sums.rank)
    steps = [f"{percent(low)} – {percent(high)}" for low, high in pairwise(limits)]
    return Figure(
        id="errors-by-matrix",
        title="Error by matrix",
        caption=f"The relative RMSE of every matrix of every layer, in per cent.{left_out}",
        alternative="A map with a row for each layer and a column for each kind of matrix; the further a "
        "colour is from that of the page, the larger is the error. The largest is "
        f"{percent(worst.sums.relative_rmse)}, in {kind} of layer {layer}.",
        chart=grid.picture(said, "error", ERROR_STEPS),
        legend=tuple(Key(step, f"var(--error-{i})") for i, step in enumerate(steps)),
        table=grid.table({cell: percent(row.sums.relative_rmse) for cell, row in found.items()}),
    )


def _short(error: float) -> str:
    """An error in per cent, as short as a cell.

    >>> _short(0.044), _short(0.00561), _short(1.372), _short(0), _short(math.nan)
    ('4.40', '0.561', '137', '0', '–')
    """
    if math.isnan(error):
        return "–"
    return f"{100 * error:#.3g}".rstrip(".") if error else "0"


def _limits(errors: Iterable[float]) -> list[float]:
    """Where the steps of colour begin and end: of equal width on a logarithmic scale."""
    known = [error for error in errors if 0 < error < math.inf]
    if not known:
        return []
    low, high = math.log(min(known)), math.log(max(known))
    return [math.exp(low + (high - low) * i / ERROR_STEPS) for i in range(ERROR_STEPS + 1)]


def _level(error: float, limits: Sequence[float]) -> int:
    return min(sum(error >= limit for limit in limits[1:]), ERROR_STEPS - 1)


def _finite(error: float) -> float:
    """An error that a chart can show: that of a tensor of zeros which became something else is infinite."""
    return error if math.isfinite(error) else 1.0


def roles(errors: Sequence[TensorError]) -> Table:
    """The error of the matrices of each role, the largest first."""
    members = defaultdict(list)
    for row in errors:
        members[row.role].append(row)
    groups = {role: GroupError.of(rows) for role, rows in members.items()}
    ranked = sorted(groups.items(), key=lambda item: -item[1].sums.rank)
    everything = ("all matrices", GroupError.of(errors))
    return Table(
        ("role", *FIGURES, ">matrices", ">size"),
        tuple(
            (name, *_figures(group), str(group.tensors), size(group.bytes_b))
            for name, group in (*((role.value, group) for role, group in ranked), everything)
        ),
    )


def worst(errors: Sequence[TensorError]) -> Table:
    """The matrices with the largest errors."""
    ranked = sorted(errors, key=lambda row: -row.sums.rank)[:SHOWN]
    return Table(
        ("tensor", *FIGURES, ">largest", "type"),
        tuple(
            (
                printable(row.name),
                *_figures(row),
                figure(row.sums.max_error, ".3e"),
                row.type_b.name if row.type_a is row.type_b else f"{row.type_a.name} → {row.type_b.name}",
            )
            for row in ranked
        ),
    )


def _figures(found: GroupError | TensorError) -> tuple[str, ...]:
    """Under the headers FIGURES."""
    sums = found.sums
    return (
        percent(sums.relative_rmse),
        f"{found.bits_per_element:.5g}",
        figure(sums.rmse, ".3e"),
        figure(sums.cosine, ".6f"),
    )
