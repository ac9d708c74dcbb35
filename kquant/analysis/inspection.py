"""What a GGUF file contains, from its header alone: no byte of tensor data is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kquant._text import plain
from kquant.gguf import GGUFFile, GGUFValueType, Metadata, Shortfall, TensorInfo, read
from kquant.gguf.header import shortfall
from kquant.policy.roles import Role, layer_of, role_of
from kquant.types import TensorType, file_type_name

__all__ = ["Entry", "Inspection", "Share", "inspect"]

SHOWN = 8
"""Elements of an array that a line of text shows."""

_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of the metadata."""

    key: str
    type: str
    """GGUF's name of the value type, such as UINT32; of the elements where it is an array."""
    count: int | None
    """Elements of an array; None for a single value."""
    value: Any
    """The value; of an array all elements, a list of numbers or a `kquant.gguf.StringArray`."""

    @property
    def kind(self) -> str:
        """The type in words: `UINT32`, `32000 × STRING`."""
        return self.type if self.count is None else f"{self.count} × {self.type}"

    def text(self, width: int = 80) -> str:
        """The value on one line of so many characters; arrays and long texts are shortened."""
        if self.count is not None:
            more = ["…"] if self.count > SHOWN else []
            text = f"[{', '.join([plain(item) for item in self.value[:SHOWN]] + more)}]"
        else:
            text = " ".join(self.value.split()) if isinstance(self.value, str) else plain(self.value)
        return text if len(text) <= width else text[: width - 1] + "…"

    def to_dict(self) -> dict[str, Any]:
        """The entry in JSON's types."""
        value = self.value if self.count is None else list(self.value)
        return {"type": self.type, "count": self.count, "value": value}


@dataclass(frozen=True, slots=True)
class Share:
    """The number, size and types of some of the tensors."""

    tensors: int
    elements: int
    bytes: int
    types: Mapping[TensorType, int]
    """How many of the tensors have each type, the most frequent first."""

    @property
    def bits_per_element(self) -> float:
        """Bits that an element costs on average; 0 without elements."""
        return 8 * self.bytes / self.elements if self.elements else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The share in JSON's types."""
        return {
            "tensors": self.tensors,
            "elements": self.elements,
            "bytes": self.bytes,
            "bits_per_element": self.bits_per_element,
            "types": {t.name: count for t, count in self.types.items()},
        }


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a GGUF file, or all of its shards, contain.  Made by `inspect`."""

    paths: tuple[Path, ...]
    file_bytes: tuple[int, ...]
    """Size of each file."""
    version: int
    byteorder: str
    alignment: int
    metadata: tuple[Entry, ...]
    """The keys of the (first) file, in its order."""
    tensors: tuple[TensorInfo, ...]
    """In the order of the files."""

    def _value(self, key: str) -> Any:
        return next((entry.value for entry in self.metadata if entry.key == key), None)

    @property
    def architecture(self) -> str | None:
        """`general.architecture`."""
        value = self._value("general.architecture")
        return value if isinstance(value, str) else None

    @property
    def name(self) -> str | None:
        """`general.name`."""
        value = self._value("general.name")
        return value if isinstance(value, str) else None

    @property
    def file_type(self) -> str | None:
        """The mixture that `general.file_type` claims, as `kquant.types.file_type_name` names it."""
        value = self._value("general.file_type")
        return file_type_name(value) if type(value) is int else None if value is None else str(value)

    @property
    def shortfall(self) -> Shortfall | None:
        """What is missing of the tensor data, as in a download under way; None if it is all there."""
        return shortfall(self.tensors, self.file_bytes)

    @property
    def total(self) -> Share:
        """All tensors."""
        return _share(self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits that an element costs, over all tensors."""
        return self.total.bits_per_element

    @property
    def types(self) -> Mapping[TensorType, Share]:
        """The tensors by their type, the one with the most bytes first."""
        shares = _shares(self.tensors, lambda info: info.type)
        return dict(sorted(shares.items(), key=lambda item: -item[1].bytes))

    @property
    def layers(self) -> Mapping[int | None, Share]:
        """The tensors by their layer, in ascending order; those outside of layers first, as None."""
        shares = _shares(self.tensors, lambda info: layer_of(info.name))
        return dict(sorted(shares.items(), key=lambda item: (item[0] is not None, item[0] or 0)))

    @property
    def roles(self) -> Mapping[Role, Share]:
        """The tensors by their role, the one with the most bytes first."""
        shares = _shares(self.tensors, lambda info: role_of(info.name))
        return dict(sorted(shares.items(), key=lambda item: -item[1].bytes))

    def to_dict(self) -> dict[str, Any]:
        """The report for machines, of JSON's types alone.

        ::

            files                      path and bytes of each
            version, byteorder, alignment
            architecture, name, file_type      as the metadata claims, or null
            tensors, elements, bytes, bits_per_element, types     of all tensors
            missing_bytes, incomplete_tensors  what is not there of their data
            metadata                   key -> type, count (null: a single value), value
            by_type, by_layer, by_role     tensors, elements, bytes, bits_per_element and types of each
            tensor_list                name, shape (row length last), type, bytes, file, offset, layer, role
        """
        missing = self.shortfall
        return {
            "files": [
                {"path": str(path), "bytes": size}
                for path, size in zip(self.paths, self.file_bytes, strict=True)
            ],
            "version": self.version,
            "byteorder": self.byteorder,
            "alignment": self.alignment,
            "architecture": self.architecture,
            "name": self.name,
            "file_type": self.file_type,
            **self.total.to_dict(),
            "missing_bytes": missing.bytes if missing else 0,
            "incomplete_tensors": list(missing.tensors) if missing else [],
            "metadata": {entry.key: entry.to_dict() for entry in self.metadata},
            "by_type": {t.name: share.to_dict() for t, share in self.types.items()},
            "by_layer": [{"layer": layer, **share.to_dict()} for layer, share in self.layers.items()],
            "by_role": {role.value: share.to_dict() for role, share in self.roles.items()},
            "tensor_list": [
                {
                    "name": info.name,
                    "shape": list(info.shape),
                    "type": info.type.name,
                    "bytes": info.nbytes,
                    "file": info.shard,
                    "offset": info.offset,
                    "layer": layer_of(info.name),
                    "role": role_of(info.name).value,
                }
                for info in self.tensors
            ],
        }


