"""`kquant sweep`: each tensor in each type, and what the mixtures choose."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

import kquant
from kquant.cli import show
from kquant.errors import UnknownTypeError
from kquant.planning.options import file_type_of, target_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kquant.analysis.sums import ErrorSums
    from kquant.analysis.sweeping import Sweep

__all__ = ["sweep"]

WIDTH = 24
"""Characters of the longest bar of the picture."""
BEYOND = "cannot hold it"
"""Where a tensor has values beyond a type."""


@click.command(options_metavar="[OPTIONS]")
@click.argument("file", metavar="FILE.gguf", type=click.Path(path_type=Path))
@click.option("--types", metavar="T0,T1,...", help="Tensor types to try; default all but F32.")
@click.option("--file-types", metavar="F0,F1,...", help="Mixtures to plan; default all of quantized types.")
@click.option("--rows", type=click.IntRange(min=1), metavar="N", help="Take N rows of each tensor, not all.")
@show.tensors_option
@show.top_option
@show.threads_option
@show.json_option
def sweep(
    file: Path,
    types: str | None,
    file_types: str | None,
    rows: int | None,
    tensors: str | None,
    top: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Try each tensor type on each tensor: its error, its size, and what each mixture would choose.

    Errors are relative: RMSE over the root mean square of the tensor.  Nothing is written.
    """
    try:
        tried = types and [target_type(word.strip()) for word in types.split(",")]
        planned = file_types and [file_type_of(word.strip()) for word in file_types.split(",")]
    except UnknownTypeError as error:
        raise click.UsageError(str(error)) from error
    with show.Progress(file.name) as progress:
        found = kquant.sweep(
            file,
            types=tried or None,
            file_types=planned or None,
            tensors=tensors,
            rows=rows,
            threads=threads,
            progress=progress,
        )
    if as_json:
        show.write_json(found.to_dict())
    else:
        show.write(*report(found, top))


def report(found: Sweep, top: int) -> Iterator[show.Shown]:
    """Tensors by types, the picture of rate and distortion, mixtures."""
    if found.rows:
        yield from (f"From at most {found.rows} rows of each tensor.", "")
    if found.from_quantized:
        note = "The source is quantized: errors are against its values, and types like its own look better."
        yield from (show.Styled(note, "yellow"), "")
    yield tensors(found, top)
    if 0 < top < len(found.tensors):
        yield show.Styled(
            f"and {len(found.tensors) - top} more with smaller errors; --top 0 shows all", "dim"
        )
    yield from ("", points(found))
    if found.mixtures:
        yield from ("", mixtures(found))


def tensors(found: Sweep, top: int) -> show.Grid:
    """One line for each tensor and one column for each type: the worst tensors first."""
    columns = found.points
    grid = show.Grid("tensor", *(f">{point.type.name}" for point in columns), cut="tensor")
    worst = sorted(found.tensors, key=lambda tensor: -max(s.rank for s in tensor.errors.values()))
    for tensor in worst[: top or None]:
        errors = (tensor.errors.get(point.type) for point in columns)
        grid.row(tensor.name, *map(cell, errors))
    return grid


def cell(sums: ErrorSums | None) -> str:
    """The error of a tensor in a type; nothing where its blocks do not divide the rows."""
    if sums is None:
        return ""
    return show.percent(sums.relative_rmse) if sums.figures_known else BEYOND


def points(found: Sweep) -> show.Grid:
    """The picture: bits downwards, the error to the right on a logarithmic scale."""
    grid = show.Grid("type", ">bits", ">tensors", ">size", ">error", "error (logarithmic)", "", cut="")
    errors = [point.sums.relative_rmse for point in found.points]
    scale = [math.log10(error) for error in errors if 0 < error < math.inf] or [0.0]
    low, high = math.floor(min(scale)), max(scale)
    for point, error in zip(found.points, errors, strict=True):
        height = math.log10(error) - low if 0 < error < math.inf else 0.0
        note = f"{point.beaten_by.name} beats it" if point.beaten_by else ""
        if point.cannot_hold:
            first, more = point.cannot_hold[0], len(point.cannot_hold) - 1
            note = f"cannot hold {first}" + (f" and {more} more" if more else "")
        grid.row(
            point.type.name,
            f"{point.bits_per_element:g}",
            point.tensors,
            show.size(point.bytes),
            show.percent(error),
            show.bar(height, high - low, WIDTH),
            note,
            style="dim" if note else None,
        )
    return grid


def mixtures(found: Sweep) -> show.Grid:
    """One line for each mixture: the size of the whole model, the error of what was swept."""
    grid = show.Grid("mixture", ">size", ">bits per weight", ">error", "chosen", cut="chosen")
    for mixture in sorted(found.mixtures, key=lambda mixture: mixture.new_bytes):
        if mixture.problem:
            grid.row(mixture.file_type.name, "", "", "", mixture.problem, style="yellow")
            continue
        error = show.percent(mixture.sums.relative_rmse) if mixture.sums else "–"
        chosen = ", ".join(f"{t.name} {count}" for t, count in mixture.types.items())
        size, style = show.size(mixture.new_bytes), None
        if mixture.remark:
            error, chosen, style = "–", mixture.remark, "yellow"
        grid.row(mixture.file_type.name, size, f"{mixture.bits_per_weight:.5g}", error, chosen, style=style)
    return grid
