"""`kquant types`: the tables of tensor types and file types, and the picture of a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kquant.analysis.anatomy import arithmetic, fields, parts, picture
from kquant.cli import show
from kquant.errors import UnknownTypeError
from kquant.formats import has_format
from kquant.types import FileType, TensorType

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["types"]

SUM = "bits of a block"


def complete_tensor_type(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of tensor types that begin so."""
    from click.shell_completion import CompletionItem

    names = (t.name for t in TensorType if not t.removed)
    return [CompletionItem(name) for name in names if name.startswith(incomplete.upper())]


@click.command(options_metavar="[OPTIONS]")
@click.argument("name", metavar="[TYPE]", required=False, shell_complete=complete_tensor_type)
@click.option("--files", is_flag=True, help="List the file types that `kquant quantize` makes instead.")
@show.json_option
def types(name: str | None, files: bool, as_json: bool) -> None:
    """List ggml's tensor types: how many elements share a block, and what an element costs.

    With TYPE, such as Q4_K, draw one block of it byte by byte.
    """
    if name and files:
        raise click.UsageError("TYPE and --files exclude each other")
    if name:
        try:
            tensor_type = TensorType.of(int(name) if name.isdecimal() else name)
        except UnknownTypeError as error:
            raise click.UsageError(str(error)) from error
        if as_json:
            show.write_json(describe(tensor_type))
        else:
            click.echo(draw(tensor_type))
        return
    rows = file_types() if files else tensor_types()
    if as_json:
        show.write_json(rows)
        return
    if not files:
        rows = [with_sum(row) for row in rows]
    grid = show.Grid(*map(header, rows[0]), cut=None if files else SUM)
    for row in rows:
        cells = (f"{value:g}" if isinstance(value, float) else value for value in row.values())
        grid.row(*cells, style="dim" if row.get(SUM) == "" else None)
    show.write(grid)


def with_sum(row: dict[str, Any]) -> dict[str, Any]:
    """A row for people: the parts as a sum."""
    return {key: row[key] for key in row if key not in ("arithmetic", "parts")} | {
        SUM: row["arithmetic"] or ""
    }


def header(name: str) -> str:
    """A key as a column's header; figures stand to the right."""
    words = name.replace("_", " ")
    return words if name in ("name", SUM, "default_type", "also") else f">{words}"


def draw(tensor_type: TensorType) -> str:
    """One block of a type: the picture in its module's docstring, and its sum of bits."""
    text = picture(tensor_type)
    return f"{text}\n\nBits: {arithmetic(tensor_type)}" if has_format(tensor_type) else text


def describe(tensor_type: TensorType) -> dict[str, Any]:
    """One tensor type; `parts`, `fields` and the rest are null where kquant has no codec."""
    known = has_format(tensor_type)
    return {
        "id": tensor_type.id,
        "name": tensor_type.name,
        "block_size": tensor_type.block_size,
        "bytes_per_block": tensor_type.type_size,
        "bits_per_element": tensor_type.bits_per_element,
        "arithmetic": arithmetic(tensor_type) if known else None,
        "parts": [part.to_dict() for part in parts(tensor_type)] if known else None,
        "fields": [field.to_dict() for field in fields(tensor_type)] if known else None,
        "picture": picture(tensor_type),
    }


def tensor_types() -> list[dict[str, Any]]:
    """One row per tensor type that ggml still has."""
    found = [describe(t) for t in TensorType if not t.removed]
    return [{key: row[key] for key in row if key not in ("fields", "picture")} for row in found]


def file_types() -> list[dict[str, Any]]:
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
