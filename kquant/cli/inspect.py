"""`kquant inspect`: what a GGUF file contains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import kquant
from kquant.cli import printable, show
from kquant.policy.roles import role_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kquant.analysis.inspection import Inspection, Share

__all__ = ["inspect"]


@click.command(options_metavar="[OPTIONS]")
@click.argument("file", metavar="FILE.gguf", type=click.Path(path_type=Path))
@click.option("--tensors", is_flag=True, help="List every tensor instead of every layer.")
@show.json_option
def inspect(file: Path, tensors: bool, as_json: bool) -> None:
    """Show what a GGUF file holds: metadata, layers, types, sizes, true bits per weight.

    Of a model in shards, name the first.  Only the header is read, so any size of file is shown at once,
    and so is the beginning of one that is still being downloaded.
    """
    found = kquant.inspect(file)
    if as_json:
        show.write_json(found.to_dict())
        return
    show.write(*metadata(found), tensor_list(found) if tensors else layers(found), "", *summary(found))


def metadata(found: Inspection) -> Iterator[show.Shown]:
    """Every key of the metadata, if there are any."""
    grid = show.Grid("key", "type", "value", cut="value")
    for entry in found.metadata:
        grid.row(entry.key, entry.kind, entry.text())
    if found.metadata:
        yield from (grid, "")


def layers(found: Inspection) -> show.Grid:
    """One line for each layer."""
    grid = show.Grid("layer", ">tensors", ">size", ">share", ">bits per element", "types", cut="types")
    for layer, share in found.layers.items():
        types = ", ".join(f"{t.name} {count}" for t, count in share.types.items())
        grid.row("outside" if layer is None else layer, *figures(share, found), types)
    return grid


def figures(share: Share, found: Inspection) -> tuple[object, ...]:
    """Tensors, size, share and bits per element."""
    part = show.share(share.bytes, found.total.bytes)
    return share.tensors, show.size(share.bytes), part, f"{share.bits_per_element:.5g}"


def tensor_list(found: Inspection) -> show.Grid:
    """One line for each tensor."""
    grid = show.Grid("tensor", "shape", "type", ">size", ">bits per element", "role")
    for info in found.tensors:
        shape = " × ".join(map(str, info.shape))
        bits = f"{info.type.bits_per_element:g}"
        grid.row(info.name, shape, info.type.name, show.size(info.nbytes), bits, role_of(info.name).value)
    return grid


def summary(found: Inspection) -> Iterator[show.Shown]:
    """A bar for each type, and the whole in a few lines."""
    most = max((share.bytes for share in found.types.values()), default=0)
    grid = show.Grid("type", ">tensors", ">size", ">share", ">bits per element", "")
    for t, share in found.types.items():
        grid.row(t.name, *figures(share, found), show.bar(share.bytes, most))
    yield grid

    total = show.Grid("", "")
    header = ", ".join(filter(None, (found.architecture, found.file_type, found.name)))
    shards = f" in {len(found.paths)} shards" if len(found.paths) > 1 else ""
    total.row("model", header or "–")
    total.row(
        "file", f"{show.size(sum(found.file_bytes))}{shards}, GGUF {found.version}, {found.byteorder} endian"
    )
    total.row(
        "tensors", f"{found.total.tensors}, {found.total.elements:,} elements, {show.size(found.total.bytes)}"
    )
    total.row("bits per weight", f"{found.bits_per_weight:.5g}")
    yield total
    if found.shortfall:
        yield from ("", show.Styled(f"incomplete: {printable(str(found.shortfall))}", "yellow"))
