"""GGUF files for writing: the layout first, then rows of any tensor in any order from any thread.

https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/gguf.cpp (`gguf_write_out`)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING

from kquant.errors import GGUFError, KQuantError, OutputError, ShapeError
from kquant.gguf.metadata import Metadata, encode_string, encode_text
from kquant.gguf.part_file import PartFile
from kquant.gguf.spec import (
    MAGIC,
    MAX_DIMS,
    MAX_FILE_BYTES,
    MAX_KV,
    MAX_NAME_BYTES,
    MAX_TENSORS,
    ORDER_MARK,
    VERSIONS,
    ByteOrder,
    align,
    c_string,
    tensor_bytes,
)
from kquant.gguf.strings import Buffer
from kquant.types import TensorType

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor to write."""

    name: str
    ggml_shape: tuple[int, ...]
    """Dimensions in GGUF's order: the row length first."""
    type: TensorType


@dataclass(frozen=True, slots=True)
class HeaderLayout:
    """What a GGUF file will be, to the byte, before any of it is written."""

    header: bytes = field(repr=False)
    """All before the padding that precedes the tensor data."""
    tensors: tuple[TensorSpec, ...]
    data_offset: int
    """Bytes from the start of the file to the tensor data."""
    offsets: tuple[int, ...]
    """For each tensor the bytes from the start of the file to its data."""
    nbytes: tuple[int, ...]
    """For each tensor the bytes of its data, padding not counted."""
    file_bytes: int
    """The size of the file, the padding after the last tensor included."""


def layout(
    metadata: Metadata,
    specs: Sequence[TensorSpec],
    alignment: int | None = None,
    version: int = 3,
    byteorder: ByteOrder = "little",
) -> HeaderLayout:
    """The header and the offsets of a file with these pairs and tensors, in this order.

    The alignment is what the metadata says, 32 bytes if it says nothing; one that is given must be the
    same.  Raises `GGUFError` for what a reader would refuse, `ShapeError` for a row length that the
    block size does not divide, `UnknownTypeError` for a type that ggml has removed.

    >>> from kquant import TensorType
    >>> from kquant.gguf import Metadata, TensorSpec, layout
    >>> specs = [TensorSpec("a", (33,), TensorType["I8"]), TensorSpec("b", (2,), TensorType["F32"])]
    >>> plan = layout(Metadata(), specs)
    >>> plan.data_offset, plan.offsets, plan.nbytes, plan.file_bytes
    (96, (96, 160), (33, 8), 192)
    """
    if version not in VERSIONS:
        raise GGUFError(f"GGUF version: expected one of {VERSIONS}, got {version}")
    if alignment not in (None, metadata.alignment):
        raise GGUFError(f"alignment: expected {metadata.alignment} as in the metadata, got {alignment}")
    if len(metadata) > MAX_KV or len(specs) > MAX_TENSORS:
        raise GGUFError(
            f"expected at most {MAX_KV} key/value pairs and {MAX_TENSORS} tensors, "
            f"got {len(metadata)} and {len(specs)}"
        )
    mark, alignment = ORDER_MARK[byteorder], metadata.alignment
    parts = [MAGIC, struct.pack(mark + "Iqq", version, len(specs), len(metadata)), metadata.encode(byteorder)]
    offsets: list[int] = []
    nbytes: list[int] = []
    names: set[str] = set()
    end = 0
    for spec in specs:
        name, n = _checked(spec, names)
        names.add(c_string(spec.name))
        offsets.append(end)
        nbytes.append(n)
        dims = len(spec.ggml_shape)
        parts.append(encode_string(name, byteorder))
        parts.append(struct.pack(f"{mark}I{dims}qiQ", dims, *spec.ggml_shape, spec.type.id, end))
        end = align(end + n, alignment)
        if end > MAX_FILE_BYTES:
            raise GGUFError(f"tensor {spec.name!r}: expected to end within {MAX_FILE_BYTES} bytes, got {end}")
    header = b"".join(parts)
    data_offset = align(len(header), alignment)
    return HeaderLayout(
        header=header,
        tensors=tuple(specs),
        data_offset=data_offset,
        offsets=tuple(data_offset + offset for offset in offsets),
        nbytes=tuple(nbytes),
        file_bytes=data_offset + end,
    )


