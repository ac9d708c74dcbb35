"""The values of a tensor, before and after."""

from __future__ import annotations

from itertools import pairwise

import altair as alt

from kquant._text import percent, printable
from kquant.reporting.figures import Figure, Key, Table, plot
from kquant.reporting.histogram import REACH, Histogram

__all__ = ["values"]


def values(found: Histogram) -> Figure | None:
    """What share of the values each bin holds; None for a tensor without elements."""
    total = sum(found.after.bins) + found.after.outside
    if not total:
        return None
    counted = {"after": found.after}
    legend = [Key(f"in the file, {found.after.type.name}", "var(--accent)", "line")]
    if found.before:
        counted = {"before": found.before, **counted}
        legend.insert(0, Key(f"in the source, {found.before.type.name}", "var(--soft)"))
    shares = {when: [100 * n / total for n in counts.bins] for when, counts in counted.items()}
    edges = found.edges
    rows: list[dict[str, object]] = [
        {
            "low": low,
            "high": high,
            "values": f"{low:.4g} to {high:.4g}",
            **{when: shares[when][i] for when in shares},
            **{f"{when} %": f"{shares[when][i]:.3g}" for when in shares},
        }
        for i, (low, high) in enumerate(pairwise(edges))
    ]
    x = alt.X(
        "low:Q",
        title="value",
        scale=alt.Scale(nice=False),
        axis=alt.Axis(grid=False, tickCount=5, format="~g"),
    )

    def y(when: str) -> alt.Y:
        return alt.Y(f"{when}:Q", title="values, %", axis=alt.Axis(tickCount=5))

    details = [
        alt.Tooltip("values:N"),
        *(alt.Tooltip(f"{when} %:N") for when in shares),
    ]
    base = plot(rows)
    layers = []
    # steps begin at the edges of bins: the last one needs an end
    steps = plot([*rows, {"low": edges[-1], **{when: shares[when][-1] for when in shares}}])
    if found.before:
        area = steps.mark_area(interpolate="step-after", fill="var(--soft)")
        layers.append(area.encode(x=x, y=y("before")))
    line = steps.mark_line(interpolate="step-after", stroke="var(--accent)", strokeWidth=1.8)
    layers.append(line.encode(x=x, y=y("after")))
    # what answers to the pointer: the whole height of a bin
    layers.append(base.mark_rect(fill="transparent").encode(x=x, x2="high:Q", tooltip=details))
    outside = (found.before or found.after).outside
    rest = f" {percent(outside / total)} are beyond {REACH:g} times the root mean square." if outside else ""
    name, shape = printable(found.name), " × ".join(map(str, found.shape))
    return Figure(
        id="histogram",
        title=name,
        caption=f"{shape} values, the largest of which is {found.largest:.4g}.{rest}",
        alternative=f"A histogram of the values of {name}, "
        + (
            f"as bars before quantization and as a line after it, from {edges[0]:.3g} to {edges[-1]:.3g}."
            if found.before
            else f"as a line, from {edges[0]:.3g} to {edges[-1]:.3g}."
        ),
        chart=alt.LayerChart(layer=layers, height=280),
        legend=tuple(legend),
        table=Table(
            (">from", ">to", *(f">{when}, %" for when in shares)),
            tuple(
                (
                    f"{low:.4g}",
                    f"{high:.4g}",
                    *(f"{shares[when][i]:.3g}" for when in shares),
                )
                for i, (low, high) in enumerate(pairwise(edges))
            ),
        ),
    )
