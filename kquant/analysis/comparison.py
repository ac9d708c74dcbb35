"""The error of the tensors of one GGUF file against those of another."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, TypeVar

from kquant.analysis.slabs import Slab, in_order, matching, readable, slabs
from kquant.analysis.sums import ErrorSums
from kquant.errors import OptionError
from kquant.gguf import GGUFFile, TensorInfo, read
from kquant.policy.roles import Role, layer_of, role_of
from kquant.types import TensorType

__all__ = ["Comparison", "GroupError", "TensorError", "Uncompared", "compare"]

Progress = Callable[[int, int], None]
_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class TensorError:
    """The error of a tensor of B against its namesake in A."""

    name: str
    shape: tuple[int, ...]
    """NumPy order: the row length comes last."""
    type_a: TensorType
    type_b: TensorType
    bytes_a: int
    bytes_b: int
    sums: ErrorSums

    @property
    def layer(self) -> int | None:
        """The number of its layer; None outside of layers."""
        return layer_of(self.name)

    @property
    def role(self) -> Role:
        """What the tensor is for."""
        return role_of(self.name)

    @property
    def bits_per_element(self) -> float:
        """Bits that an element costs in B."""
        return self.type_b.bits_per_element

    def to_dict(self) -> dict[str, Any]:
        """The error in JSON's types."""
        return {
            "name": self.name,
            "layer": self.layer,
            "role": self.role.value,
            "shape": list(self.shape),
            "type_a": self.type_a.name,
            "type_b": self.type_b.name,
            "bytes_a": self.bytes_a,
            "bytes_b": self.bytes_b,
            "bits_per_element": self.bits_per_element,
            **self.sums.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class GroupError:
    """The error of several tensors together."""

    tensors: int
    bytes_a: int
    bytes_b: int
    sums: ErrorSums

    @classmethod
    def of(cls, rows: Iterable[TensorError]) -> GroupError:
        """The sum over these tensors."""
        members = list(rows)
        return cls(
            len(members),
            sum(row.bytes_a for row in members),
            sum(row.bytes_b for row in members),
            sum((row.sums for row in members), ErrorSums()),
        )

    @property
    def bits_per_element(self) -> float:
        """Bits that an element costs in B on average."""
        return 8 * self.bytes_b / self.sums.elements if self.sums.elements else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The error in JSON's types."""
        return {
            "tensors": self.tensors,
            "bytes_a": self.bytes_a,
            "bytes_b": self.bytes_b,
            "bits_per_element": self.bits_per_element,
            **self.sums.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Uncompared:
    """A tensor that cannot be compared."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found."""

    rows: tuple[TensorError, ...]
    """In the order of A."""
    uncompared: tuple[Uncompared, ...]
    """Tensors that only one side has, whose shapes differ, or whose type kquant has no codec for."""

    @property
    def worst(self) -> tuple[TensorError, ...]:
        """The tensors with the largest relative RMSE first."""
        return tuple(sorted(self.rows, key=lambda row: -row.sums.rank))

    @property
    def total(self) -> GroupError:
        """All tensors together."""
        return GroupError.of(self.rows)

    @property
    def layers(self) -> Mapping[int | None, GroupError]:
        """By layer, in ascending order; the tensors outside of layers first, as None."""
        groups = _grouped(self.rows, lambda row: row.layer)
        return dict(sorted(groups.items(), key=lambda item: (item[0] is not None, item[0] or 0)))

    @property
    def roles(self) -> Mapping[Role, GroupError]:
        """By role, the one with the largest relative RMSE first."""
        groups = _grouped(self.rows, lambda row: row.role)
        return dict(sorted(groups.items(), key=lambda item: -item[1].sums.rank))

    @property
    def types(self) -> Mapping[TensorType, GroupError]:
        """By the type in B, the one with the fewest bits first."""
        groups = _grouped(self.rows, lambda row: row.type_b)
        return dict(sorted(groups.items(), key=lambda item: item[0].bits_per_element))

    def to_dict(self) -> dict[str, Any]:
        """The report for machines, of JSON's types alone; the tensors with the largest error first."""
        return {
            "total": self.total.to_dict(),
            "by_layer": [{"layer": layer, **group.to_dict()} for layer, group in self.layers.items()],
            "by_role": {role.value: group.to_dict() for role, group in self.roles.items()},
            "by_type": {t.name: group.to_dict() for t, group in self.types.items()},
            "tensors": [row.to_dict() for row in self.worst],
            "uncompared": [{"name": one.name, "reason": one.reason} for one in self.uncompared],
        }


def compare(
    a: str | os.PathLike[str] | GGUFFile,
    b: str | os.PathLike[str] | GGUFFile,
    *,
    tensors: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """The error of every tensor of B against the tensor of the same name in A.

    Both files are read once, in slabs: memory is bounded for models of any size.  Sums are in float64
    and do not depend on the number of threads.

    Args:
        a: A GGUF file, or the first of its shards: the reference.
        b: The file whose errors are wanted.
        tensors: Compare only tensors whose name this regular expression finds.
        threads: At most so many; None for one per core.
        progress: Called with the bytes of both files that are done, and their total.

    Raises:
        GGUFError, OSError: A file cannot be read.
        InvalidDataError: A tensor holds NaN or infinity.
        OptionError: There is no tensor to compare, or `tensors` is no regular expression.

    >>> import kquant, numpy as np, pathlib, tempfile
    >>> from kquant.gguf import Metadata, TensorSpec, Writer, layout
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.gguf")
    ...     specs = [TensorSpec("blk.0.ffn_up.weight", (256, 64), kquant.TensorType["F16"])]
    ...     with Writer(path, layout(Metadata(), specs)) as writer:
    ...         writer.write(0, 0, np.linspace(-1, 1, 64 * 256).astype(np.float16))
    ...         writer.commit()
    ...     _ = kquant.requantize(path, path.with_name("small.gguf"), "Q4_K_M")
    ...     found = kquant.compare(path, path.with_name("small.gguf"))
    >>> found.worst[0].name, found.worst[0].type_b, found.total.bits_per_element
    ('blk.0.ffn_up.weight', TensorType.Q4_K, 4.5)
    >>> found.total.sums.relative_rmse < 0.005
    True
    """
    with ExitStack() as stack:
        model_a = a if isinstance(a, GGUFFile) else stack.enter_context(read(a))
        model_b = b if isinstance(b, GGUFFile) else stack.enter_context(read(b))
        names = matching(
            [*model_a.tensors, *(n for n in model_b.tensors if n not in model_a.tensors)], tensors
        )
        reasons = {name: _obstacle(model_a.tensors.get(name), model_b.tensors.get(name)) for name in names}
        pairs = [
            (model_a.tensors[name], model_b.tensors[name]) for name, reason in reasons.items() if not reason
        ]
        if not pairs:
            raise OptionError(
                f"{model_a.paths[0]}, {model_b.paths[0]}: expected tensors to compare, got none in common"
                + (f" that match {tensors!r}" if tensors else "")
            )
        sums = _sums(model_a, model_b, pairs, threads, progress)
    return Comparison(
        tuple(
            TensorError(i.name, i.shape, i.type, j.type, i.nbytes, j.nbytes, sums[i.name]) for i, j in pairs
        ),
        tuple(Uncompared(name, reason) for name, reason in reasons.items() if reason),
    )


def _obstacle(a: TensorInfo | None, b: TensorInfo | None) -> str | None:
    """Why two tensors cannot be compared; None if they can."""
    if a is None or b is None:
        return "only in A" if a else "only in B"
    if _trimmed(a.shape) != _trimmed(b.shape):
        return f"shape {a.shape} in A, {b.shape} in B"
    unknown = [info.type.name for info in (a, b) if not readable(info.type)]
    return f"kquant has no codec for {unknown[0]}" if unknown else None


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without outer dimensions of 1, which files may state or not."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape


def _sums(
    a: GGUFFile,
    b: GGUFFile,
    pairs: list[tuple[TensorInfo, TensorInfo]],
    threads: int | None,
    progress: Progress | None,
) -> dict[str, ErrorSums]:
    """The sums of every pair, in the order of their slabs whichever thread is first."""

    def jobs() -> Iterator[tuple[Slab, Slab]]:
        for info_a, info_b in pairs:
            yield from zip(slabs(a, info_a), slabs(b, info_b), strict=True)

    def job(pair: tuple[Slab, Slab]) -> tuple[str, int, ErrorSums]:
        one, other = pair
        return one.info.name, one.nbytes + other.nbytes, ErrorSums.of(one.values(), other.values())

    sums = {info.name: ErrorSums() for info, _ in pairs}
    done, total = 0, sum(i.nbytes + j.nbytes for i, j in pairs)
    if progress:
        progress(0, total)
    with closing(in_order(job, jobs(), threads)) as results:
        for name, nbytes, found in results:
            sums[name] += found
            done += nbytes
            if progress:
                progress(done, total)
    return sums


def _grouped(rows: Iterable[TensorError], key: Callable[[TensorError], _K]) -> dict[_K, GroupError]:
    groups: dict[_K, list[TensorError]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return {name: GroupError.of(members) for name, members in groups.items()}
