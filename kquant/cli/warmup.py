"""`kquant warmup`: compile the kernels now, so that no later command waits."""

from __future__ import annotations

import sys

import click

from kquant.cli.types import complete_tensor_type
from kquant.errors import UnknownTypeError

__all__ = ["warmup"]


@click.command(options_metavar="")
@click.argument("types", metavar="[TYPE]...", nargs=-1, shell_complete=complete_tensor_type)
def warmup(types: tuple[str, ...]) -> None:
    """Compile the kernels of all tensor types, or of those named, and keep them in the cache.

    Other commands compile what they need when they first need it, which takes seconds.  In an image or
    before CI jobs, do it once.  KQUANT_CACHE_DIR moves the cache.
    """
    from kquant.products.warming import jobs, warm_up

    try:
        todo = jobs(types or None)
    except UnknownTypeError as error:
        raise click.UsageError(str(error)) from error
    with click.progressbar(length=len(todo), label="kernels", file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.pos)

        folder = warm_up(types or None, progress)
    click.echo(str(folder))
