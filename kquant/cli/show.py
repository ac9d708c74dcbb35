"""Tables and progress: what the commands draw.  Colours and bars on terminals, plain lines elsewhere."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import click
from rich.cells import cell_len, set_cell_size

from kquant._text import percent, printable, share, size
from kquant.cli.option_names import by_option
from kquant.cli.signals import Postponed
from kquant.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from click.shell_completion import CompletionItem
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    from typing_extensions import Self

    from kquant.cli.progress_bar import Bar
    from kquant.planning.planner import Plan, PlanRow
    from kquant.types import TensorType

__all__ = [
    "Grid",
    "Progress",
    "Shown",
    "Styled",
    "ask",
    "bar",
    "change",
    "complete_cache_type",
    "json_option",
    "line",
    "percent",
    "read_text",
    "share",
    "size",
    "standard_input",
    "summary",
    "tensors",
    "tensors_option",
    "threads_option",
    "top_option",
    "working",
    "write",
    "write_json",
    "write_piece",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
threads_option = click.option(
    "-t",
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most so many threads; default all cores.",
)

# wide enough for any table where the output is not a terminal and nothing needs to be folded
PLAIN_WIDTH = 240
GAP, CUT_WIDTH = 2, 16
"""Characters between columns, and of a column that is shortened in a narrow terminal."""
tensors_option = click.option("--tensors", metavar="REGEX", help="Only tensors whose name this finds.")
top_option = click.option(
    "--top",
    type=click.IntRange(min=0),
    default=20,
    metavar="N",
    help="List the N tensors with the largest errors; default 20, 0 for all.",
)

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that terminals obey, but for new lines and tabs."""


