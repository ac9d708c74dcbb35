"""Which type each tensor has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from kquant._text import printable, share, size
from kquant.analysis.inspection import Inspection
from kquant.policy.roles import layer_of
from kquant.reporting.facts import kind_of, matrices
from kquant.reporting.figures import Figure, Table, grid
from kquant.reporting.figures.sizes import type_keys, types_of
from kquant.types import TensorType

__all__ = ["table", "type_map"]


def type_map(file: Inspection) -> Figure | None:
    """The type of each matrix of each layer; None where tensors are not named by layers."""
    types, infos = types_of(file), matrices(file.tensors)
    found, left_out = grid.cells((info.name, info.n_elements, info.type) for info in infos)
    if not found:
        return None
    said = {
        cell: {"text": t.name, "level": types.index(t), "type": t.name, "bits": f"{t.bits_per_element:g}"}
        for cell, t in found.items()
    }
    outside = [info for info in infos if layer_of(info.name) is None]
    rest = ", ".join(f"{printable(kind_of(info.name))} is {info.type.name}" for info in outside[:6])
    n_vectors = len(file.tensors) - len(infos)
    notes = [
        f"Every matrix of every layer by its type.{left_out}",
        f"Outside of layers, {rest}{' and so on' if len(outside) > 6 else ''}." if rest else "",
        f"The {n_vectors} vectors, such as norms, are not shown." if n_vectors else "",
    ]
    return Figure(
        id="types-by-layer",
        title="Types by layer",
        caption=" ".join(filter(None, notes)),
        alternative="A map with a row for each layer, a column for each kind of matrix and a colour for each "
        f"type. {_in_words(found)}",
        chart=grid.picture(said, "type", len(types)),
        legend=type_keys(file),
        table=grid.table({cell: t.name for cell, t in found.items()}),
    )


def _in_words(found: Mapping[grid.Cell, TensorType]) -> str:
    """`attn_q is Q4_K; attn_v is Q4_K in 16 layers and Q6_K in 16`."""
    counts: defaultdict[str, Counter[TensorType]] = defaultdict(Counter)
    for (_, kind), t in found.items():
        counts[kind][t] += 1
    parts = []
    for kind, types in counts.items():
        names = [f"{t.name} in {n}" if len(types) > 1 else t.name for t, n in types.most_common()]
        parts.append(f"{kind} is {' and '.join(names)}{' layers' if len(types) > 1 else ''}")
    return f"{'; '.join(parts)}."


def table(file: Inspection) -> Table:
    """What each type amounts to, the one with the most bytes first."""
    return Table(
        ("type", ">size", ">share", ">tensors", ">bits per element", ">elements"),
        tuple(
            (
                t.name,
                size(found.bytes),
                share(found.bytes, file.total.bytes),
                str(found.tensors),
                f"{t.bits_per_element:g}",
                f"{found.elements:,}",
            )
            for t, found in file.types.items()
        ),
    )
