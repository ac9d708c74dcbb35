"""Reads the header of one GGUF file and refuses what is malformed before anything is allocated.

https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/gguf.cpp (`gguf_init_from_reader`)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

from gguf import GGUFValueType

from kquant.errors import GGUFError, GGUFLimitError, GGUFTruncatedError, ShapeError, UnknownTypeError
from kquant.gguf.metadata import Metadata, Value
from kquant.gguf.spec import (
    ALIGNMENT_KEY,
    MAGIC,
    MAX_ARRAY_ELEMENTS,
    MAX_DIMS,
    MAX_FILE_BYTES,
    MAX_KEY_BYTES,
    MAX_KV,
    MAX_NAME_BYTES,
    MAX_STRING_BYTES,
    MAX_TENSORS,
    MIN_KV_BYTES,
    MIN_TENSOR_BYTES,
    ORDER_MARK,
    SCALAR_CODES,
    VERSIONS,
    ByteOrder,
    align,
    tensor_bytes,
)
from kquant.gguf.strings import Buffer, string_starts
from kquant.types import TensorType


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor is and what it holds.  Shapes are NumPy's: the row length comes last."""

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

    The metadata refers to `data` instead of copying it.  Whether the tensor data is there is not
    checked.  Raises `GGUFError`.
    """
    cursor = _Cursor(data, path)
    version = cursor.read_preamble()
    n_tensors = cursor.read_count("number of tensors", MIN_TENSOR_BYTES, MAX_TENSORS)
    n_kv = cursor.read_count("number of key/value pairs", MIN_KV_BYTES, MAX_KV)
    metadata = _read_metadata(cursor, n_kv)

    stored = [_read_tensor(cursor, index) for index in range(n_tensors)]
    data_offset = align(cursor.position, metadata.alignment)
    tensors: dict[str, TensorInfo] = {}
    offset = 0
    for at, name, ggml_shape, tensor_type, stored_offset in stored:
        what = f"tensor {name!r}"
        if name in tensors:
            raise cursor.error(f"{what}: expected unique names, got this one twice", at)
        if stored_offset != offset:
            raise cursor.error(f"{what}: expected offset {offset}, got {stored_offset}", at)
        nbytes = tensor_bytes(tensor_type, ggml_shape)
        tensors[name] = TensorInfo(name, ggml_shape[::-1], tensor_type, data_offset + offset, nbytes, shard)
        offset = align(offset + nbytes, metadata.alignment)
        if data_offset + offset > MAX_FILE_BYTES:
            raise cursor.error(
                f"{what}: expected to end within the {MAX_FILE_BYTES} bytes that a file can have, "
                f"got {nbytes} bytes from byte {data_offset + stored_offset}",
                at,
                GGUFLimitError,
            )
    return Header(version, cursor.byteorder, metadata, tensors, data_offset)


def _read_metadata(cursor: _Cursor, n_kv: int) -> Metadata:
    values: dict[str, Value] = {}
    for index in range(n_kv):
        at = cursor.position
        key = cursor.read_text(f"key {index}", MAX_KEY_BYTES)
        if not key:
            raise cursor.error(f"key {index}: expected at least one byte, got none", at)
        if key in values:
            raise cursor.error(f"key {index}: expected unique keys, got {key!r} twice", at)
        if key.startswith(ALIGNMENT_KEY + "\0"):  # the same key to upstream, which compares C strings
            raise cursor.error(f"key {index}: expected {ALIGNMENT_KEY!r} without a NUL, got {key!r}", at)
        at = cursor.position
        values[key] = cursor.read_value(f"key {key!r}")
        if key == ALIGNMENT_KEY:
            try:
                _ = Metadata({key: values[key]}).alignment
            except GGUFError as error:
                raise cursor.error(str(error), at) from None
    return Metadata(values)


def _read_tensor(cursor: _Cursor, index: int) -> tuple[int, str, tuple[int, ...], TensorType, int]:
    """One tensor info: its position in the file, name, dimensions, type and offset."""
    at = cursor.position
    name = cursor.read_text(f"name of tensor {index}", MAX_NAME_BYTES)
    what = f"tensor {name!r}"
    n_dims = cursor.read_number("I", f"{what}: number of dimensions")
    if n_dims > MAX_DIMS:
        raise cursor.error(
            f"{what}: expected at most {MAX_DIMS} dimensions, got {n_dims}", at, GGUFLimitError
        )
    shape = tuple(cursor.read_number("q", f"{what}: dimension {i}") for i in range(n_dims))
    if any(length < 0 for length in shape):
        raise cursor.error(f"{what}: expected dimensions of 0 or more, got {shape}", at)
    type_id = cursor.read_number("i", f"{what}: type")
    try:
        tensor_type = TensorType.of(type_id)
        if tensor_type.removed:
            raise UnknownTypeError(f"expected a tensor type that ggml still has, got {type_id}")
        tensor_type.row_bytes(shape[0] if shape else 1)
    except (UnknownTypeError, ShapeError) as error:
        raise cursor.error(f"{what}: {error}", at) from None
    # as if no dimension were 0: upstream takes some such tensors, but no array can have their shape
    n_elements = prod(max(length, 1) for length in shape)
    if max(n_elements, n_elements // tensor_type.block_size * tensor_type.type_size) > MAX_FILE_BYTES:
        raise cursor.error(
            f"{what}: expected at most {MAX_FILE_BYTES} elements and bytes, got the dimensions {shape} "
            f"of {tensor_type.name}",
            at,
            GGUFLimitError,
        )
    return at, name, shape, tensor_type, cursor.read_number("Q", f"{what}: offset")


class _Cursor:
    """Walks over the bytes of a header; every read is checked against the end of the file first."""

    def __init__(self, data: Buffer, path: Path) -> None:
        self.data = memoryview(data)
        self.path = path
        self.position = 0
        self.byteorder: ByteOrder = "little"

    def error(self, message: str, at: int, kind: type[GGUFError] = GGUFError) -> GGUFError:
        """An error that says in which file and at which byte."""
        return kind(f"{self.path}: byte {at}: {message}")

    def skip(self, n_bytes: int, what: str) -> int:
        """Steps over bytes that must be there; their position."""
        at, remain = self.position, len(self.data) - self.position
        if n_bytes > remain:
            raise self.error(
                f"{what}: expected {n_bytes} bytes, got the end of the file after {remain}",
                at,
                GGUFTruncatedError,
            )
        self.position += n_bytes
        return at

    def read_preamble(self) -> int:
        """The magic and the version, which tells the byte order."""
        magic = bytes(self.data[: self.skip(4, "magic") + 4])
        if magic != MAGIC:
            raise self.error(f"magic: expected {MAGIC!r}, got {magic!r}", 0)
        version = self.read_number("I", "version")
        if version & 0xFFFF == 0:
            self.byteorder = "big"
            self.position -= 4
            version = self.read_number("I", "version")
        if version not in VERSIONS:
            raise self.error(f"version: expected {VERSIONS[0]} or {VERSIONS[1]}, got {version}", 4)
        return version

    def read_number(self, code: str, what: str) -> int:
        """A number of `struct`'s format `code` in the file's byte order."""
        number_format = ORDER_MARK[self.byteorder] + code
        at = self.skip(struct.calcsize(number_format), what)
        return int(struct.unpack_from(number_format, self.data, at)[0])

    def read_count(self, what: str, min_bytes: int, limit: int) -> int:
        """A number of things that take at least `min_bytes` each, all of them still to come."""
        at = self.position
        count = self.read_number("q", what)
        if not 0 <= count <= limit:
            raise self.error(f"{what}: expected 0 to {limit}, got {count}", at, GGUFLimitError)
        self._check_room(count, min_bytes, what)
        return count

    def read_text(self, what: str, limit: int) -> str:
        """A string of at most `limit` bytes."""
        start = self.skip_string(what, limit)
        return bytes(self.data[start + 8 : self.position]).decode("utf-8", "surrogateescape")

    def skip_string(self, what: str, limit: int) -> int:
        """Steps over a string of at most `limit` bytes; its position."""
        at = self.position
        length = self.read_number("Q", f"{what}: length")
        if length > limit:
            raise self.error(f"{what}: expected at most {limit} bytes, got {length}", at, GGUFLimitError)
        self.skip(length, what)
        return at

    def read_value(self, what: str) -> Value:
        """A value with its type, left where it is."""
        at = self.position
        value_type = self.read_number("i", f"{what}: type")
        count = None
        if value_type == GGUFValueType.ARRAY:
            value_type = self.read_number("i", f"{what}: element type")
            count = self.read_number("Q", f"{what}: number of elements")
            if value_type == GGUFValueType.ARRAY:
                raise self.error(
                    f"{what}: expected an array of values, got one of arrays", at, GGUFLimitError
                )
            if count > MAX_ARRAY_ELEMENTS:
                raise self.error(
                    f"{what}: expected at most {MAX_ARRAY_ELEMENTS} elements, got {count}", at, GGUFLimitError
                )
        start = self.position
        if value_type == GGUFValueType.STRING:
            self._skip_strings(1 if count is None else count, what)
        elif value_type in SCALAR_CODES:
            self.skip((1 if count is None else count) * struct.calcsize("=" + SCALAR_CODES[value_type]), what)
        else:
            raise self.error(
                f"{what}: expected a value type from 0 to {max(GGUFValueType)}, got {value_type}", at
            )
        return Value(GGUFValueType(value_type), count, self.data[start : self.position], self.byteorder)

    def _skip_strings(self, count: int, what: str) -> None:
        self._check_room(count, 8, what)
        walked = 0
        for starts in string_starts(self.data, self.position, count, self.byteorder):
            walked += starts.size
            self.position = int(starts[-1])
            self.skip_string(what, MAX_STRING_BYTES)
        if walked < count:  # the next one does not fit: step over it for the sake of the error
            self.skip_string(f"{what}: string {walked}", MAX_STRING_BYTES)

    def _check_room(self, count: int, min_bytes: int, what: str) -> None:
        at, remain = self.position, len(self.data) - self.position
        if count * min_bytes > remain:
            raise self.error(
                f"{what}: expected at least {count * min_bytes} bytes for {count} of them, "
                f"got the end of the file after {remain}",
                at,
                GGUFTruncatedError,
            )
