"""The parts of the page in their order: figures and tables, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass

from kquant._text import count, percent, printable, share, size
from kquant.analysis.comparison import GroupError
from kquant.reporting.facts import Facts
from kquant.reporting.figures import Figure, Table, errors, rate, sizes, types, values

__all__ = ["Section", "sections", "summary"]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    note: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[tuple[str, Table], ...] = ()


def summary(facts: Facts) -> list[tuple[str, str]]:
    """What to know first: names and values."""
    file, source = facts.file, facts.source
    layers = sum(layer is not None for layer in file.layers)
    found = {
        "bits per weight": f"{file.bits_per_weight:.4g}",
        "size": size(sum(file.file_bytes)),
        "parameters": count(file.total.elements),
        "architecture": file.architecture,
        "file type": file.file_type,
        "layers": str(layers) if layers else None,
        "tensors": f"{file.total.tensors:,}",
        "files": str(len(file.paths)) if len(file.paths) > 1 else None,
        "byte order": "big endian" if file.byteorder == "big" else None,
    }
    if source:
        found["source size"] = size(sum(source.file_bytes))
        found["source bits per weight"] = f"{source.bits_per_weight:.4g}"
        found["share of the source"] = share(file.total.bytes, source.total.bytes)
    if facts.errors:
        found["relative RMSE"] = percent(GroupError.of(facts.errors).sums.relative_rmse)
    return [(name, printable(value)) for name, value in found.items() if value is not None]


def sections(facts: Facts) -> list[Section]:
    """All parts."""
    return [_sizes(facts), _types(facts), _errors(facts), _rate(facts), _values(facts)]


def _sizes(facts: Facts) -> Section:
    found = filter(None, (sizes.by_role(facts.file), sizes.by_layer(facts.file)))
    note = "" if facts.file.tensors else "The file holds no tensors: it may be a vocabulary alone."
    return Section("size", "Where the bytes are", note, tuple(found))


def _types(facts: Facts) -> Section:
    found = types.type_map(facts.file)
    note = "" if found else "No tensor is named as part of a layer (blk.0. and so on), so there is no map."
    figures = (found,) if found else ()
    tables = (("Tensors by type", types.table(facts.file)),) if facts.file.tensors else ()
    return Section("types", "Which type each tensor has", note, figures, tables)


def _errors(facts: Facts) -> Section:
    if not facts.comparison:
        hint = "" if facts.source else " Give one with --against SOURCE.gguf."
        return Section("errors", "Where the error is", facts.missing["comparison"] + hint)
    note = (
        "Relative RMSE is the root of the mean squared error over the root mean square of the source. "
        "Vectors, such as norms, are left out: no mixture touches them."
    )
    tables: list[tuple[str, Table]] = []
    figures: list[Figure | None] = []
    if facts.errors:
        figures = [errors.by_layer(facts.errors), errors.by_matrix(facts.errors)]
        tables = [("By role", errors.roles(facts.errors)), ("The largest errors", errors.worst(facts.errors))]
    else:
        note = "There is no matrix that can be compared."
    if facts.comparison.uncompared:
        rows = tuple((printable(one.name), printable(one.reason)) for one in facts.comparison.uncompared)
        tables.append((f"Not compared ({len(rows)})", Table(("tensor", "why"), rows)))
    return Section("errors", "Where the error is", note, tuple(filter(None, figures)), tuple(tables))


def _rate(facts: Facts) -> Section:
    title = "What bits buy"
    if not facts.sweep:
        return Section("rate", title, facts.missing["sweep"])
    found = rate.rate_and_distortion(facts.sweep, facts.errors, printable(facts.file.paths[0].name))
    if not found:
        return Section("rate", title, "No type has an error that can be drawn.")
    return Section("rate", title, figures=(found,))


def _values(facts: Facts) -> Section:
    title = "Values of a tensor"
    found = values.values(facts.histogram) if facts.histogram else None
    if not found:
        return Section("values", title, facts.missing.get("histogram", "The tensor has no elements."))
    worst = max(facts.errors, key=lambda row: row.sums.rank, default=None)
    is_worst = facts.histogram and worst and worst.name == facts.histogram.name
    return Section("values", title, "The matrix with the largest error." if is_worst else "", (found,))
