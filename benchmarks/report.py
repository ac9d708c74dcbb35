"""Results as a table, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cases import COPY, Case
from benchmarks.measure import Spread, Times


@dataclass(frozen=True)
class Result:
    """One case, measured."""

    group: str
    type: str
    melem_per_s: dict[str, float]
    """Million elements per second, the median of each contestant."""
    times_faster: dict[str, Spread]
    """How many times faster the first contestant was than each other one."""
    of_copy: float | None
    """Bytes per second of the first contestant, as a share of those of a memory copy."""
    turns: int
    differing: list[str]
    """Contestants that made something else, and whose times therefore do not count."""

    @classmethod
    def of(cls, case: Case, times: Times, differing: list[str]) -> Result:
        first, *others = (name for name in case.contestants if name not in differing)
        speed = {name: case.n_elements / times.of(name).median / 1e6 for name in (first, *others)}
        copied = 8 * case.n_elements / times.of(COPY).median if COPY in case.limits else None
        return cls(
            group=case.group,
            type=case.type,
            melem_per_s=speed,
            times_faster={name: times.ratio(first, name) for name in others},
            of_copy=None if copied is None else case.n_bytes / times.of(first).median / copied,
            turns=len(times.seconds[first]),
            differing=differing,
        )


HEADER = f"{'':32}{'Melem/s':>9}   {'of copy':>7}   times faster than (quartiles)"


def line(result: Result) -> str:
    """One row of the table."""
    first = next(iter(result.melem_per_s))
    share = "" if result.of_copy is None else f"{result.of_copy:.0%}"
    ratios = [
        f"{name} {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
        for name, ratio in result.times_faster.items()
    ]
    ratios += [f"{name}: DIFFERENT RESULT" for name in result.differing]
    label = f"{result.group} {result.type}"
    return f"{label:32}{result.melem_per_s[first]:9.1f}   {share:>7}   {'   '.join(ratios)}"


def write_json(path: Path, results: Sequence[Result], machine: dict[str, Any]) -> None:
    document = {"machine": machine, "results": [asdict(result) for result in results]}
    path.write_text(json.dumps(document, indent=2) + "\n")


def plot(path: Path, results: Sequence[Result], machine: dict[str, Any]) -> None:
    """A panel per group: bars for every contestant's speed on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    groups = list(dict.fromkeys(result.group for result in results))
    heights = [sum(result.group == group for result in results) for group in groups]
    figure, panels = plt.subplots(
        len(groups),
        1,
        figsize=(9, 1.2 * len(groups) + 0.34 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for group, panel in zip(groups, panels[:, 0], strict=True):
        _panel(panel, group, [result for result in results if result.group == group])
    figure.suptitle(f"{machine['cpu']}, one thread each unless said otherwise", fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _panel(panel: Any, group: str, results: Sequence[Result]) -> None:
    names = list(dict.fromkeys(name for result in results for name in result.melem_per_s))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        rows = [(y, result) for y, result in enumerate(results) if name in result.melem_per_s]
        bars = panel.barh(
            [y + (i - (len(names) - 1) / 2) * width for y, _ in rows],
            [result.melem_per_s[name] for _, result in rows],
            width,
            label=name,
        )
        ratios = [result.times_faster.get(name) for _, result in rows]
        labels = ["" if ratio is None else f" ÷{ratio.median:.1f}" for ratio in ratios]
        panel.bar_label(bars, labels, fontsize=6)
    panel.set_yticks(range(len(results)), [result.type for result in results], fontsize=8)
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.set_xlabel("million elements per second", fontsize=8)
    panel.set_title(group, fontsize=10, loc="left")
    panel.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
