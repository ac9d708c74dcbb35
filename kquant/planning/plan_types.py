"""What a plan is made of: a row for each tensor, a file for each shard, and their sums.

`kquant.plan` makes it, `--dry-run` prints it, `kquant.requantize` carries it out.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kquant.errors import KQuantError
from kquant.gguf import HeaderLayout, Metadata, TensorInfo
from kquant.types import FileType, TensorType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kquant.imatrix.reading import Imatrix

__all__ = ["OutputFile", "Plan", "PlanRow"]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """What becomes of one tensor."""

    name: str
    """The name in the result; another than `source.name` where layers were pruned."""
    source: TensorInfo
    shape: tuple[int, ...]
    """NumPy order: the row length comes last.  GGUF's trailing dimensions of 1 are gone."""
    new_type: TensorType
    new_bytes: int
    output: int
    """Which of `Plan.outputs` it goes to."""
    offset: int
    """Bytes from the start of that file to its data."""
    reason: str
    fallback_from: TensorType | None = None
    """The type that the rules wanted, where its block size does not divide the row length."""
    imatrix: str | None = None
    """The key of its importance weights; None where there are none."""

    @property
    def type(self) -> TensorType:
        """The type in the source."""
        return self.source.type

    @property
    def bytes(self) -> int:
        """Bytes of its data in the source."""
        return self.source.nbytes

    @property
    def converts(self) -> bool:
        """Whether the type changes; if not, the bytes are copied."""
        return self.type is not self.new_type

    @property
    def n_elements(self) -> int:
        """Elements of the tensor."""
        return prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """The row as `Plan.to_dict` has it."""
        return {
            "name": self.name,
            "source": self.source.name,
            "shape": list(self.shape),
            "type": self.type.name,
            "new_type": self.new_type.name,
            "bytes": self.bytes,
            "new_bytes": self.new_bytes,
            "file": self.output,
            "offset": self.offset,
            "reason": self.reason,
            "fallback_from": self.fallback_from.name if self.fallback_from else None,
            "imatrix": self.imatrix,
        }


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file of the result: its metadata, and the layout to the byte."""

    metadata: Metadata
    layout: HeaderLayout
    suffix: str
    """What its name ends in: "" or, as a shard, "-00001-of-00003.gguf"."""

    def path(self, target: str | os.PathLike[str]) -> Path:
        """Where it goes if the user names `target`: a shard replaces `.gguf` by its own suffix."""
        name = os.fspath(target)
        return Path(name.removesuffix(".gguf") + self.suffix if self.suffix else name)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a requantization does.  Made by `plan`; nothing in it changes."""

    file_type: FileType
    architecture: str
    rows: tuple[PlanRow, ...]
    """The tensors in the order in which they are written."""
    outputs: tuple[OutputFile, ...]
    imatrix: Imatrix | None
    """The importance weights that are used, `include_weights` and `exclude_weights` applied."""
    requires_imatrix: bool
    """Whether a tensor needs importance weights that are not given."""
    problems: tuple[KQuantError, ...]
    """What stands in the way of carrying it out, until other options or inputs are given."""
    notes: tuple[str, ...]
    """What a user may want to know, though it is no error."""
    source_elements: int
    """Elements of all tensors of the source, those of pruned layers included."""

    def check(self) -> None:
        """Raises the first of `problems`, if there are any."""
        for problem in self.problems:
            raise problem

    def weights(self, row: PlanRow) -> NDArray[np.float32] | None:
        """The importance weights of a tensor, float32 (n_matrices, n_per_row), or None."""
        if self.imatrix is None or row.imatrix is None:
            return None
        return self.imatrix[row.imatrix].reshape(-1, row.shape[-1])

    @property
    def n_elements(self) -> int:
        """Elements of all tensors."""
        return sum(row.n_elements for row in self.rows)

    @property
    def bytes(self) -> int:
        """Bytes of the tensors in the source."""
        return sum(row.bytes for row in self.rows)

    @property
    def new_bytes(self) -> int:
        """Bytes of the tensors in the result."""
        return sum(row.new_bytes for row in self.rows)

    @property
    def file_bytes(self) -> int:
        """Bytes of all files of the result, headers and padding included."""
        return sum(output.layout.file_bytes for output in self.outputs)

    @property
    def bits_per_weight(self) -> float:
        """Bits that an element costs in the source, on average; 0 without elements."""
        return 8 * self.bytes / self.n_elements if self.n_elements else 0.0

    @property
    def new_bits_per_weight(self) -> float:
        """Bits that an element costs in the result, on average; 0 without elements."""
        return 8 * self.new_bytes / self.n_elements if self.n_elements else 0.0

    @property
    def types(self) -> Mapping[TensorType, int]:
        """How many tensors of the result have each type, the most frequent first."""
        return dict(Counter(row.new_type for row in self.rows).most_common())

    @property
    def fallbacks(self) -> tuple[PlanRow, ...]:
        """The tensors that could not have the type that the rules wanted."""
        return tuple(row for row in self.rows if row.fallback_from is not None)

    @property
    def size_lines(self) -> tuple[str, str]:
        """Sizes before and after, in llama-quantize's wording.

        As there, the elements of pruned layers count for the bits per weight (BPW).
        """
        per_element = 8 / max(self.source_elements, 1)
        return (
            f"model size  = {self.bytes / 2**20:8.2f} MiB ({self.bytes * per_element:.2f} BPW)",
            f"quant size  = {self.new_bytes / 2**20:8.2f} MiB ({self.new_bytes * per_element:.2f} BPW)",
        )

    def to_dict(self) -> dict[str, Any]:
        """The plan for machines, of JSON's types alone.

        ::

            file_type, architecture
            tensors                 in the order of writing, each with
                name, source        its names in the result and in the source
                shape               NumPy order, row length last
                type, new_type      before and after
                bytes, new_bytes    of its data, without padding
                file, offset        index among `files`; bytes from the start of that file
                reason              why it gets that type
                fallback_from       the type that did not fit the row length, or null
                imatrix             the key of its importance weights, or null
            files                   {suffix of the name, tensors, bytes} of each file of the result
            totals                  {tensors, elements, bytes, new_bytes, file_bytes}
            bits_per_weight, new_bits_per_weight
            types                   type -> {tensors, new_bytes} of the result
            fallbacks               {tensors, new_bytes, share of new_bytes}
            problems, notes         lists of sentences
        """
        types: dict[str, dict[str, int]] = {
            type.name: {
                "tensors": count,
                "new_bytes": sum(row.new_bytes for row in self.rows if row.new_type is type),
            }
            for type, count in self.types.items()
        }
        fallback_bytes = sum(row.new_bytes for row in self.fallbacks)
        return {
            "file_type": self.file_type.name,
            "architecture": self.architecture,
            "tensors": [row.to_dict() for row in self.rows],
            "files": [
                {
                    "suffix": output.suffix,
                    "tensors": len(output.layout.tensors),
                    "bytes": output.layout.file_bytes,
                }
                for output in self.outputs
            ],
            "totals": {
                "tensors": len(self.rows),
                "elements": self.n_elements,
                "bytes": self.bytes,
                "new_bytes": self.new_bytes,
                "file_bytes": self.file_bytes,
            },
            "bits_per_weight": self.bits_per_weight,
            "new_bits_per_weight": self.new_bits_per_weight,
            "types": types,
            "fallbacks": {
                "tensors": len(self.fallbacks),
                "new_bytes": fallback_bytes,
                "share": fallback_bytes / self.new_bytes if self.new_bytes else 0.0,
            },
            "problems": [str(problem) for problem in self.problems],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """The plan of `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=True)
