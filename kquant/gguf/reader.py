"""GGUF files for reading: metadata, and tensors as memory-mapped bytes."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kquant.errors import GGUFError, GGUFTruncatedError
from kquant.gguf.header import Header, Shortfall, TensorInfo, parse_header, shortfall
from kquant.gguf.shards import check_shard, check_tensor_count, shard_paths

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GGUFFile", "TensorInfo", "expand_shards", "read", "read_shard"]


@dataclass(frozen=True, slots=True)
class _OpenFile:
    path: Path
    header: Header
    map: mmap.mmap | bytes
    """The bytes of the file; an empty file cannot be mapped."""


class GGUFFile:
    """A GGUF model for reading: one file, or all of its shards.  Made by `read`.

    Only the header is read until `data` is called.  A context manager; after `close` no more data is
    available, but the metadata and the arrays returned before stay valid, because they keep the memory
    map alive.

    Attributes:
        paths: The files, the first shard first.
        version: 2 or 3, as the first file has it.
        byteorder: "little" or "big", of the metadata and of the tensor data.
        alignment: Bytes that the tensor data is aligned to, as the first file has it.
        metadata: The key/value pairs of the first file.
        shard_metadata: The key/value pairs of each file.
        tensors: The tensors by name, in the order of the files.
        data_offsets: For each file the byte where its tensor data starts.
        file_bytes: The size of each file.
    """

    def __init__(self, files: Sequence[_OpenFile]) -> None:
        header = files[0].header
        self.paths = tuple(file.path for file in files)
        self.version = header.version
        self.byteorder = header.byteorder
        self.metadata = header.metadata
        self.alignment = header.metadata.alignment
        self.shard_metadata = tuple(file.header.metadata for file in files)
        self.data_offsets = tuple(file.header.data_offset for file in files)
        self.file_bytes = tuple(len(file.map) for file in files)
        self._maps = tuple(file.map for file in files)
        tensors: dict[str, TensorInfo] = {}
        for file in files:
            if file.header.byteorder != self.byteorder:
                raise GGUFError(
                    f"{file.path}: expected {self.byteorder} endian as {self.paths[0]}, "
                    f"got {file.header.byteorder} endian"
                )
            for name, info in file.header.tensors.items():
                if name in tensors:
                    raise GGUFError(
                        f"{file.path}: tensor {name!r}: expected unique names, "
                        f"got one that {self.paths[tensors[name].shard]} has, too"
                    )
                tensors[name] = info
        self.tensors = MappingProxyType(tensors)

    def data(self, info: TensorInfo) -> NDArray[np.uint8]:
        """The packed rows of a tensor: uint8, shape `info.shape[:-1] + (info.row_bytes,)`, read-only.

        The bytes are those of the memory-mapped file, in its byte order.  Raises `GGUFTruncatedError`
        if they are missing, which is possible only for a file read with `header_only`, and `GGUFError`
        after `close`.
        """
        path = self.paths[info.shard]
        if not self._maps:
            raise GGUFError(f"{path}: tensor {info.name!r}: expected an open file, got a closed one")
        data = self._maps[info.shard]
        _check_complete(path, [info], len(data))
        return np.ndarray((*info.shape[:-1], info.row_bytes), np.uint8, data, info.offset)

    @property
    def shortfall(self) -> Shortfall | None:
        """What is missing of the tensor data, with `header_only`; None if it is all there."""
        return shortfall(self.tensors.values(), self.file_bytes)

    def check_complete(self) -> None:
        """Raises `GGUFTruncatedError` unless the data of every tensor is there."""
        for shard, path in enumerate(self.paths):
            members = [info for info in self.tensors.values() if info.shard == shard]
            _check_complete(path, members, self.file_bytes[shard])

    def close(self) -> None:
        """Releases the memory map; it is unmapped when nothing refers to it any more."""
        self._maps = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"GGUFFile({str(self.paths[0])!r}, {len(self.paths)} files, {len(self.tensors)} tensors)"


def read(path: str | os.PathLike[str], *, header_only: bool = False) -> GGUFFile:
    """Opens a GGUF model: a single file, or all shards if `path` is the first of several.

    Takes milliseconds, also for vocabularies of hundreds of thousands of strings: the file is mapped,
    not read.  Versions 2 and 3, both byte orders, any alignment.

    `header_only` accepts files whose tensor data is missing.  Raises `GGUFError` if the file is
    malformed, `GGUFTruncatedError` if it ends early, `GGUFLimitError` if a number exceeds a limit, and
    `OSError` if it cannot be opened.

    >>> from tempfile import TemporaryDirectory
    >>> from kquant import TensorType
    >>> from kquant.gguf import Metadata, TensorSpec, Writer, layout, read
    >>> with TemporaryDirectory() as folder:
    ...     spec = TensorSpec("bias", (3,), TensorType["I8"])
    ...     with Writer(f"{folder}/tiny.gguf", layout(Metadata(), [spec])) as writer:
    ...         writer.write(0, 0, b"abc")
    ...         writer.commit()
    ...     with read(f"{folder}/tiny.gguf") as file:
    ...         bias = file.tensors["bias"]
    ...         bias.shape, bias.offset, bytes(file.data(bias))
    ((3,), 64, b'abc')
    """
    first = _open(Path(path), header_only=header_only)
    paths = shard_paths(first.path, first.header.metadata)
    if len(paths) == 1:
        return GGUFFile([first])
    files = [first]
    for index, shard in enumerate(paths[1:], 1):
        try:
            files.append(_open(shard, index, header_only=header_only))
        except FileNotFoundError as error:
            raise GGUFError(
                f"{shard}: expected shard {index + 1} of {len(paths)}, got no such file"
            ) from error
        check_shard(shard, files[index].header.metadata, index)
    model = GGUFFile(files)
    check_tensor_count(first.path, model.metadata, len(model.tensors))
    return model


def read_shard(path: str | os.PathLike[str], *, header_only: bool = False) -> GGUFFile:
    """Opens one file as it is, also if it is one shard of several.  Otherwise as `read`."""
    return GGUFFile([_open(Path(path), header_only=header_only)])


def expand_shards(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The files of the model that starts at `path`; whether the others exist is not checked.

    Raises `GGUFError` if `path` is a shard, but not the first one or not named as a shard.
    """
    first = _open(Path(path), header_only=True)
    return shard_paths(first.path, first.header.metadata)


