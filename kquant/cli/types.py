"""`kquant types`: the tables of tensor types and file types."""

from __future__ import annotations

import json

import click

from kquant.cli import show
from kquant.types import FileType, TensorType

__all__ = ["types"]


@click.command()
@click.option("--files", is_flag=True, help="List the file types that `kquant quantize` makes instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def types(files: bool, as_json: bool) -> None:
    """List ggml's tensor types: how many elements share a block, and what an element costs."""
    rows = file_types() if files else tensor_types()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    grid = show.Grid(*(header(name) for name in rows[0]))
    for row in rows:
        grid.row(*(f"{v:g}" if isinstance(v, float) else v for v in row.values()))
    show.write(grid)


def header(name: str) -> str:
    """A key as a column's header; figures stand to the right."""
    words = name.replace("_", " ")
    return words if name in ("name", "default_type", "also") else f">{words}"


def tensor_types() -> list[dict[str, object]]:
    """One row per tensor type that ggml still has."""
    return [
        {
            "id": t.id,
            "name": t.name,
            "block_size": t.block_size,
            "bytes_per_block": t.type_size,
            "bits_per_element": t.bits_per_element,
        }
        for t in TensorType
        if not t.removed
    ]


def file_types() -> list[dict[str, object]]:
    """One row per file type, with its aliases."""
    return [
        {
            "id": t.id,
            "name": t.name,
            "default_type": t.default_type.name if t.default_type else "as in the source",
            "also": ", ".join(n for n, member in FileType.__members__.items() if member is t and n != t.name),
        }
        for t in FileType
    ]
