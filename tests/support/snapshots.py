"""Decisions as readable text: one line for the layers that share a type and a reason.

To write tests/policy/snapshots anew after a deliberate change::

    PYTHONPATH=.:tests python -m support.snapshots
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from kquant.types import FileType
from support.models import SNAPSHOTS, Model

FOLDER = Path(__file__).parents[1] / "policy" / "snapshots"


def layers(numbers: list[int]) -> str:
    """Layer numbers with runs drawn together: 0-3 6 9 28-31."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def fold(tensors: Iterable[tuple[str, ...]]) -> list[str]:
    """Lines for (name, type, ...), where names that differ in their layer alone share one."""
    groups: dict[str, dict[tuple[str, ...], list[int]]] = {}
    for name, *rest in tensors:
        match = re.match(r"blk\.(\d+)\.(.*)", name)
        group = groups.setdefault(f"blk.*.{match[2]}" if match else name, {})
        group.setdefault(tuple(rest), []).extend([int(match[1])] if match else [])
    return [
        "  ".join((f"{name:<26}", f"{rest[0]:<5}", *filter(None, (layers(numbers), *rest[1:])))).rstrip()
        for name, group in groups.items()
        for rest, numbers in group.items()
    ]


def render(model: Model) -> str:
    """Every decision that departs from the default type, for every file type that quantizes."""
    facts = model.facts
    lines = [
        f"# {model.name}: {len(model.tensors)} tensors, {model.n_elements:,} elements",
        f"# {facts}",
    ]
    for file_type in FileType:
        if not (file_type.default_type and file_type.default_type.is_quantized):
            continue
        n_bytes = model.n_bytes(file_type.name)
        sizes = f"{n_bytes / 2**30:.2f} GiB, {8 * n_bytes / model.n_elements:.2f} bits per weight"
        lines += ["", f"[{file_type.name}] {file_type.default_type.name}, {sizes}"]
        lines += fold(_departures(model, file_type))
    return "\n".join(lines) + "\n"


def render_types(model: Model) -> str:
    """The types alone, in the form of tests/golden/policy."""
    lines = []
    for file_type in FileType:
        if file_type.default_type:
            departures = [(name, type_name) for name, type_name, _ in _departures(model, file_type)]
            lines += [f"[{file_type.name}] {file_type.default_type.name}", *fold(departures), ""]
    return "\n".join(lines)


def _departures(model: Model, file_type: FileType) -> list[tuple[str, str, str]]:
    return [
        (tensor.name, decision.type.name, decision.reason)
        for tensor, decision in zip(model.tensors, model.decide(file_type.name), strict=True)
        if decision.quantize and decision.type is not file_type.default_type
    ]


if __name__ == "__main__":
    for each in SNAPSHOTS:
        (FOLDER / f"{each.name}.txt").write_text(render(each))