def complete_cache_type(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of types for keys and values that begin so."""
    from click.shell_completion import CompletionItem

    from kquant.runtime.cache import CACHE_TYPES

    return [CompletionItem(name) for name in CACHE_TYPES if name.startswith(incomplete.upper())]


def read_text(path: Path) -> str:
    """A text file.  Raises `OptionError` if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise OptionError(f"{path}: expected text in UTF-8, got {_wrong_bytes(error)}") from None


def standard_input(what: str) -> str:
    """All of standard input, without the last new line.  Raises `OptionError` if it is no text."""
    if sys.stdin.isatty():
        click.echo(f"The {what} is read from the terminal, until Ctrl-D.", err=True)
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise OptionError(f"standard input: expected text, got {_wrong_bytes(error)}") from None


def _wrong_bytes(error: UnicodeDecodeError) -> str:
    return f"byte 0x{error.object[error.start]:02x} at {error.start:,}"


def line() -> str | None:
    """The next line of standard input; None at its end."""
    try:
        found = sys.stdin.readline()
    except UnicodeDecodeError as error:
        raise OptionError(f"standard input: expected text, got {_wrong_bytes(error)}") from None
    return found.removesuffix("\n") if found else None


def ask(prompt: str) -> str | None:
    """A line that is typed at a terminal, where it can be edited; None for Ctrl-D."""
    with suppress(ImportError):
        import readline  # noqa: F401  # `input` uses it once it is there
    ours, sys.stdout = sys.stdout, sys.__stdout__ or sys.stdout  # and only with the process's own streams
    try:
        return input(prompt)
    except EOFError:
        click.echo()
        return None
    finally:
        sys.stdout = ours


def write_piece(text: str) -> None:
    """Print a part of a generated text; on a terminal, characters that it would obey become escapes."""
    if sys.stdout.isatty():
        text = CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
    click.echo(text, nl=False)


def bar(part: float, whole: float, width: int = 24) -> str:
    """A part of the whole as a bar; what is not nothing has at least a sliver.

    >>> bar(3, 8, 8), bar(1, 1000, 8), bar(0, 8, 8)
    ('███', '▏', '')
    """
    eighths = max(round(8 * width * part / whole), part > 0) if whole else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def write_json(value: Any) -> None:
    """Print JSON for machines; what is no number, as the error of nothing, becomes null."""
    click.echo(json.dumps(_finite(value), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Styled:
    """A line of text, and how terminals show it."""

    text: str
    style: str

    def __str__(self) -> str:
        return self.text

    def __rich__(self) -> Text:
        from rich.text import Text

        return Text(self.text, style=self.style)


def terminal(stream: TextIO) -> Console | None:
    """The terminal that a stream writes to, if any; the library that draws on it is not imported before."""
    if not (stream.isatty() or os.environ.get("FORCE_COLOR")):
        return None
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False)


def write(*things: Shown) -> None:
    """Print tables and texts, one below the other, to standard output."""
    console = terminal(sys.stdout)
    if console is None:
        lines = (thing.plain() if isinstance(thing, Grid) else str(thing).split("\n") for thing in things)
        click.echo("\n".join(line.rstrip() for line in chain.from_iterable(lines)))
        return
    width = console.width
    for thing in things:  # shortened figures would be misleading: let the terminal wrap the lines instead
        console.width = max(width, thing.min_width if isinstance(thing, Grid) else 0)
        console.print(thing)


class Grid:
    """A table without lines; a header that begins with `>` stands over right-aligned figures.

    Where the table is too wide, the column named by `cut` is shortened.
    """

    def __init__(self, *headers: str, cut: str | None = None) -> None:
        self._headers = [header.lstrip(">") for header in headers]
        self._figures = [header.startswith(">") for header in headers]
        self._cut = self._headers.index(cut) if cut is not None else None
        self._widths = [cell_len(header) for header in self._headers]
        self._rows: list[tuple[list[str], str | None]] = []

    def row(self, *cells: object, style: str | None = None) -> None:
        """Add a row; nothing in a cell is taken for markup or for the terminal's control characters."""
        texts = [printable(str(cell)) for cell in cells]
        self._widths = [max(width, cell_len(text)) for width, text in zip(self._widths, texts, strict=True)]
        self._rows.append((texts, style))

    @property
    def min_width(self) -> int:
        """Characters that a line needs at least, with the column that may be shortened at its shortest."""
        return sum(
            GAP + (min(width, CUT_WIDTH) if i == self._cut else width) for i, width in enumerate(self._widths)
        )

    def plain(self) -> Iterator[str]:
        """Lines for files and pipes."""
        widths = list(self._widths)
        if self._cut is not None:
            rest = sum(widths) - widths[self._cut] + GAP * len(widths)
            widths[self._cut] = min(widths[self._cut], max(CUT_WIDTH, PLAIN_WIDTH - rest))
        for cells in (self._headers, *(cells for cells, _ in self._rows)):
            yield (" " * GAP).join(map(_fitted, cells, widths, self._figures))

    def __rich__(self) -> Table:
        """The same for terminals."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for i, (header, width) in enumerate(zip(self._headers, self._widths, strict=True)):
            is_cut = i == self._cut
            # a width that is known need not be measured, which would take a third of the time
            table.add_column(
                header,
                justify="right" if self._figures[i] else "left",
                no_wrap=not is_cut,
                width=None if is_cut else width,
            )
        for cells, style in self._rows:
            table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells), style=style)
        return table


def _fitted(text: str, width: int, is_figure: bool) -> str:
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    return " " * (width - cell_len(text)) + text if is_figure else set_cell_size(text, width)


Shown: TypeAlias = Grid | Styled | str
"""What `write` prints."""


def change(row: PlanRow) -> str:
    """What becomes of a tensor's type."""
    return f"{row.type.name} → {row.new_type.name}" if row.converts else row.type.name


def tensors(plan: Plan) -> Grid:
    """Every tensor of a plan: what it is, what it becomes, and why."""
    grid = Grid("tensor", "shape", "type", ">size", "reason", cut="reason")
    for row in plan.rows:
        shape = " × ".join(map(str, row.shape))
        grid.row(
            row.name,
            shape,
            change(row),
            size(row.new_bytes),
            row.reason,
            style=None if row.converts else "dim",
        )
    return grid


def summary(plan: Plan) -> Iterator[Shown]:
    """Sizes and bits per weight before and after, tensors per type, fallbacks, and what else to know."""
    sizes = Grid("", ">size", ">bits per weight")
    sizes.row("source", size(plan.bytes), f"{plan.bits_per_weight:.2f}")
    sizes.row("result", size(plan.new_bytes), f"{plan.new_bits_per_weight:.2f}")
    yield sizes

    types = Grid("type", ">tensors", ">size", ">share", ">bits per element")
    for t, count in plan.types.items():
        n = sum(row.new_bytes for row in plan.rows if row.new_type is t)
        types.row(t.name, count, size(n), share(n, plan.new_bytes), f"{t.bits_per_element:g}")
    yield from ("", types)

    if plan.fallbacks:
        yield from ("", *fallbacks(plan))
    for note in plan.notes:
        yield from ("", Styled(printable(by_option(note)), "yellow"))
    for problem in plan.problems:
        yield from ("", Styled(f"cannot be carried out: {printable(by_option(str(problem)))}", "bold red"))


def fallbacks(plan: Plan) -> Iterator[Shown]:
    """Which tensors could not have the type intended for them, and their share of the bytes."""
    groups: defaultdict[tuple[TensorType | None, TensorType], list[int]] = defaultdict(list)
    for row in plan.fallbacks:
        groups[row.fallback_from, row.new_type].append(row.new_bytes)
    count, total = len(plan.fallbacks), sum(row.new_bytes for row in plan.fallbacks)
    yield Styled(
        f"{count} of {len(plan.rows)} tensors, {share(total, plan.new_bytes)} of the bytes, fall back to "
        "another type: the block size does not divide their rows.",
        "yellow",
    )
    grid = Grid("meant", "made", ">tensors", ">size", ">share")
    for (meant, made), found in sorted(groups.items(), key=lambda item: -sum(item[1])):
        n = sum(found)
        grid.row(meant.name if meant else "", made.name, len(found), size(n), share(n, plan.new_bytes))
    yield grid


class Progress:
    """Reports (done bytes, all bytes): a bar with speed and time left on a terminal, else ten lines.

    Nothing is shown before the first report, so that an error in what comes before stands alone.
    From then on signals wait for the next report: threads are at work.
    """

    def __init__(self, label: str) -> None:
        self._label = printable(label)
        self._shown: Bar | Lines | None = None
        self._signals = Postponed()

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Say that `done` of `total` bytes are processed."""
        if self._shown is None:
            console = terminal(sys.stderr)
            self._shown = Lines(self._label) if console is None else bar_on(console, self._label)
            self._signals.begin()
        self._shown.update(done, total)
        self._signals.check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signals.end()
        if self._shown is not None:
            self._shown.close()


@contextmanager
def working(label: str) -> Iterator[None]:
    """Says what is being done where nobody knows how long it takes."""
    console = terminal(sys.stderr)
    if console is None:
        click.echo(label, err=True)
        yield
    else:
        with console.status(label):
            yield


def bar_on(console: Console, label: str) -> Bar:
    """A bar, whose library commands that show none need not wait for."""
    from kquant.cli.progress_bar import Bar

    return Bar(label, console)


class Lines:
    """A line when the work begins and after each tenth of it."""

    def __init__(self, label: str) -> None:
        click.echo(label, err=True)
        self.started = time.monotonic()
        self.tenth = 0

    def update(self, done: int, total: int) -> None:
        """Print a line if another tenth is done."""
        tenth = 10 * done // total if total else 10
        if tenth > self.tenth:
            self.tenth = tenth
            speed = done / max(time.monotonic() - self.started, 1e-9)
            click.echo(f"{10 * tenth:4} %  {size(done)} of {size(total)}  {size(speed)}/s", err=True)

    def close(self) -> None:
        """Nothing is left to do."""
