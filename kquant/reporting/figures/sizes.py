"""Where the bytes are: by role, and by layer."""

from __future__ import annotations

from collections import defaultdict

import altair as alt

from kquant._text import share, size
from kquant.analysis.inspection import Inspection
from kquant.policy.roles import Role, layer_of, role_of
from kquant.reporting.colours import ROLES, role_colour, type_colour
from kquant.reporting.figures import LAYERS, Figure, Key, Table, plot
from kquant.types import TensorType

__all__ = ["by_layer", "by_role", "type_keys", "types_of"]

UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def unit_of(n_bytes: int) -> tuple[int, str]:
    """The unit of an axis, given its largest value.

    >>> unit_of(3 << 20), unit_of(12)
    ((1048576, 'MiB'), (1, 'bytes'))
    """
    return next((unit for unit in UNITS if n_bytes >= unit[0]), (1, "bytes"))


def types_of(file: Inspection) -> list[TensorType]:
    """The types of a file, the one with the fewest bits first."""
    return sorted(file.types, key=lambda t: (t.bits_per_element, t.id))


def type_keys(file: Inspection) -> tuple[Key, ...]:
    """The legend of the types of a file, with what each of them costs."""
    whole = file.total.bytes
    return tuple(
        Key(
            f"{t.name} · {t.bits_per_element:g} bits · {share(file.types[t].bytes, whole)}",
            type_colour(i),
        )
        for i, t in enumerate(types_of(file))
    )


def by_role(file: Inspection) -> Figure | None:
    """A bar for each role, divided by type; None without tensors."""
    types = types_of(file)
    sums: defaultdict[tuple[Role, TensorType], int] = defaultdict(int)
    for info in file.tensors:
        sums[role_of(info.name), info.type] += info.nbytes
    shares = file.roles
    if not file.total.bytes:
        return None
    rows: list[dict[str, object]] = [
        {
            "role": role.value,
            "type": t.name,
            "order": types.index(t),
            "amount": nbytes,
            "size": size(nbytes),
            "share": share(nbytes, file.total.bytes),
        }
        for (role, t), nbytes in sums.items()
    ]
    totals: list[dict[str, object]] = [
        {
            "role": role.value,
            "amount": found.bytes,
            "size": size(found.bytes),
            "share": f" · {share(found.bytes, file.total.bytes)}",
        }
        for role, found in shares.items()
    ]
    y = alt.Y("role:N", title=None, sort=[role.value for role in shares])
    # the figures at the end of the longest bar need space
    most = max(found.bytes for found in shares.values())
    room = alt.ExprRef(f"{most} * (width > 400 ? 1.25 : 1.55)")
    x = alt.X("amount:Q", scale=alt.Scale(domainMin=0, domainMax=room), axis=None)
    colour = alt.Color(
        "type:N",
        legend=None,
        scale=alt.Scale(domain=[t.name for t in types], range=[type_colour(i) for i in range(len(types))]),
    )
    bars = plot(rows).mark_bar(stroke="var(--card)", strokeWidth=1, height=alt.RelativeBandSize(0.72))
    bars = bars.encode(
        x=x, y=y, color=colour, order="order:O", tooltip=["role:N", "type:N", "size:N", "share:N"]
    )
    labels = (
        plot(totals)
        .mark_text(
            align="left",
            dx=6,
            fill="var(--text)",
            text=alt.ExprRef("datum.size + (width > 400 ? datum.share : '')"),
        )
        .encode(x=x, y=y)
    )
    largest, found = next(iter(shares.items()))
    return Figure(
        id="size-by-role",
        title="Size by role",
        caption="What the tensors are for, and in which types they are.",
        alternative=f"Bars of the bytes by role and type. The largest is {largest.value} with "
        f"{size(found.bytes)}, {share(found.bytes, file.total.bytes)} of the tensors.",
        chart=alt.LayerChart(layer=[bars, labels], height=30 * len(shares)),
        legend=type_keys(file),
        table=Table(
            ("role", ">size", ">share", ">bits per element", ">tensors", ">elements", "types"),
            tuple(
                (
                    role.value,
                    size(found.bytes),
                    share(found.bytes, file.total.bytes),
                    f"{found.bits_per_element:.5g}",
                    str(found.tensors),
                    f"{found.elements:,}",
                    ", ".join(f"{t.name} {count}" for t, count in found.types.items()),
                )
                for role, found in shares.items()
            ),
        ),
    )


def by_layer(file: Inspection) -> Figure | None:
    """A column for each layer, divided by role; None where tensors are not named by layers."""
    sums: defaultdict[tuple[int, Role], int] = defaultdict(int)
    for info in file.tensors:
        layer = layer_of(info.name)
        if layer is not None:
            sums[layer, role_of(info.name)] += info.nbytes
    layers = {layer: found for layer, found in file.layers.items() if layer is not None}
    if not sum(sums.values()):
        return None
    present = [role for role in ROLES if any((layer, role) in sums for layer in layers)]
    largest = max(layers, key=lambda layer: layers[layer].bytes)
    unit, unit_name = unit_of(layers[largest].bytes)
    rows: list[dict[str, object]] = [
        {
            "layer": layer,
            "role": role.value,
            "order": present.index(role),
            "amount": nbytes / unit,
            "size": size(nbytes),
            "all": size(layers[layer].bytes),
        }
        for (layer, role), nbytes in sums.items()
    ]
    chart = plot(rows).mark_bar(stroke="var(--card)", strokeWidth=0.5)
    chart = chart.encode(
        x=alt.X("layer:O", title="layer", axis=LAYERS),
        y=alt.Y("amount:Q", title=unit_name, axis=alt.Axis(tickCount=5)),
        color=alt.Color(
            "role:N",
            legend=None,
            scale=alt.Scale(
                domain=[role.value for role in present], range=[role_colour(role) for role in present]
            ),
        ),
        order="order:O",
        tooltip=["layer:O", "role:N", "size:N", alt.Tooltip("all:N", title="whole layer")],
    )
    outside = file.layers.get(None)
    rest = f" {size(outside.bytes)} more are outside of layers." if outside else ""
    return Figure(
        id="size-by-layer",
        title="Size by layer",
        caption=f"The bytes of each layer by role.{rest}",
        alternative=f"Columns of the bytes of {len(layers)} layers, divided by role. The largest is layer "
        f"{largest} with {size(layers[largest].bytes)}, the smallest has "
        f"{size(min(found.bytes for found in layers.values()))}.",
        chart=chart.properties(height=240),
        legend=tuple(Key(role.value, role_colour(role)) for role in present),
        table=Table(
            ("layer", ">size", ">bits per element", *(f">{role.value}" for role in present)),
            tuple(
                (
                    str(layer),
                    size(found.bytes),
                    f"{found.bits_per_element:.5g}",
                    *(size(sums[layer, role]) if (layer, role) in sums else "" for role in present),
                )
                for layer, found in layers.items()
            ),
        ),
    )
