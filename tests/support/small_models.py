"""GGUF models of a few tensors, written for one test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kquant.arrays import codec
from kquant.arrays.byteorder import swapped
from kquant.gguf import GGUFFile, GGUFValueType, Metadata, TensorSpec, Writer, layout
from kquant.gguf.spec import ByteOrder
from kquant.types import TensorType

Packed = tuple[NDArray[np.uint8], TensorType]


def heavy_tailed(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Weights as trained ones are: small, with a few large ones."""
    return (np.random.default_rng(seed).standard_t(4, shape) * 0.02).astype(np.float32)


def packed(x: NDArray[np.float32], type_name: str) -> Packed:
    """Values as a tensor of that type."""
    return codec.quantize(x, type_name), TensorType[type_name]


def raw(x: NDArray[Any], type_name: str) -> Packed:
    """An array's own bytes as a tensor of that type, whatever they mean."""
    return np.ascontiguousarray(x).view(np.uint8), TensorType[type_name]


def write_model(
    path: Path,
    tensors: Mapping[str, Packed],
    *,
    byteorder: ByteOrder = "little",
    version: int = 3,
    swap: bool = True,
) -> Path:
    """A llama model of these tensors: data in little endian, or as given if `swap` is false."""
    metadata = Metadata()
    metadata.set("general.architecture", "llama", GGUFValueType.STRING)
    metadata.set("llama.block_count", 1, GGUFValueType.UINT32)
    specs = [
        TensorSpec(name, (data.shape[-1] // t.type_size * t.block_size, *data.shape[-2::-1]), t)
        for name, (data, t) in tensors.items()
    ]
    with Writer(path, layout(metadata, specs, version=version, byteorder=byteorder)) as writer:
        for index, (data, t) in enumerate(tensors.values()):
            writer.write(
                index, 0, swapped(data, t) if byteorder == "big" and swap else np.ascontiguousarray(data)
            )
        writer.commit()
    return path


def write_swapped(file: GGUFFile, path: Path) -> Path:
    """The same model in the other byte order."""
    specs = [TensorSpec(info.name, info.ggml_shape, info.type) for info in file.tensors.values()]
    other: ByteOrder = "little" if file.byteorder == "big" else "big"
    with Writer(path, layout(file.metadata, specs, version=file.version, byteorder=other)) as writer:
        for index, info in enumerate(file.tensors.values()):
            writer.write(index, 0, swapped(file.data(info), info.type))
        writer.commit()
    return path
