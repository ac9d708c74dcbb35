"""Importance matrices: how much each column of a weight matrix matters, measured by llama-imatrix.

Two file formats hold the same sums of squared activations.  GGUF has for each tensor
`NAME.in_sum2` (n_matrices, n_per_row) and `NAME.counts` (n_matrices, 1), both F32; a matrix that was
never used (count 0: an expert that no token reached) gets ones.  The older `.dat` is, in little
endian::

    n_entries i32
    n_entries × { len i32 | name | n_calls i32 | n_values i32 | n_values × f32 }
    n_chunks i32 | len i32 | dataset                                 (both may be missing)

and its weights are values / n_calls.  Facts from
https://github.com/ggml-org/llama.cpp/blob/master/common/imatrix-loader.cpp and
https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/quantize.cpp.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from kquant.errors import GGUFError, ImatrixError, OptionError
from kquant.gguf import GGUFFile, GGUFValueType, read
from kquant.gguf.kinds import HEAD_BYTES, is_imatrix_dat, recognized
from kquant.types import TensorType

__all__ = ["Imatrix", "load_imatrix"]

Weights = npt.NDArray[np.float32]

_SUMS, _COUNTS = ".in_sum2", ".counts"


class Imatrix(Mapping[str, Weights]):
    """Importance weights by tensor name: read-only float32 arrays of shape (n_matrices, n_per_row).

    `n_matrices` is the number of experts of a tensor that holds several matrices.  A `.dat` file does
    not tell it: then all weights are in one row.

    Raises `ImatrixError` if a weight is NaN or infinite.

    >>> import numpy as np
    >>> imatrix = Imatrix({"blk.0.ffn_up.weight": np.ones(4)}, datasets=["calibration.txt"])
    >>> imatrix["blk.0.ffn_up.weight"].shape, imatrix.datasets
    ((1, 4), ('calibration.txt',))
    """

    __slots__ = ("_weights", "chunk_count", "datasets", "path")

    def __init__(
        self,
        weights: Mapping[str, npt.ArrayLike],
        *,
        path: str | None = None,
        datasets: Sequence[str] = (),
        chunk_count: int = 0,
    ) -> None:
        checked = {name: _checked(name, values, path) for name, values in weights.items()}
        self._weights = MappingProxyType(checked)
        self.path = path
        """The file as it was named; requantize notes it in the metadata of its output."""
        self.datasets = tuple(datasets)
        """Names of the texts that the weights were measured on."""
        self.chunk_count = chunk_count
        """Pieces of text that the weights were measured on; 0 if unknown."""

    def __getitem__(self, name: str) -> Weights:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __repr__(self) -> str:
        return f"Imatrix({len(self)} tensors, {self.chunk_count} chunks, path={self.path!r})"

    def select(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Imatrix:
        """The weights of the tensors whose name contains one of `include`, or none of `exclude`.

        Raises `OptionError` if both are given.

        >>> both = Imatrix({"blk.0.ffn_up.weight": [1.0], "blk.0.attn_q.weight": [1.0]})
        >>> list(both.select(include=["attn", "output"])), list(both.select(exclude=["attn"]))
        (['blk.0.attn_q.weight'], ['blk.0.ffn_up.weight'])
        """
        chosen = {name: self[name] for name in _select(self, include, exclude)}
        return Imatrix(chosen, path=self.path, datasets=self.datasets, chunk_count=self.chunk_count)


def load_imatrix(
    path: str | os.PathLike[str], *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Imatrix:
    """Reads an importance matrix, GGUF or `.dat`, with the weights that llama-quantize computes from it.

    `include` and `exclude` are as in `Imatrix.select`.

    Raises `ImatrixError` if the file cannot be read, is not an importance matrix, or holds NaN or
    infinity; `OptionError` if `include` and `exclude` are both given.

    >>> import struct
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:   # one entry, "w": the sums of two calls
    ...     path = Path(folder, "tiny.dat")
    ...     n_bytes = path.write_bytes(struct.pack("<ii1sii2f", 1, 1, b"w", 2, 2, 3.0, 4.0))
    ...     print(load_imatrix(path)["w"])
    [[1.5 2. ]]
    """
    name = os.fspath(path)
    try:
        with Path(name).open("rb") as file:
            head = file.read(HEAD_BYTES)
            file.seek(0)
            if not (head.startswith(b"GGUF") or is_imatrix_dat(head)) and (what := recognized(head)):
                raise ImatrixError(f"{name}: expected an importance matrix, got {what}")
            if not head.startswith(b"GGUF"):
                return _read_dat(_Dat(file, name), include, exclude)
        with read(name) as model:
            return _read_gguf(model, name, include, exclude)
    except OSError as error:
        raise ImatrixError(f"{name}: cannot read the importance matrix: {error.strerror}") from error
    except GGUFError as error:
        raise ImatrixError(f"importance matrix: {error}") from error


def _checked(name: str, values: npt.ArrayLike, path: str | None) -> Weights:
    where = f"{path}: " if path else ""
    array = np.atleast_2d(np.array(values, dtype=np.float32))
    if array.ndim != 2 or not array.size:
        raise ImatrixError(
            f"{where}{name}: expected weights of shape (n_per_row,) or (n_matrices, n_per_row), "
            f"got {array.shape}"
        )
    if not np.isfinite(array).all():
        bad = array[~np.isfinite(array)]
        raise ImatrixError(
            f"{where}{name}: expected finite weights, got {bad.size} of {array.size} that are not ({bad[0]})"
        )
    array.flags.writeable = False
    return array


def _select(names: Iterable[str], include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    if include and exclude:
        raise OptionError("include_weights and exclude_weights cannot be used together")
    if include:
        return [name for name in names if any(part in name for part in include)]
    return [name for name in names if not any(part in name for part in exclude)]


def _read_gguf(model: GGUFFile, path: str, include: Sequence[str], exclude: Sequence[str]) -> Imatrix:
    metadata = model.metadata
    missing = [
        key
        for key in ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")
        if key not in metadata
    ]
    if missing:
        raise ImatrixError(
            f"{path}: expected the metadata of an importance matrix, as llama-imatrix makes one, "
            f"got no {', '.join(missing)}; is it a model?"
        )
    if metadata.type_of("imatrix.chunk_count") != GGUFValueType.UINT32:
        found = metadata.type_of("imatrix.chunk_count").name
        raise ImatrixError(f"{path}: imatrix.chunk_count: expected UINT32, got {found}")
    names = dict.fromkeys(
        tensor.removesuffix(suffix)
        for tensor in model.tensors
        for suffix in (_SUMS, _COUNTS)
        if tensor.endswith(suffix)
    )
    if not names:
        raise ImatrixError(f"{path}: expected tensors NAME{_SUMS} and NAME{_COUNTS}, got none")
    # as upstream, a missing half is an error even where it is not needed
    for name in names:
        _require(model, name + _SUMS, path)
        _require(model, name + _COUNTS, path)
    weights = {name: _weights(model, name, path) for name in _select(names, include, exclude)}
    datasets = metadata["imatrix.datasets"]
    is_list = metadata.type_of("imatrix.datasets") == GGUFValueType.ARRAY
    texts = (
        list(datasets)
        if is_list and metadata.array_type_of("imatrix.datasets") == GGUFValueType.STRING
        else []
    )
    return Imatrix(weights, path=path, datasets=texts, chunk_count=metadata["imatrix.chunk_count"])


def _require(model: GGUFFile, tensor: str, path: str) -> None:
    if tensor not in model.tensors:
        raise ImatrixError(f"{path}: expected a tensor {tensor}, got none: sums and counts come in pairs")
    if (found := model.tensors[tensor].type) is not TensorType.F32:
        raise ImatrixError(f"{path}: {tensor}: expected F32, got {found.name}")


def _weights(model: GGUFFile, name: str, path: str) -> Weights:
    sums, counts = _floats(model, name + _SUMS), _floats(model, name + _COUNTS)
    if not counts.size or sums.size % counts.size:
        raise ImatrixError(
            f"{path}: {name}: expected one count for each matrix, "
            f"got {counts.size} counts for {sums.size} sums"
        )
    if not np.isfinite(counts).all():
        raise ImatrixError(f"{path}: {name}: expected finite counts, got {counts[~np.isfinite(counts)][0]}")
    # C's lround: halves go away from zero
    rounded = np.copysign(np.floor(np.abs(counts.astype(np.float64)) + 0.5), counts).astype(np.float32)
    rows = sums.reshape(counts.size, -1)
    used = rounded[:, None] > 0
    return np.where(used, rows / np.where(used, rounded[:, None], np.float32(1)), np.float32(1))


def _floats(model: GGUFFile, tensor: str) -> Weights:
    order = "<" if model.byteorder == "little" else ">"
    return model.data(model.tensors[tensor]).reshape(-1).view(f"{order}f4").astype(np.float32)


class _Dat:
    """Reads numbers from an old file and knows what remains of it."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.file = file
        self.path = path
        self.remaining = os.fstat(file.fileno()).st_size

    def bytes(self, n: int, what: str) -> bytes:
        if not 0 <= n <= self.remaining:
            raise ImatrixError(
                f"{self.path}: {what}: expected {n} bytes, got {self.remaining} to the end of the file"
            )
        self.remaining -= n
        return self.file.read(n)

    def number(self, what: str) -> int:
        return int(struct.unpack("<i", self.bytes(4, what))[0])

    def text(self, what: str) -> str:
        raw = self.bytes(self.number(f"length of the {what}"), what)
        return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _read_dat(dat: _Dat, include: Sequence[str], exclude: Sequence[str]) -> Imatrix:
    n_entries = dat.number("number of entries")
    if n_entries < 1:
        raise ImatrixError(f"{dat.path}: expected one entry or more, got {n_entries}")
    weights: dict[str, Weights] = {}
    for i in range(n_entries):
        name = dat.text(f"name of entry {i}")
        n_calls = dat.number(f"number of calls of {name}")
        n_values = dat.number(f"number of values of {name}")
        if n_values < 1:
            raise ImatrixError(f"{dat.path}: {name}: expected one value or more, got {n_values}")
        values = np.frombuffer(dat.bytes(4 * n_values, f"values of {name}"), dtype="<f4").astype(np.float32)
        weights[name] = values / np.float32(max(n_calls, 1))
    chunk_count = dat.number("number of chunks") if dat.remaining else 0
    dataset = dat.text("name of the dataset") if dat.remaining else ""
    chosen = {name: weights[name] for name in _select(weights, include, exclude)}
    return Imatrix(chosen, path=dat.path, datasets=[dataset] if dataset else [], chunk_count=chunk_count)
