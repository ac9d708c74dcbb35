"""`kquant quantize`: the arguments of llama-quantize, so that its scripts keep working.

Upstream: https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/quantize.cpp
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import kquant
from kquant.cli import show
from kquant.errors import OptionError, UnknownTypeError
from kquant.planning.options import (
    compile_patterns,
    file_type_of,
    parse_override,
    parse_prune_layers,
    parse_tensor_type,
    read_tensor_types,
    target_type,
)
from kquant.types import FileType

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kquant.types import TensorType

__all__ = ["quantize"]

EXAMPLE = "for example `kquant quantize model-f16.gguf Q4_K_M`"


class Words(NamedTuple):
    """The parsed arguments IN.gguf [OUT.gguf] TYPE [THREADS]."""

    source: Path
    target: Path
    file_type: FileType
    threads: int | None


class _Quantize(click.Command):
    """Remembers in which order --tensor-type and --tensor-type-file came: the first match decides."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
        except click.UsageError as error:
            error.ctx = ctx
            raise
        ctx.meta["order"] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    names = [n for n in FileType.__members__ if incomplete and n.startswith(incomplete.upper())]
    return [CompletionItem(n) for n in names] or [CompletionItem(incomplete, type="file")]


@click.command(cls=_Quantize, options_metavar="[OPTIONS]")
@click.argument("words", nargs=-1, metavar="IN.gguf [OUT.gguf] TYPE [THREADS]", shell_complete=_complete)
@click.option("--dry-run", is_flag=True, help="Show the plan, tensor by tensor, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON instead of tables.")
@click.option(
    "--allow-requantize", is_flag=True, help="Accept tensors that are already quantized; costs quality."
)
@click.option("--leave-output-tensor", is_flag=True, help="Leave output.weight as it is.")
@click.option("--pure", is_flag=True, help="No mixture: one type for all matrices.")
@click.option("--imatrix", metavar="FILE", help="Importance matrix, GGUF or the older .dat format.")
@click.option(
    "--include-weights",
    metavar="NAME",
    multiple=True,
    help="Use the importance matrix only for these tensors.",
)
@click.option(
    "--exclude-weights",
    metavar="NAME",
    multiple=True,
    help="Do not use the importance matrix for these tensors.",
)
@click.option("--output-tensor-type", metavar="TENSOR_TYPE", help="Type of output.weight.")
@click.option("--token-embedding-type", metavar="TENSOR_TYPE", help="Type of the token embeddings.")
@click.option(
    "--tensor-type",
    metavar="REGEX=TENSOR_TYPE",
    multiple=True,
    help="Type of the tensors whose name matches; may be repeated, the first match counts.",
)
@click.option(
    "--tensor-type-file",
    metavar="FILE",
    multiple=True,
    help="A file of REGEX=TENSOR_TYPE, separated by spaces or newlines.",
)
@click.option(
    "--prune-layers", metavar="L0,L1,...", multiple=True, help="Drop these layers and renumber the others."
)
@click.option(
    "--max-buffer-size",
    metavar="MIB",
    type=click.IntRange(min=1),
    expose_value=False,
    help="Taken for the sake of scripts: kquant's buffers are smaller than any limit.",
)
@click.option("--keep-split", is_flag=True, help="Write as many shards as the input has.")
@click.option(
    "--override-kv",
    metavar="KEY=TYPE:VALUE",
    multiple=True,
    help="Set metadata of the result; TYPE is int, float, bool or str.",
)
@click.pass_context
def quantize(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Turn a GGUF model into another file type, as llama-quantize does.

    TYPE is a name such as Q4_K_M or its number (see `kquant types --files`); THREADS defaults to all
    cores; without OUT.gguf the result is ggml-model-TYPE.gguf beside the input.
    """
    source, target, file_type, threads = parse_words(words, keep_split=given["keep_split"])
    options = parse_options(given, ctx.meta["order"])
    if dry_run:
        plan = kquant.plan(source, file_type, **options)
    else:
        with show.Progress(f"{source.name} → {target.name}") as progress:
            plan = kquant.requantize(source, target, file_type, threads=threads, progress=progress, **options)
    if as_json:
        click.echo(plan.to_json())
        return
    if dry_run:
        show.write(show.tensors(plan), "")
    show.write(*show.summary(plan))


def parse_words(words: tuple[str, ...], *, keep_split: bool = False) -> Words:
    """Parse IN.gguf [OUT.gguf] TYPE [THREADS]: if the second argument names a file type, it is TYPE.

    >>> parse_words(("models/a.gguf", "q4_k", "8"))
    Words(source=...('models/a.gguf'), target=...('models/ggml-model-Q4_K.gguf'), file_type=..., threads=8)
    """
    if len(words) < 2:
        raise click.UsageError(f"expected IN.gguf [OUT.gguf] TYPE [THREADS], {EXAMPLE}")
    source, *rest = words
    found = parse_file_type(rest[0])
    if found:
        file_type, name = found
        target = Path(source).parent / (f"ggml-model-{name}" + ("" if keep_split else ".gguf"))
    elif len(rest) == 1 and not rest[0].endswith(".gguf"):
        raise click.UsageError(unknown_file_type(rest[0]))
    elif len(rest) == 1:
        raise click.UsageError(f"TYPE is missing after {rest[0]}, {EXAMPLE}")
    else:
        target = Path(rest.pop(0))
        found = parse_file_type(rest[0])
        if not found:
            raise click.UsageError(unknown_file_type(rest[0]))
        file_type, _ = found
    if len(rest) > 2:
        raise click.UsageError(f"unexpected word {rest[2]!r} after THREADS")
    return Words(Path(source), target, file_type, parse_threads(rest[1]) if len(rest) == 2 else None)


def parse_file_type(word: str) -> tuple[FileType, str] | None:
    """The file type that an argument names and its name in the default output; None if it names none.

    As upstream, a number stands for the short name: 15 is Q4_K, the alias of Q4_K_M.  Raises
    `UnsupportedTypeError` for file types of llama.cpp that kquant cannot make.

    >>> parse_file_type("q6_k"), parse_file_type("15"), parse_file_type("out.gguf")
    ((FileType.Q6_K, 'Q6_K'), (FileType.Q4_K_M, 'Q4_K'), None)
    """
    try:
        found = file_type_of(word)
    except UnknownTypeError:
        return None
    name = word.upper()
    if name not in FileType.__members__:
        name = min((n for n, member in FileType.__members__.items() if member is found), key=len)
    return found, name


def unknown_file_type(word: str) -> str:
    """The message for an argument in the place of TYPE that names no file type."""
    return f"unknown file type {word!r}; known: {', '.join(FileType.__members__)}"


def parse_threads(word: str) -> int | None:
    """The number of threads; None, all cores, for 0 and below as upstream has it."""
    try:
        return max(int(word), 0) or None
    except ValueError:
        raise click.UsageError(f"THREADS must be a whole number, got {word!r}") from None


def parse_options(given: dict[str, Any], order: list[str]) -> dict[str, Any]:
    """The keyword arguments of `kquant.plan` and `kquant.requantize` for the options of the command line.

    `order` names the parameters in the order in which they were given.
    """
    if given["include_weights"] and given["exclude_weights"]:
        raise click.UsageError("--include-weights and --exclude-weights exclude each other")
    options = dict(given)
    pairs, files = iter(options.pop("tensor_type")), iter(options.pop("tensor_type_file"))
    types: list[tuple[str, TensorType]] = []
    try:
        for name in order:
            if name == "tensor_type":
                types.append(parse_tensor_type(next(pairs)))
            elif name == "tensor_type_file":
                types.extend(read_tensor_types(next(files)))
        compile_patterns(types)
        for name in ("output_tensor_type", "token_embedding_type"):
            options[name] = options[name] and target_type(options[name])
        for override in options["override_kv"]:
            parse_override(override)
        layers = [layer for text in options["prune_layers"] for layer in parse_prune_layers(text)]
    except (OptionError, UnknownTypeError) as error:
        raise click.UsageError(str(error)) from error
    return options | {"tensor_types": types, "prune_layers": layers}
