"""`kquant report`: a page with pictures."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

import kquant
from kquant.cli import show
from kquant.reporting.builder import check_installed, check_output

__all__ = ["report"]


@click.command(options_metavar="[OPTIONS]")
@click.argument("file", metavar="FILE.gguf", type=click.Path(path_type=Path))
@click.option(
    "--against",
    metavar="SOURCE.gguf",
    type=click.Path(path_type=Path),
    help="What FILE was made from: shows where the error is.",
)
@click.option(
    "-o",
    "--output",
    metavar="PAGE.html",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    help="Where to write the page; default report.html.",
)
@click.option("--tensor", metavar="NAME", help="Show the values of this tensor; default the worst.")
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    default=32,
    metavar="N",
    help="Try types on N rows of each matrix; default 32, 0 for none.",
)
@show.threads_option
@show.json_option
def report(
    file: Path,
    against: Path | None,
    output: Path,
    tensor: str | None,
    rows: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Write a page with pictures of a file: sizes, types, errors, rate and distortion, values.

    The page is one file that loads nothing.  --json prints the facts behind the pictures and writes no page.
    """
    if not as_json:
        check_installed()
        check_output(output, [file, against] if against else [file])
    with _Stages() as progress:
        found = kquant.report(
            file, against=against, tensor=tensor, rows=rows, threads=threads, progress=progress
        )
    if as_json:
        show.write_json(found.to_dict())
        return
    with show.working("drawing"):
        found.write(output)
    show.write(f"{output}  {show.size(output.stat().st_size)}")


class _Stages(ExitStack):
    """A progress bar for each stage, one after the other."""

    stage, bar = "", show.Progress("")

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self.stage:
            self.close()
            self.stage, self.bar = stage, self.enter_context(show.Progress(stage))
        self.bar(done, total)