def _open(path: Path, shard: int = 0, *, header_only: bool) -> _OpenFile:
    if "\0" in str(path):
        raise GGUFError(f"expected a path without a NUL, got {str(path)!r}")
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
        what = "a folder" if path.is_dir() else "something else"
        raise GGUFError(f"{path}: expected a regular file, got {what}")
    with path.open("rb") as file:
        empty = os.fstat(file.fileno()).st_size == 0
        data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header = parse_header(data, path, shard=shard)
    if not header_only:
        if header.tensors and header.data_offset > len(data):
            raise GGUFTruncatedError(
                f"{path}: expected tensor data from byte {header.data_offset}, "
                f"got the end of the file at byte {len(data)}"
            )
        _check_complete(path, header.tensors.values(), len(data))
    return _OpenFile(path, header, data)


def _check_complete(path: Path, tensors: Collection[TensorInfo], file_bytes: int) -> None:
    """Raises `GGUFTruncatedError` if the data of a tensor in the file at `path` is not all there."""
    for info in tensors:
        if info.end > file_bytes:
            raise GGUFTruncatedError(
                f"{path}: tensor {info.name!r}: expected {info.nbytes} bytes from byte {info.offset}, "
                f"got the end of the file at byte {file_bytes}; "
                f"{_shortfall_of_one(tensors, file_bytes)}"
            )


def _shortfall_of_one(tensors: Collection[TensorInfo], file_bytes: int) -> Shortfall | None:
    return shortfall([replace(info, shard=0) for info in tensors], [file_bytes])
