"""`python -m benchmarks`: every case, or those whose name contains one of the arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from benchmarks import dot, machine, report
from benchmarks.cases import Case, cases
from benchmarks.measure import by_turns, keep_freed_memory


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("words", nargs="*", help="measure only cases like 'Q4_K' or 'dequantize'")
    parser.add_argument("--elements", type=int, default=1 << 24, help="floats per input (default: 16777216)")
    parser.add_argument("--seconds", type=float, default=6, help="time for each case (default: 6)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), help="folder for results.json and results.png"
    )
    parser.add_argument("--no-plot", action="store_true", help="without results.png, which needs matplotlib")
    return parser.parse_args(argv)


def measure(case: Case, seconds: float) -> report.Result:
    """Compare the results, then the times of those that made the same."""
    differing = case.differing()
    fair = {name: run for name, run in case.contestants.items() if name not in differing}
    return report.Result.of(case, by_turns({**fair, **case.limits}, seconds), differing)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table as it grows, then write the files; 1 if any result differed from ggml's."""
    options = arguments(argv)
    kept = keep_freed_memory()
    print(report.HEADER)
    results = []
    for case in chain(cases(options.elements), dot.cases()):
        if not options.words or any(word.lower() in str(case).lower() for word in options.words):
            results.append(measure(case, options.seconds))
            print(report.line(results[-1]), flush=True)
    facts = {**machine.facts(), "elements": options.elements, "memory_reused": kept}
    options.out.mkdir(parents=True, exist_ok=True)
    report.write_json(options.out / "results.json", results, facts)
    if not options.no_plot:
        report.plot(options.out / "results.png", results, facts)
    return int(any("ggml" in result.differing for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
