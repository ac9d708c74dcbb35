"""Results as a table, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cases import COPY, PEAK, READ, Case
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
    of_peak: float | None
    """Products of bytes per second, as a share of what the core can do in registers."""
    of_read: float | None
    """Bytes per second, as a share of those of a loop that only reads them."""
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
            of_peak=times.ratio(first, PEAK).median if PEAK in case.limits else None,
            of_read=times.ratio(first, READ).median if READ in case.limits else None,
            turns=len(times.seconds[first]),
            differing=differing,
        )


HEADER = f"{'':32}{'Melem/s':>9}   {'of limit':>8}   times faster than (quartiles)"


def line(result: Result) -> str:
    """One row of the table."""
    first = next(iter(result.melem_per_s))
    limits = (result.of_copy, result.of_peak, result.of_read)
    share = next((f"{limit:.0%}" for limit in limits if limit is not None), "")
    ratios = [
        f"{name} {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
        for name, ratio in result.times_faster.items()
    ]
    ratios += [f"{name}: DIFFERENT RESULT" for name in result.differing]
    label = f"{result.group} {result.type}"
    return f"{label:32}{result.melem_per_s[first]:9.1f}   {share:>8}   {'   '.join(ratios)}"


def write_json(path: Path, results: Sequence[Result], machine: dict[str, Any]) -> None:
    document = {"machine": machine, "results": [asdict(result) for result in results]}
    path.write_text(json.dumps(document, indent=2) + "\n")


def plot(path: Path, results: Sequence[Result], machine: dict[str, Any]) -> None:
    """A panel per group: how many times faster than each peer, with quartiles, on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    groups = list(dict.fromkeys(result.group for result in results))
    rows = {group: [result for result in results if result.group == group] for group in groups}
    heights = [len(rows[group]) + 2 for group in groups]
    figure, panels = plt.subplots(
        len(groups),
        1,
        figsize=(8, 0.24 * sum(heights) + 1),
        height_ratios=heights,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for group, panel in zip(groups, panels[:, 0], strict=True):
        _panel(panel, group, rows[group])
    panels[-1, 0].set_xlabel("times faster (median and quartiles)")
    figure.suptitle(f"kquant on one thread beside others; {machine['cpu']}", fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)


COLOURS = {
    "ggml": "tab:blue",
    "gguf-py": "tab:orange",
    "libgguf": "tab:purple",
    "one thread": "tab:green",
    "one column": "tab:red",
    "packed each time": "tab:brown",
    "one by one": "tab:olive",
}


def _panel(panel: Any, group: str, results: Sequence[Result]) -> None:
    for peer, colour in COLOURS.items():
        rows = [
            (y, result.times_faster[peer]) for y, result in enumerate(results) if peer in result.times_faster
        ]
        if rows:
            medians = [ratio.median for _, ratio in rows]
            below = [ratio.median - ratio.low for _, ratio in rows]
            above = [ratio.high - ratio.median for _, ratio in rows]
            places = [y for y, _ in rows]
            panel.errorbar(
                medians, places, xerr=[below, above], fmt="o", ms=4, color=colour, label=f"than {peer}"
            )
    speeds = [next(iter(result.melem_per_s.values())) for result in results]
    labels = [
        f"{result.type}  {speed:,.{0 if speed > 10 else 1}f} M/s"
        for result, speed in zip(results, speeds, strict=True)
    ]
    panel.set_yticks(range(len(results)), labels, fontsize=8)
    panel.set_ylim(len(results) - 0.4, -0.6)
    panel.set_xscale("log")
    panel.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    panel.minorticks_off()
    panel.tick_params(labelbottom=True, labelsize=8)
    panel.axvline(1, color="black", lw=0.8)
    panel.grid(axis="x", lw=0.3)
    panel.set_title(group, fontsize=10, loc="left")
    panel.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False)


TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
