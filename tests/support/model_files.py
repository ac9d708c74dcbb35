"""Models as sparse files: a real header, and tensor data that takes no space on the disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kquant.gguf import GGUFValueType, Metadata, TensorSpec, layout
from kquant.gguf.spec import ByteOrder
from kquant.policy import TensorFacts
from kquant.types import TensorType

KINDS = {
    int: GGUFValueType.UINT32,
    str: GGUFValueType.STRING,
    float: GGUFValueType.FLOAT32,
    bool: GGUFValueType.BOOL,
}


def metadata_of(pairs: Mapping[str, Any]) -> Metadata:
    """Metadata of Python's types; a list of texts or of integers is an array."""
    metadata = Metadata()
    for key, value in pairs.items():
        if isinstance(value, list):
            kind = GGUFValueType.STRING if value and isinstance(value[0], str) else GGUFValueType.INT32
            metadata.set(key, value, GGUFValueType.ARRAY, element_type=kind)
        else:
            metadata.set(key, value, KINDS[type(value)])
    return metadata


def write_sparse(
    path: Path,
    pairs: Mapping[str, Any] | Metadata,
    tensors: Sequence[TensorFacts] | Mapping[str, tuple[int, ...]],
    *,
    byteorder: ByteOrder = "little",
) -> Path:
    """A file with that header whose tensor data is all holes; tensors without a type are F16."""
    if isinstance(tensors, Mapping):
        tensors = [TensorFacts(name, shape, TensorType.F16) for name, shape in tensors.items()]
    metadata = pairs if isinstance(pairs, Metadata) else metadata_of(pairs)
    specs = [TensorSpec(tensor.name, tensor.shape[::-1], tensor.type) for tensor in tensors]
    placed = layout(metadata, specs, byteorder=byteorder)
    path.write_bytes(placed.header)
    os.truncate(path, placed.file_bytes)
    return path
