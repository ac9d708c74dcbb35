"""`kquant warmup`: compile the kernels now, so that no later command waits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from kquant.cli.types import complete_tensor_type
from kquant.errors import UnknownTypeError
from kquant.types import TensorType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem

    from kquant.products.warming import Job

__all__ = ["warmup"]


RUN = "run"
"""Stands for the kernels of `kquant run`."""


def complete_word(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`run`, and names of tensor types."""
    from click.shell_completion import CompletionItem

    found = complete_tensor_type(ctx, param, incomplete)
    return [CompletionItem(RUN), *found] if RUN.startswith(incomplete) else found


@click.command(options_metavar="")
@click.argument("words", metavar="[run|TYPE]...", nargs=-1, shell_complete=complete_word)
def warmup(words: tuple[str, ...]) -> None:
    """Compile the kernels of all tensor types, or of those named, and keep them in the cache.

    `run` stands for what running models needs, of all types. Other commands compile what they need when they
    first need it, which takes seconds.  In an image or before CI jobs, do it once.  KQUANT_CACHE_DIR moves
    the cache.
    """
    from kquant.products.warming import warm_up

    try:
        todo = jobs_of(words)
    except UnknownTypeError as error:
        raise click.UsageError(str(error)) from error
    with click.progressbar(length=len(todo), label="kernels", file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.pos)

        folder = warm_up(todo, progress)
    click.echo(str(folder))


def jobs_of(words: Sequence[str]) -> list[Job]:
    """The kernels that words stand for: all for none."""
    from kquant.products.warming import jobs, run_jobs
    from kquant.runtime.cache import CACHE_TYPES

    types = [word for word in words if word != RUN]
    found = jobs(types or None) if types or not words else []
    if RUN in words or not words:
        found += run_jobs(TensorType[name] for name in CACHE_TYPES)
    return list(dict.fromkeys(found))
