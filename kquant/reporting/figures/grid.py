"""Maps with a row for each layer and a column for each kind of matrix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeVar

import altair as alt

from kquant._text import printable
from kquant.policy.roles import layer_of, role_of
from kquant.reporting.colours import ROLES
from kquant.reporting.facts import kind_of
from kquant.reporting.figures import Table, plot, row_height

__all__ = ["Cell", "cells", "picture", "table"]

COLUMNS = 24
"""At most so many kinds of matrices are shown, those with the most elements."""
TEXT_HEIGHT, TEXT_WIDTH = 14, 36
"""Pixels that a cell needs to show its text."""

STEEP = 9
"""With more columns than that, a phone has no space for names at an angle."""

Cell = tuple[int, str]
"""A layer and a kind of matrix."""
_T = TypeVar("_T")


def cells(tensors: Iterable[tuple[str, int, _T]]) -> tuple[dict[Cell, _T], str]:
    """Name, elements and something else of tensors -> that for those of layers, and what is left out.

    >>> cells([("blk.1.attn_q.weight", 4, "b"), ("output.weight", 4, "c"), ("blk.0.attn_q.weight", 4, "a")])
    ({(0, 'attn_q'): 'a', (1, 'attn_q'): 'b'}, '')
    """
    found: dict[Cell, _T] = {}
    sizes: defaultdict[str, int] = defaultdict(int)
    for name, n_elements, thing in tensors:
        layer = layer_of(name)
        if layer is not None:
            kind = printable(kind_of(name))
            found[layer, kind] = thing
            sizes[kind] += n_elements
    shown = set(sorted(sizes, key=lambda kind: -sizes[kind])[:COLUMNS])
    in_order = sorted(found.items(), key=lambda item: (item[0][0], _place(item[0][1])))
    rest = len(sizes) - len(shown)
    note = f" The {rest} kinds of matrices with the fewest elements are left out." if rest else ""
    return {cell: thing for cell, thing in in_order if cell[1] in shown}, note


def _place(kind: str) -> tuple[bool, bool, int]:
    """What belongs together stands together: attention, then the network, each in the order of its roles."""
    role = role_of(f"blk.0.{kind}.weight")
    return not kind.startswith("attn"), not kind.startswith("ffn"), list(ROLES).index(role)


def picture(found: Mapping[Cell, Mapping[str, object]], colours: str, n_colours: int) -> alt.LayerChart:
    """The map: what is said of a cell, its `text` and its `level` among the CSS colours of that name."""
    layers, kinds = axes(found)
    rows = [{"layer": layer, "matrix": kind, **said} for (layer, kind), said in found.items()]
    levels = list(range(n_colours))
    height = row_height(len(layers))
    x = alt.X(
        "matrix:N",
        title=None,
        # not `sort`, which would write names into an expression
        scale=alt.Scale(domain=kinds),
        axis=alt.Axis(
            orient="top",
            labelAngle=-90 if len(kinds) > STEEP else -50,
            labelLimit=110,
            ticks=False,
            domain=False,
            labelOverlap=len(kinds) > STEEP,
        ),
    )
    y = alt.Y(
        "layer:O",
        title="layer",
        axis=alt.Axis(
            ticks=False, domain=False, labelOverlap=True, titleAngle=0, titleAlign="right", titleY=-8
        ),
    )
    details = [alt.Tooltip(f"{name}:N") for name in rows[0] if name not in ("text", "level")]
    fields = plot(rows).mark_rect(stroke="var(--card)", strokeWidth=min(2, height / 8), cornerRadius=2)
    fields = fields.encode(x=x, y=y, color=_scale(levels, f"--{colours}-"), tooltip=details)
    texts = plot(rows).mark_text(
        fontSize=11,
        text=alt.ExprRef(
            f"width / {len(kinds)} >= {TEXT_WIDTH} && {height} >= {TEXT_HEIGHT} ? datum.text : ''"
        ),
    )
    texts = texts.encode(x=x, y=y, color=_scale(levels, f"--on-{colours}-"))
    return alt.LayerChart(
        layer=[fields, texts],
        resolve=alt.Resolve(scale=alt.ScaleResolveMap(color="independent")),
        height=height * len(layers),
    )


def _scale(levels: list[int], variable: str) -> alt.Color:
    return alt.Color(
        "level:O",
        legend=None,
        scale=alt.Scale(domain=levels, range=[f"var({variable}{level})" for level in levels]),
    )


def axes(found: Iterable[Cell]) -> tuple[list[int], list[str]]:
    """The layers and the kinds, as they come."""
    cells = list(found)
    return list(dict.fromkeys(layer for layer, _ in cells)), list(dict.fromkeys(kind for _, kind in cells))


def table(found: Mapping[Cell, str]) -> Table:
    """The same for those who read."""
    layers, kinds = axes(found)
    return Table(
        ("layer", *kinds),
        tuple((str(layer), *(found.get((layer, kind), "") for kind in kinds)) for layer in layers),
    )
