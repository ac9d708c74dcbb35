"""What a sweep found: tensors, types as points of rate and distortion, mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kquant.analysis.sums import ErrorSums
from kquant.policy.roles import Role, layer_of, role_of
from kquant.types import FileType, TensorType

__all__ = ["Mixture", "Point", "Sweep", "TensorSweep"]


@dataclass(frozen=True, slots=True)
class TensorSweep:
    """One tensor in each type."""

    name: str
    shape: tuple[int, ...]
    """NumPy order: the row length comes last."""
    type: TensorType
    """The type in the source."""
    elements: int
    bytes: int
    """In the source."""
    errors: Mapping[TensorType, ErrorSums]
    """The error in each type whose blocks divide the rows, against the values in the source; over a
    sample of `elements` if only some rows were taken."""

    @property
    def layer(self) -> int | None:
        """The number of its layer; None outside of layers."""
        return layer_of(self.name)

    @property
    def role(self) -> Role:
        """What the tensor is for."""
        return role_of(self.name)

    def bytes_as(self, tensor_type: TensorType) -> int:
        """Bytes of the tensor in another type."""
        return self.elements // tensor_type.block_size * tensor_type.type_size

    def error_as(self, tensor_type: TensorType) -> ErrorSums | None:
        """The error of the whole tensor in another type, extended from the sample; None if not tried."""
        if tensor_type is self.type:
            return next(iter(self.errors.values())).exact.scaled(self.elements)
        found = self.errors.get(tensor_type)
        return found.scaled(self.elements) if found else None

    def can_become(self, tensor_type: TensorType) -> bool:
        """False if it would have to be packed into this type, and a value is known to be beyond it."""
        tried = self.errors.get(tensor_type)
        return tensor_type is self.type or tried is None or tried.figures_known

    def to_dict(self) -> dict[str, Any]:
        """The tensor in JSON's types."""
        return {
            "name": self.name,
            "layer": self.layer,
            "role": self.role.value,
            "shape": list(self.shape),
            "type": self.type.name,
            "elements": self.elements,
            "bytes": self.bytes,
            "errors": {
                t.name: {
                    "bytes": self.bytes_as(t),
                    "bits_per_element": t.bits_per_element,
                    "holds": sums.figures_known,
                    **sums.to_dict(),
                }
                for t, sums in self.errors.items()
            },
        }


@dataclass(frozen=True, slots=True)
class Point:
    """A type as a point of rate and distortion."""

    type: TensorType
    tensors: int
    """How many of the tensors it fits."""
    bytes: int
    """Of these tensors in this type."""
    sums: ErrorSums
    """Over these tensors."""
    beaten_by: TensorType | None
    """A type that has a smaller error on all of them and no more bits."""
    cannot_hold: tuple[str, ...]
    """Those of them that have values beyond the type: it has no error then."""

    @property
    def bits_per_element(self) -> float:
        """Bits that an element costs."""
        return self.type.bits_per_element

    def to_dict(self) -> dict[str, Any]:
        """The point in JSON's types."""
        return {
            "type": self.type.name,
            "bits_per_element": self.bits_per_element,
            "tensors": self.tensors,
            "bytes": self.bytes,
            **self.sums.to_dict(),
            "beaten_by": self.beaten_by.name if self.beaten_by else None,
            "cannot_hold": list(self.cannot_hold),
        }


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a file type makes of the tensors that were swept."""

    file_type: FileType
    chosen: Mapping[str, TensorType]
    """The type that each of them gets."""
    types: Mapping[TensorType, int]
    """How many of them get each type, the most frequent first."""
    new_bytes: int
    """Of all tensors of the model, the others included."""
    bits_per_weight: float
    """Over all tensors of the model."""
    swept_bytes: int
    """Of the swept tensors."""
    sums: ErrorSums | None
    """The error over the swept tensors; None if a type was chosen that was not tried."""
    problem: str | None
    """Why the mixture cannot be made of this model; all else is empty then."""
    remark: str | None = None
    """Which values `kquant.requantize` would refuse, because their type cannot hold them."""

    @property
    def swept_bits_per_element(self) -> float | None:
        """Bits that an element of the swept tensors costs; None without them."""
        return 8 * self.swept_bytes / self.sums.elements if self.sums and self.sums.elements else None

    def to_dict(self) -> dict[str, Any]:
        """The mixture in JSON's types."""
        return {
            "file_type": self.file_type.name,
            "bytes": self.new_bytes,
            "bits_per_weight": self.bits_per_weight,
            "swept_bytes": self.swept_bytes,
            "swept_bits_per_element": self.swept_bits_per_element,
            "types": {t.name: count for t, count in self.types.items()},
            "chosen": {name: t.name for name, t in self.chosen.items()},
            "error": self.sums.to_dict() if self.sums else None,
            "problem": self.problem,
            "remark": self.remark,
        }


@dataclass(frozen=True, slots=True)
class Sweep:
    """What `kquant.sweep` found."""

    types: tuple[TensorType, ...]
    """The types that were tried, from the fewest bits to the most."""
    tensors: tuple[TensorSweep, ...]
    """In the order of the file."""
    mixtures: tuple[Mixture, ...]
    rows: int | None
    """At most so many rows of each tensor were taken; None for all."""

    @property
    def from_quantized(self) -> bool:
        """Whether tensors of the source are quantized already, so that their own type has no error."""
        return any(tensor.type.is_quantized for tensor in self.tensors)

    @property
    def points(self) -> tuple[Point, ...]:
        """Rate and distortion of each type that fits any tensor, from the fewest bits to the most."""
        return tuple(self._point(t) for t in self.types if any(t in tensor.errors for tensor in self.tensors))

    def _point(self, tensor_type: TensorType) -> Point:
        fitting = [tensor for tensor in self.tensors if tensor_type in tensor.errors]

        def total(t: TensorType) -> ErrorSums:
            return sum((tensor.errors[t].scaled(tensor.elements) for tensor in fitting), ErrorSums())

        sums = total(tensor_type)
        better = [
            t
            for t in self.types
            if t.bits_per_element <= tensor_type.bits_per_element
            and all(t in tensor.errors for tensor in fitting)
            and total(t).squared_error < sums.squared_error
        ]
        best = min(better, key=lambda t: total(t).squared_error, default=None)
        size = sum(tensor.bytes_as(tensor_type) for tensor in fitting)
        beyond = tuple(tensor.name for tensor in fitting if not tensor.errors[tensor_type].figures_known)
        return Point(tensor_type, len(fitting), size, sums, best, beyond)

    def to_dict(self) -> dict[str, Any]:
        """The report for machines, of JSON's types alone.

        ::

            rows          rows taken of each tensor at most, or null for all
            types         rate and distortion: type, bits_per_element, tensors, bytes, error, beaten_by,
                          cannot_hold: tensors with values beyond the type
            mixtures      file_type, bytes, bits_per_weight, types, chosen, error, problem, remark
            tensors       name, layer, role, shape, type, elements, bytes, errors by type
        """
        return {
            "rows": self.rows,
            "types": [point.to_dict() for point in self.points],
            "mixtures": [mixture.to_dict() for mixture in self.mixtures],
            "tensors": [tensor.to_dict() for tensor in self.tensors],
        }
