"""`kquant verify`: whether a GGUF file is sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import kquant
from kquant.cli import EXIT_ERROR, printable, show
from kquant.errors import GGUFError
from kquant.gguf import expand_shards
from kquant.gguf.targets import check_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kquant.analysis.verification import Verification

__all__ = ["verify"]


@click.command(options_metavar="[OPTIONS]")
@click.argument("file", metavar="FILE.gguf", type=click.Path(path_type=Path))
@click.option(
    "--manifest",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Compare sizes and SHA-256 of files and tensors with this file.",
)
@click.option(
    "--write-manifest",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write sizes and SHA-256 of a sound model to this file.",
)
@show.threads_option
@show.json_option
@click.pass_context
def verify(
    ctx: click.Context,
    file: Path,
    manifest: Path | None,
    write_manifest: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Check a GGUF file: its structure, every block for NaN and infinity, hashes against a manifest.

    Of a model in shards, name the first.  All problems are listed; the exit code is 1 if there are any.
    """
    if write_manifest:
        check_target(write_manifest, [(path, "model") for path in model_files(file)])
    with show.Progress(file.name) as progress:
        found = kquant.verify(
            file, manifest=manifest, hashes=write_manifest is not None, threads=threads, progress=progress
        )
    if write_manifest and found.ok and found.manifest:
        found.manifest.write(write_manifest)
    if as_json:
        show.write_json(found.to_dict())
    else:
        show.write(*report(found, compared=manifest is not None))
    if not found.ok:
        ctx.exit(EXIT_ERROR)


def model_files(file: Path) -> tuple[Path, ...]:
    """The shards of a model; of one that is malformed, which `verify` reports, the file that is named."""
    try:
        return expand_shards(file)
    except GGUFError:
        return (file,)


def report(found: Verification, *, compared: bool) -> Iterator[show.Shown]:
    """Every problem on a line, and the verdict."""
    for problem in found.problems:
        yield show.Styled(f"problem: {printable(problem.message)}", "red")
    for note in found.notes:
        yield show.Styled(f"note: {printable(note)}", "yellow")
    if found.manifest:
        grid = show.Grid("file", ">size", "SHA-256")
        for record in found.manifest.files:
            grid.row(record.name, show.size(record.bytes), record.sha256)
        yield from (grid, "")
    what = f"{found.tensors} tensors, {found.blocks:,} blocks, {show.size(found.bytes)}"
    if found.problems:
        count = len(found.problems)
        yield show.Styled(f"{what}: {count} problem{'s' if count > 1 else ''}", "bold red")
    else:
        yield show.Styled(f"{what}: sound{', as in the manifest' if compared else ''}", "bold green")
