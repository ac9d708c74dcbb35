"""Models split over several files: their names and what their metadata must say.

https://github.com/ggml-org/llama.cpp/blob/master/src/llama-model-loader.cpp
https://github.com/ggml-org/llama.cpp/blob/master/src/llama.cpp (`llama_split_path`)
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gguf import GGUFValueType

from kquant.errors import GGUFError
from kquant.gguf.metadata import Metadata

SPLIT_NO: Final = "split.no"
SPLIT_COUNT: Final = "split.count"
SPLIT_TENSORS_COUNT: Final = "split.tensors.count"


def split_path(prefix: str, index: int, count: int) -> str:
    """The name of shard `index` (from 0) of `count`.

    >>> split_path("llama", 0, 3)
    'llama-00001-of-00003.gguf'
    """
    return f"{prefix}-{index + 1:05d}-of-{count:05d}.gguf"


def split_prefix(name: str, index: int, count: int) -> str | None:
    """What `split_path` made `name` from, or None if it did not.

    >>> split_prefix("llama-00001-of-00003.gguf", 0, 3), split_prefix("llama.gguf", 0, 3)
    ('llama', None)
    """
    suffix = split_path("", index, count)
    return name.removesuffix(suffix) if name.endswith(suffix) and name != suffix else None


def shard_paths(path: Path, metadata: Metadata) -> tuple[Path, ...]:
    """All files of the model whose first file is at `path`, by what its metadata says.

    Raises `GGUFError` if the file is one of several but not the first, or not named as by `split_path`.
    """
    count = _split_number(path, metadata, SPLIT_COUNT, GGUFValueType.UINT16) if SPLIT_COUNT in metadata else 0
    if count < 2:
        return (path,)
    index = _split_number(path, metadata, SPLIT_NO, GGUFValueType.UINT16)
    if index != 0:
        raise GGUFError(
            f"{path}: expected the first of the {count} shards of the model, got number {index + 1} "
            f"({SPLIT_NO} = {index}); open the file whose name ends in {split_path('', 0, count)!r}"
        )
    prefix = split_prefix(path.name, 0, count)
    if prefix is None:
        raise GGUFError(
            f"{path}: expected a name that ends in {split_path('', 0, count)!r}, "
            f"because {SPLIT_COUNT} = {count}, got {path.name!r}"
        )
    return tuple(path.with_name(split_path(prefix, i, count)) for i in range(count))


def check_shard(path: Path, metadata: Metadata, index: int) -> None:
    """Raises `GGUFError` unless the file at `path` says that it is shard `index`."""
    found = _split_number(path, metadata, SPLIT_NO, GGUFValueType.UINT16)
    if found != index:
        raise GGUFError(f"{path}: expected {SPLIT_NO} = {index}, got {found}")


def check_tensor_count(path: Path, metadata: Metadata, n_tensors: int) -> None:
    """Raises `GGUFError` unless the first shard states as many tensors as all shards have together."""
    expected = _split_number(path, metadata, SPLIT_TENSORS_COUNT, GGUFValueType.INT32)
    if n_tensors != expected:
        raise GGUFError(
            f"{path}: expected {expected} tensors in all shards ({SPLIT_TENSORS_COUNT}), got {n_tensors}"
        )


def _split_number(path: Path, metadata: Metadata, key: str, value_type: GGUFValueType) -> int:
    if key not in metadata:
        raise GGUFError(f"{path}: expected the key {key!r} in a shard, got none")
    found = metadata.type_of(key)
    if found != value_type:
        raise GGUFError(f"{path}: key {key!r}: expected {value_type.name}, got {found.name}")
    return int(metadata[key])