def inspect(source: str | os.PathLike[str] | GGUFFile) -> Inspection:
    """What a GGUF file contains: metadata, tensors, types, and what an element really costs.

    Reads the header and nothing else, so it answers at once for a file of any size, and also for the
    beginning of one: `Inspection.shortfall` says what is missing.

    Args:
        source: A GGUF file, or the first of its shards.

    Raises `GGUFError` for a file that is malformed or whose header is cut off, `OSError` for one that cannot
    be opened.

    >>> import kquant, pathlib, tempfile
    >>> from kquant.gguf import Metadata, TensorSpec, Writer, layout
    >>> specs = [TensorSpec(f"blk.{i}.attn_v.weight", (256, 4), kquant.TensorType["Q4_K"]) for i in (0, 1)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "tiny.gguf")
    ...     with Writer(path, layout(Metadata(), specs)) as writer:
    ...         for i in (0, 1):
    ...             writer.write(i, 0, bytes(576))
    ...         writer.commit()
    ...     found = kquant.inspect(path)
    >>> found.bits_per_weight, found.total.elements, list(found.layers), found.types
    (4.5, 2048, [0, 1], {TensorType.Q4_K: Share(tensors=2, elements=2048, bytes=1152, types={...: 2})})
    """
    with nullcontext(source) if isinstance(source, GGUFFile) else read(source, header_only=True) as model:
        return Inspection(
            paths=model.paths,
            file_bytes=model.file_bytes,
            version=model.version,
            byteorder=model.byteorder,
            alignment=model.alignment,
            metadata=tuple(_entry(model.metadata, key) for key in model.metadata),
            tensors=tuple(model.tensors.values()),
        )


def _entry(metadata: Metadata, key: str) -> Entry:
    value, value_type = metadata[key], metadata.type_of(key)
    if value_type != GGUFValueType.ARRAY:
        return Entry(key, value_type.name, None, value)
    # a copy of the strings: the report does not keep the file mapped
    items = value.tolist() if isinstance(value, np.ndarray) else copy(value)
    return Entry(key, metadata.array_type_of(key).name, len(value), items)


def _shares(tensors: Iterable[TensorInfo], key: Callable[[TensorInfo], _K]) -> dict[_K, Share]:
    groups: dict[_K, list[TensorInfo]] = {}
    for info in tensors:
        groups.setdefault(key(info), []).append(info)
    return {name: _share(members) for name, members in groups.items()}


def _share(tensors: Iterable[TensorInfo]) -> Share:
    members = list(tensors)
    return Share(
        tensors=len(members),
        elements=sum(info.n_elements for info in members),
        bytes=sum(info.nbytes for info in members),
        types=dict(Counter(info.type for info in members).most_common()),
    )
