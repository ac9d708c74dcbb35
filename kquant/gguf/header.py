"""Reads the header of one GGUF file and refuses what is malformed before anything is allocated.

https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/gguf.cpp (`gguf_init_from_reader`)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from kquant._text import size
from kquant.errors import GGUFError, GGUFLimitError, ShapeError, UnknownTypeError
from kquant.gguf.cursor import Cursor
from kquant.gguf.metadata import Metadata, Value
from kquant.gguf.spec import (
    ALIGNMENT_KEY,
    MAX_DIMS,
    MAX_FILE_BYTES,
    MAX_KEY_BYTES,
    MAX_KV,
    MAX_NAME_BYTES,
    MAX_TENSORS,
    MIN_KV_BYTES,
    MIN_TENSOR_BYTES,
    ByteOrder,
    align,
    c_string,
    tensor_bytes,
)
from kquant.gguf.strings import Buffer
from kquant.types import TensorType


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor is and what it contains.  Shapes are NumPy's: the row length comes last."""

    name: str
    shape: tuple[int, ...]
    """As many dimensions as the file states, ones and zeros among them; () for a single number."""
    type: TensorType
    offset: int
    """Bytes from the start of its file to its data."""
    nbytes: int
    shard: int = 0
    """Index of its file among the shards of the model."""

    @property
    def ggml_shape(self) -> tuple[int, ...]:
        """The dimensions in GGUF's order: the row length first."""
        return self.shape[::-1]

    @property
    def n_elements(self) -> int:
        """Elements of the tensor."""
        return prod(self.shape)

    @property
    def n_per_row(self) -> int:
        """Elements of a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def n_rows(self) -> int:
        """Rows of the tensor, over all outer dimensions."""
        return prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.type.row_bytes(self.n_per_row)

    @property
    def end(self) -> int:
        """Bytes from the start of its file to the end of its data."""
        return self.offset + self.nbytes


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What is missing of the tensor data of files that end early, as those of a download under way do."""

    tensors: tuple[str, ...]
    """The tensors whose data is not all there."""
    n_tensors: int
    """How many there are in all."""
    bytes: int
    """Bytes that the files are too short."""

    def __str__(self) -> str:
        count = len(self.tensors)
        which = f"tensor {self.tensors[0]!r}" if count == 1 else f"{count} of {self.n_tensors} tensors"
        return f"{size(self.bytes)} are missing: the data of {which} is not all there"


def shortfall(tensors: Collection[TensorInfo], file_bytes: Sequence[int]) -> Shortfall | None:
    """What files of these sizes lack of the data of their tensors; None if it is all there."""
    cut_off = [info for info in tensors if info.end > file_bytes[info.shard]]
    if not cut_off:
        return None
    ends: dict[int, int] = {}
    for info in cut_off:
        ends[info.shard] = max(ends.get(info.shard, 0), info.end)
    missing = sum(end - file_bytes[shard] for shard, end in ends.items())
    return Shortfall(tuple(info.name for info in cut_off), len(tensors), missing)


@dataclass(frozen=True, slots=True)
class Header:
    """All that one file states before its tensor data."""

    version: int
    byteorder: ByteOrder
    metadata: Metadata
    tensors: dict[str, TensorInfo]
    """In the file's order."""
    data_offset: int
    """Bytes from the start of the file to the tensor data."""


def parse_header(data: Buffer, path: Path, *, shard: int = 0) -> Header:
    """Reads the header at the start of `data`, the bytes of the file at `path`.

    The metadata refers to `data` instead of copying it.  This does not check whether the tensor data
    exists.  Raises `GGUFError`.
    """
    cursor = Cursor(data, path)
    version = cursor.read_preamble()
    n_tensors = cursor.read_count("number of tensors", MIN_TENSOR_BYTES, MAX_TENSORS)
    n_kv = cursor.read_count("number of key/value pairs", MIN_KV_BYTES, MAX_KV)
    metadata = _read_metadata(cursor, n_kv)

    stored = [_read_tensor(cursor, index) for index in range(n_tensors)]
    alignment = metadata.alignment
    data_offset = align(cursor.position, alignment)
    tensors: dict[str, TensorInfo] = {}
    names: set[str] = set()
    offset = 0
    for at, info in stored:
        what = f"tensor {info.name!r}"
        if (name := c_string(info.name)) in names:
            raise cursor.error(f"{what}: expected unique names, got this one twice", at)
        names.add(name)
        if info.offset != offset:
            raise cursor.error(f"{what}: expected offset {offset}, got {info.offset}", at)
        start = data_offset + offset
        tensors[info.name] = TensorInfo(info.name, info.shape, info.type, start, info.nbytes, shard)
        offset = align(offset + info.nbytes, alignment)
        if data_offset + offset > MAX_FILE_BYTES:
            raise cursor.error(
                f"{what}: expected to end within the {MAX_FILE_BYTES} bytes that a file can have, "
                f"got {info.nbytes} bytes from byte {start}",
                at,
                GGUFLimitError,
            )
    return Header(version, cursor.byteorder, metadata, tensors, data_offset)


def _read_metadata(cursor: Cursor, n_kv: int) -> Metadata:
    values: dict[str, Value] = {}
    for index in range(n_kv):
        at = cursor.position
        key = cursor.read_text(f"key {index}", MAX_KEY_BYTES)
        if not key:
            raise cursor.error(f"key {index}: expected at least one byte, got none", at)
        if key in values:
            raise cursor.error(f"key {index}: expected unique keys, got {key!r} twice", at)
        if c_string(key) == ALIGNMENT_KEY != key:
            raise cursor.error(f"key {index}: expected {ALIGNMENT_KEY!r} without a NUL, got {key!r}", at)
        at = cursor.position
        values[key] = cursor.read_value(f"key {key!r}")
        if key == ALIGNMENT_KEY:
            try:
                _ = Metadata({key: values[key]}).alignment
            except GGUFError as error:
                raise cursor.error(str(error), at) from None
    return Metadata(values)


def _read_tensor(cursor: Cursor, index: int) -> tuple[int, TensorInfo]:
    """The position of a tensor info, and its contents; the offset is still relative to the tensor data."""
    at = cursor.position
    name = cursor.read_text(f"name of tensor {index}", MAX_NAME_BYTES)
    what = f"tensor {name!r}"
    (n_dims,) = cursor.read("I", what)
    if n_dims > MAX_DIMS:
        raise cursor.error(
            f"{what}: expected at most {MAX_DIMS} dimensions, got {n_dims}", at, GGUFLimitError
        )
    *dims, type_id, offset = cursor.read(f"{n_dims}qiQ", what)
    shape = tuple(dims)
    if min(shape, default=0) < 0:
        raise cursor.error(f"{what}: expected dimensions of 0 or more, got {shape}", at)
    try:
        tensor_type = TensorType.of(type_id)
        nbytes = tensor_bytes(tensor_type, shape)
    except GGUFLimitError as error:
        raise cursor.error(f"{what}: {error}", at, GGUFLimitError) from None
    except (UnknownTypeError, ShapeError) as error:
        raise cursor.error(f"{what}: {error}", at) from None
    return at, TensorInfo(name, shape[::-1], tensor_type, offset, nbytes)
