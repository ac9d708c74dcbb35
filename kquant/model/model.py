"""A GGUF file as Python sees it: metadata, and tensors that can be unpacked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from kquant.arrays.byteorder import swapped
from kquant.arrays.tensor import QuantizedTensor
from kquant.gguf import GGUFFile, Metadata, read

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Model", "open"]


class _Tensors(Mapping[str, QuantizedTensor]):
    """Name -> tensor, made when it is asked for."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file

    def __getitem__(self, name: str) -> QuantizedTensor:
        info = self._file.tensors[name]
        data = self._file.data(info)
        if self._file.byteorder == "big":
            data = swapped(data, info.type)
        return QuantizedTensor(data, info.type, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.tensors)

    def __len__(self) -> int:
        return len(self._file.tensors)

    def __repr__(self) -> str:
        return f"<{len(self)} tensors of {self._file.paths[0]}>"


class Model:
    """Metadata and tensors of a GGUF file, or of all shards of one.  Made by `kquant.open`.

    A context manager; arrays that it has returned keep the memory map alive.
    """

    def __init__(self, file: GGUFFile) -> None:
        self.file = file
        """The file: paths, version, byte order, offsets."""
        self.tensors: Mapping[str, QuantizedTensor] = _Tensors(file)
        """Name -> `QuantizedTensor` over the memory-mapped data, in the order of the file."""

    @property
    def metadata(self) -> Metadata:
        """The key/value pairs, in the order of the (first) file."""
        return self.file.metadata

    def close(self) -> None:
        """Releases the file."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Model({str(self.file.paths[0])!r}, {len(self.tensors)} tensors)"


def open(path: str | os.PathLike[str]) -> Model:
    """Open a GGUF file, or all shards of a model, given the first.

    Takes milliseconds: the tensors stay on disk, memory-mapped, until they are used.

    Raises `GGUFError` if the file is malformed, truncated or beyond the limits, and `OSError` if it
    cannot be opened.

    >>> import kquant, tempfile, pathlib
    >>> from kquant.gguf import Metadata, TensorSpec, Writer, layout
    >>> specs = [TensorSpec("w", (32, 2), kquant.TensorType["Q8_0"])]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "tiny.gguf")
    ...     with Writer(path, layout(Metadata(), specs)) as writer:
    ...         writer.write(0, 0, bytes(68))
    ...         writer.commit()
    ...     with kquant.open(path) as model:
    ...         model.tensors["w"], float(model.tensors["w"].numpy().sum())
    (QuantizedTensor('w', Q8_0, shape=(2, 32), 68 bytes), 0.0)
    """
    return Model(read(path))
