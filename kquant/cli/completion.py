"""`kquant completion`: what a shell must evaluate to complete words of the command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from kquant.cli import cli

__all__ = ["completion"]

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_KQUANT_COMPLETE"
"""The environment variable by which a shell asks; click's convention for the name `kquant`."""


@click.command(options_metavar="")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options, type names and files.

    \b
    bash   eval "$(kquant completion bash)"                              in ~/.bashrc
    zsh    eval "$(kquant completion zsh)"                               in ~/.zshrc
    fish   kquant completion fish > ~/.config/fish/completions/kquant.fish
    """
    click.echo(script(shell))


def script(shell: str) -> str:
    """The shell's functions, as click has them; unlike click, without asking for the shell's version."""
    kind = get_completion_class(shell)
    assert kind is not None
    asked = kind(cli, {}, "kquant", VARIABLE)
    return str(asked.source_template % asked.source_vars()).strip()
