"""`kquant compare`: the error of the tensors of one file against those of another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import kquant
from kquant._text import figure
from kquant.cli import show

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kquant.analysis.comparison import Comparison, GroupError
    from kquant.analysis.sums import ErrorSums

__all__ = ["compare"]

FIGURES = (">bits", ">RMSE", ">relative", ">cosine")


@click.command(options_metavar="[OPTIONS]")
@click.argument("a", metavar="A.gguf", type=click.Path(path_type=Path))
@click.argument("b", metavar="B.gguf", type=click.Path(path_type=Path))
@show.tensors_option
@show.top_option
@show.threads_option
@show.json_option
def compare(a: Path, b: Path, tensors: str | None, top: int, threads: int | None, as_json: bool) -> None:
    """Show the error of each tensor of B against the tensor of the same name in A, the worst first.

    Sizes and bits per element are those of B. RMSE is the root of the mean squared error, relative is RMSE
    over the root mean square of A, cosine that of the angle between both, largest the largest error.
    """
    with show.Progress(b.name) as progress:
        found = kquant.compare(a, b, tensors=tensors, threads=threads, progress=progress)
    if as_json:
        show.write_json(found.to_dict())
    else:
        show.write(*report(found, top))


def report(found: Comparison, top: int) -> Iterator[show.Shown]:
    """The worst tensors, and sums by layer, role and type."""
    rows = found.worst[: top or None]
    grid = show.Grid("tensor", "type", *FIGURES, ">largest", cut="tensor")
    for row in rows:
        change = row.type_b.name if row.type_a is row.type_b else f"{row.type_a.name} → {row.type_b.name}"
        grid.row(
            row.name, change, *figures(row.bits_per_element, row.sums), figure(row.sums.max_error, ".3e")
        )
    yield grid
    if len(rows) < len(found.rows):
        rest = len(found.rows) - len(rows)
        yield show.Styled(f"and {rest} more with smaller errors; --top 0 shows all", "dim")
    layers = {"outside" if layer is None else str(layer): group for layer, group in found.layers.items()}
    yield from ("", groups("layer", layers))
    yield from ("", groups("role", {role.value: group for role, group in found.roles.items()}))
    yield from (
        "",
        groups("type", {t.name: group for t, group in found.types.items()} | {"all": found.total}),
    )
    if found.uncompared:
        yield from ("", show.Styled("not compared", "yellow"))
        grid = show.Grid("tensor", "why")
        for one in found.uncompared:
            grid.row(one.name, one.reason)
        yield grid


def groups(title: str, found: Mapping[str, GroupError]) -> show.Grid:
    """One line for each group of tensors."""
    grid = show.Grid(title, ">tensors", ">size", *FIGURES)
    for name, group in found.items():
        size = show.size(group.bytes_b)
        grid.row(name, group.tensors, size, *figures(group.bits_per_element, group.sums))
    return grid


def figures(bits: float, sums: ErrorSums) -> tuple[str, ...]:
    """The figures of an error, under the headers FIGURES."""
    return (
        f"{bits:.5g}",
        figure(sums.rmse, ".3e"),
        show.percent(sums.relative_rmse),
        figure(sums.cosine, ".6f"),
    )
