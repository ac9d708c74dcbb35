"""`kquant.report`: one self-contained page about a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kquant.errors import MissingDependencyError, OutputError
from kquant.gguf.part_file import PartFile
from kquant.reporting.facts import Facts, Stages, gather

__all__ = ["Report", "check_installed", "check_output", "report"]

LIBRARIES = ("altair", "vl_convert", "jinja2")


@dataclass(frozen=True, slots=True)
class Report:
    """What `kquant.report` found, and the page that shows it."""

    facts: Facts
    """Inspection, comparison, sweep and histogram."""

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that were read."""
        facts = self.facts
        return facts.file.paths + (facts.source.paths if facts.source else ())

    def to_dict(self) -> dict[str, Any]:
        """The facts in JSON's types: `file`, `source`, `comparison`, `sweep`, `histogram`, `missing`."""
        return self.facts.to_dict()

    def html(self) -> str:
        """The page.

        Raises `MissingDependencyError` if the libraries that draw it are not installed.
        """
        check_installed()
        from kquant.reporting.page import render

        return render(self.facts)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page; it appears under its name only when it is complete.

        Raises `MissingDependencyError` as `html` does, `OutputError` if it cannot be written.
        """
        check_output(path, self.sources)
        page = self.html().encode("utf-8")
        part = PartFile(path, len(page))
        try:
            part.write(0, page)
            part.commit()
        finally:
            part.abort()


def report(
    file: str | os.PathLike[str],
    *,
    against: str | os.PathLike[str] | None = None,
    tensor: str | None = None,
    rows: int = 32,
    threads: int | None = None,
    progress: Stages | None = None,
) -> Report:
    """Everything about a file on one page: sizes, types, errors, rate and distortion, values of a tensor.

    Files are read in slabs, so memory is bounded for models of any size.  What the data does not allow,
    such as the error of a tensor whose type kquant has no codec for, is named in `facts.missing` or listed
    as not compared; the page tells it.

    Args:
        file: A GGUF file, or the first of its shards.
        against: What it was made from; without it there are no errors, and types are tried only on a
            file that is not quantized.
        tensor: The tensor whose values are counted; None for the one with the largest error.
        rows: Try types on so many rows of each matrix; 0 to leave that out.
        threads: At most so many; None for one per core.
        progress: Called with what is being done, the bytes that are done, and their total.

    Raises:
        GGUFError, OSError: A file cannot be read.
        OptionError: There is no such tensor, the files have no tensor in common, or a number is too small.

    >>> import kquant, numpy as np, pathlib, tempfile
    >>> from kquant.gguf import Metadata, TensorSpec, Writer, layout
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.gguf")
    ...     specs = [TensorSpec("blk.0.ffn_up.weight", (256, 64), kquant.TensorType["F16"])]
    ...     with Writer(path, layout(Metadata(), specs)) as writer:
    ...         writer.write(0, 0, np.linspace(-1, 1, 64 * 256).astype(np.float16))
    ...         writer.commit()
    ...     _ = kquant.requantize(path, path.with_name("small.gguf"), "Q4_K_M")
    ...     found = kquant.report(path.with_name("small.gguf"), against=path, rows=0)
    >>> found.facts.file.bits_per_weight, found.facts.histogram.name, found.facts.missing
    (4.5, 'blk.0.ffn_up.weight', {'sweep': 'It was left out.'})

    `found.write("report.html")` writes the page; it needs the extra `kquant-gguf[report]`.
    """
    return Report(gather(file, against, tensor, rows, threads, progress))


def check_installed() -> None:
    """Raises `MissingDependencyError` if the page cannot be drawn."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"not installed, but needed to draw the report: {', '.join(missing)}")


def check_output(path: str | os.PathLike[str], sources: Iterable[Path]) -> None:
    """Raises `OutputError` for a page in a folder that does not exist, or in the place of a source."""
    target = Path(path)
    if not target.parent.is_dir():
        raise OutputError(f"{target}: expected a file in a folder that exists")
    if target.exists() and any(target.samefile(source) for source in sources):
        raise OutputError(f"{target}: expected another file than the model, got the model itself")
