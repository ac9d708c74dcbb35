"""The facts of a report, gathered from the files: no pictures, no HTML."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from kquant._given import count_of
from kquant.analysis.comparison import Comparison, TensorError, compare
from kquant.analysis.inspection import Inspection, inspect
from kquant.analysis.slabs import readable
from kquant.analysis.sweeping import Sweep, sweep
from kquant.errors import InvalidDataError, OptionError
from kquant.gguf import GGUFFile, read
from kquant.reporting.histogram import Histogram, histogram

__all__ = ["Facts", "Stages", "gather", "is_matrix", "kind_of", "matrices"]

Stages = Callable[[str, int, int], None]
"""Progress: what is being done, the bytes that are done, and their total."""

COMPARING, SWEEPING, COUNTING = "comparing", "sweeping", "counting values"

_PREFIX = re.compile(r"^blk\.[0-9]+\.", re.ASCII)
_F = TypeVar("_F")


class _Tensor(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


_T = TypeVar("_T", bound=_Tensor)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a report shows."""

    file: Inspection
    source: Inspection | None
    """What the file is compared with."""
    comparison: Comparison | None
    sweep: Sweep | None
    histogram: Histogram | None
    missing: Mapping[str, str]
    """Of `comparison`, `sweep` and `histogram`, those that are None: why."""

    @property
    def errors(self) -> tuple[TensorError, ...]:
        """The errors of the matrices; vectors such as norms are copied and have none."""
        return tuple(matrices(self.comparison.rows)) if self.comparison else ()

    def to_dict(self) -> dict[str, Any]:
        """The facts in JSON's types."""
        return {
            "file": self.file.to_dict(),
            "source": self.source.to_dict() if self.source else None,
            "comparison": self.comparison.to_dict() if self.comparison else None,
            "sweep": self.sweep.to_dict() if self.sweep else None,
            "histogram": self.histogram.to_dict() if self.histogram else None,
            "missing": dict(self.missing),
        }


def is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether more than one dimension is longer than 1.

    >>> is_matrix((4, 256)), is_matrix((1, 256)), is_matrix((256,))
    (True, False, False)
    """
    return sum(n > 1 for n in shape) > 1


def matrices(tensors: Iterable[_T]) -> list[_T]:
    """Those of the tensors that are matrices, or stacks of them."""
    return [tensor for tensor in tensors if is_matrix(tensor.shape)]


def kind_of(name: str) -> str:
    """A tensor's name without its layer.

    >>> kind_of("blk.11.attn_q.weight"), kind_of("output.weight"), kind_of("blk.0.attn_q.bias")
    ('attn_q', 'output', 'attn_q.bias')
    """
    return _PREFIX.sub("", name).removesuffix(".weight")


def gather(
    path: str | os.PathLike[str],
    against: str | os.PathLike[str] | None,
    tensor: str | None,
    rows: int,
    threads: int | None,
    progress: Stages | None,
) -> Facts:
    """Read one file, or two: `kquant.report` tells the arguments and what is raised."""
    count_of("rows", rows, least=0)
    if threads is not None:
        count_of("threads", threads)
    missing: dict[str, str] = {}

    def attempt(part: str, stage: str, work: Callable[[Callable[[int, int], None] | None], _F]) -> _F | None:
        """What the work finds; a reason in `missing` where the data does not allow it."""
        try:
            return work((lambda done, total: progress(stage, done, total)) if progress else None)
        except (InvalidDataError, OptionError) as error:
            missing[part] = f"{_without_folders(str(error), model, source)}."
            return None

    with ExitStack() as stack:
        model = stack.enter_context(read(path))
        source = stack.enter_context(read(against)) if against is not None else None
        if tensor is not None and tensor not in model.tensors:
            raise OptionError(f"tensor: expected the name of a tensor of {model.paths[0]}, got {tensor!r}")
        comparison = swept = counted = None
        if source is None:
            missing["comparison"] = "No source was given to compare with."
        elif not model.tensors.keys() & source.tensors.keys():
            raise OptionError(f"{source.paths[0]}: expected tensors of {model.paths[0]}, got none of them")
        else:
            comparison = attempt(
                "comparison",
                COMPARING,
                lambda report: compare(source, model, threads=threads, progress=report),
            )
        if reason := _no_sweep(model, source, rows):
            missing["sweep"] = reason
        else:
            swept = attempt(
                "sweep",
                SWEEPING,
                lambda report: sweep(source or model, rows=rows, threads=threads, progress=report),
            )
        name = tensor or _most_telling(model, comparison)
        if name is None or not readable(model.tensors[name].type):
            types = ", ".join(sorted({info.type.name for info in model.tensors.values()})) or "nothing"
            what = f"{name} is {model.tensors[name].type.name}" if name else f"the file holds {types}"
            missing["histogram"] = f"There are no values that kquant can read: {what}."
        else:
            known = source if source and _same_shape(model, source, name) else None
            counted = attempt(
                "histogram",
                COUNTING,
                lambda report: histogram(model, name, known, threads=threads, progress=report),
            )
        return Facts(inspect(model), inspect(source) if source else None, comparison, swept, counted, missing)


def _without_folders(message: str, *models: GGUFFile | None) -> str:
    """A page that is passed on need not tell where the files were."""
    for path in (path for model in models if model for path in model.paths):
        message = message.replace(str(path), path.name)
    return message


def _no_sweep(model: GGUFFile, source: GGUFFile | None, rows: int) -> str | None:
    """Why types are not tried on the tensors."""
    if not rows:
        return "It was left out."
    if source is None and any(info.type.is_quantized for info in matrices(model.tensors.values())):
        return (
            "The file is quantized, and its source was not given: types like its own would look better than "
            "they are."
        )
    return None


def _most_telling(model: GGUFFile, comparison: Comparison | None) -> str | None:
    """The matrix with the largest error; without errors, the largest matrix of a layer, or any tensor."""
    worst = [row for row in comparison.worst if row.sums.squared_error] if comparison else []
    if worst:
        return next(iter(matrices(worst)), worst[0]).name
    known = [info for info in model.tensors.values() if readable(info.type) and info.n_elements]

    def rank(name: str, shape: tuple[int, ...], n_elements: int) -> tuple[bool, bool, int]:
        return is_matrix(shape), bool(_PREFIX.match(name)), n_elements

    best = max(known, key=lambda info: rank(info.name, info.shape, info.n_elements), default=None)
    return best.name if best else None


def _same_shape(model: GGUFFile, source: GGUFFile, name: str) -> bool:
    """Whether the source has the values before quantization of a tensor."""
    other = source.tensors.get(name)
    return (
        other is not None
        and readable(other.type)
        and [n for n in other.shape if n > 1] == [n for n in model.tensors[name].shape if n > 1]
    )