def _checked(spec: TensorSpec, names: set[str]) -> tuple[bytes, int]:
    """The bytes of the name and the bytes of the data, if a reader would accept the tensor."""
    what = f"tensor {spec.name!r}"
    name = encode_text(spec.name, what)
    if c_string(spec.name) in names:
        raise GGUFError(f"{what}: expected unique names, got this one twice")
    if len(name) > MAX_NAME_BYTES:
        raise GGUFError(f"{what}: expected a name of at most {MAX_NAME_BYTES} bytes, got {len(name)}")
    if len(spec.ggml_shape) > MAX_DIMS:
        raise GGUFError(f"{what}: expected at most {MAX_DIMS} dimensions, got {spec.ggml_shape}")
    if any(not 0 <= length <= MAX_FILE_BYTES for length in spec.ggml_shape):
        raise GGUFError(f"{what}: expected dimensions from 0 to {MAX_FILE_BYTES}, got {spec.ggml_shape}")
    try:
        return name, tensor_bytes(spec.type, spec.ggml_shape)
    except KQuantError as error:
        raise type(error)(f"{what}: {error}") from None


class Writer:
    """Writes a GGUF file of a known layout; nothing appears under the final name until `commit`.

    The bytes go to a new file next to the target, whose whole size is reserved at once, so that a full
    disk is noticed before the work and not after it.  `write` may be called from any number of threads,
    in any order.  Bytes between the tensors that are not written are zero.

    A context manager: leaving it without a `commit` removes what was written.  Every failure of the
    operating system becomes an `OutputError` that names the target.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from kquant import TensorType
    >>> from kquant.gguf import Metadata, TensorSpec, Writer, layout
    >>> plan = layout(Metadata(), [TensorSpec("w", (2, 2), TensorType["I8"])])
    >>> with TemporaryDirectory() as folder:
    ...     with Writer(f"{folder}/w.gguf", plan) as writer:
    ...         writer.write(0, 2, b"cd")
    ...         writer.write(0, 0, b"ab")
    ...         writer.commit()
    ...     Path(f"{folder}/w.gguf").read_bytes()[plan.data_offset :].rstrip(b"\\0")
    b'abcd'
    """

    def __init__(self, path: str | os.PathLike[str], layout: HeaderLayout) -> None:
        self.path = Path(path)
        self.layout = layout
        self._written: list[list[tuple[int, int]]] = [[] for _ in layout.tensors]
        self._lock = Lock()
        self._file = PartFile(path, layout.file_bytes)
        try:
            self._file.write(0, layout.header)
        except BaseException:
            self._file.abort()
            raise

    def write(self, tensor: int, offset: int, data: Buffer) -> None:
        """Writes bytes of a tensor.

        Args:
            tensor: Index of the tensor in the layout.
            offset: Byte of the tensor where the data goes.
            data: Anything with the buffer protocol.

        Raises `ShapeError` for bytes beyond the tensor, `OutputError` if they cannot be written.
        """
        view = memoryview(data)
        end = offset + view.nbytes
        if not 0 <= offset <= end <= self.layout.nbytes[tensor]:
            raise ShapeError(
                f"{self.path}: tensor {self.layout.tensors[tensor].name!r}: expected bytes within 0 to "
                f"{self.layout.nbytes[tensor]}, got {offset} to {end}"
            )
        if not view.nbytes:
            return
        flat = view.cast("B") if view.c_contiguous else view.tobytes()
        self._file.write(self.layout.offsets[tensor] + offset, flat)
        with self._lock:
            ranges = self._written[tensor]
            if ranges and ranges[-1][1] == offset:
                offset = ranges.pop()[0]
            ranges.append((offset, end))

    def commit(self) -> None:
        """Renames the file to its target, replacing any other, after all bytes have reached the disk.

        Raises `OutputError` if a byte of a tensor was not written, or the system fails; then the
        temporary file is removed.
        """
        self._file.check_open()
        for spec, nbytes, ranges in zip(self.layout.tensors, self.layout.nbytes, self._written, strict=True):
            complete = 0
            for start, end in sorted(ranges):
                if start > complete:
                    break
                complete = max(complete, end)
            if complete < nbytes:
                self.abort()
                raise OutputError(
                    f"{self.path}: tensor {spec.name!r}: expected {nbytes} bytes to be written, "
                    f"got none at byte {complete}"
                )
        self._file.commit()

    def abort(self) -> None:
        """Waits for writes in progress and removes what was written; does nothing after a `commit`."""
        self._file.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()
