"""The work of a requantization, divided into slabs: bytes of the source in, bytes of the result out.

A slab is an independent task, whose result goes to an offset that is known in advance.  `convert` is all
that a worker runs, and a `Slab` is all that it needs to know: threads, processes or a cluster can do it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kquant.arrays.byteorder import swapped
from kquant.arrays.codec import execution_of
from kquant.arrays.overflow import quantize_checked
from kquant.arrays.validation import check_finite
from kquant.errors import GGUFTruncatedError, NonFiniteError, OutOfRangeError
from kquant.formats import format_of
from kquant.gguf import GGUFFile
from kquant.kernels.execute import WHOLE, aligned_empty
from kquant.planning.planner import Plan
from kquant.types import TensorType

__all__ = ["Slab", "convert", "read_ahead", "slabs_of"]

Bytes = npt.NDArray[np.uint8]

COPY_BYTES = 1 << 20
"""Bytes of a slab that is only copied."""
READ_AHEAD = 64 << 20
"""Bytes of the source that the system is asked to read before a worker needs them."""


@dataclass(frozen=True, slots=True)
class Slab:
    """Some rows of a tensor that are one task; can be pickled."""

    path: str
    offset: int
    """Byte of the source file where they start."""
    nbytes: int
    byteorder: str
    tensor: str
    first: int
    """Elements of the tensor before the slab."""
    n_per_row: int
    """Elements of a row of the tensor."""
    type: TensorType
    new_type: TensorType
    importance: npt.NDArray[np.float32] | None
    """float32 (n_per_row,): the slab then is whole rows of that length."""
    target: tuple[int, int, int]
    """Output, tensor in it, and byte of the tensor where the result goes."""


def slabs_of(made: Plan, model: GGUFFile, slab_elements: int) -> Iterator[Slab]:
    """Every tensor in pieces of whole blocks, or of whole rows where these have importance weights."""
    positions = [0] * len(made.outputs)
    for row in made.rows:
        output, tensor = row.output, positions[row.output]
        positions[output] += 1
        weights = made.weights(row)
        unit = max(row.type.block_size, row.new_type.block_size)
        size = slab_elements
        if weights is not None:
            unit = row.shape[-1]
        elif not row.converts:
            size = COPY_BYTES // row.type.type_size * row.type.block_size
        n = row.n_elements
        matrix = n if weights is None else n // len(weights)
        step = max(1, size // unit) * unit
        for start in range(0, n, max(matrix, 1)):
            importance = None if weights is None else weights[start // matrix]
            for first in range(start, start + matrix, step):
                count = min(step, start + matrix - first)
                yield Slab(
                    path=os.fspath(model.paths[row.source.shard]),
                    offset=row.source.offset + _bytes(row.type, first),
                    nbytes=_bytes(row.type, count),
                    byteorder=model.byteorder,
                    tensor=row.source.name,
                    first=first,
                    n_per_row=row.shape[-1],
                    type=row.type,
                    new_type=row.new_type,
                    importance=importance,
                    target=(output, tensor, _bytes(row.new_type, first)),
                )


def read_ahead(slabs: Iterator[Slab]) -> Iterator[Slab]:
    """The same slabs, while the system already reads their bytes: for compiling kernels and slow disks."""
    if not hasattr(os, "posix_fadvise"):
        yield from slabs
        return
    waiting: deque[Slab] = deque()
    n_bytes = 0
    with ExitStack() as stack:
        files = cache(lambda path: stack.enter_context(Path(path).open("rb", buffering=0)))
        for slab in slabs:
            with suppress(OSError):  # a hint that not every file system accepts
                os.posix_fadvise(files(slab.path).fileno(), slab.offset, slab.nbytes, os.POSIX_FADV_WILLNEED)
            waiting.append(slab)
            n_bytes += slab.nbytes
            while n_bytes > READ_AHEAD:
                yield (first := waiting.popleft())
                n_bytes -= first.nbytes
        yield from waiting


def _bytes(tensor_type: TensorType, n_elements: int) -> int:
    return n_elements // tensor_type.block_size * tensor_type.type_size


class _Memory(threading.local):
    """A worker's memory for one slab, kept: new memory would cost more than the work on it."""

    def __init__(self) -> None:
        self._source: Bytes = np.empty(0, np.uint8)
        self._values: npt.NDArray[np.float32] = np.empty(0, np.float32)

    def source(self, n: int) -> Bytes:
        if len(self._source) < n:
            self._source = aligned_empty((n,), np.uint8)
        return self._source[:n]

    def values(self, n: int) -> npt.NDArray[np.float32]:
        if len(self._values) < n:
            self._values = aligned_empty((n,), np.float32)
        return self._values[:n]


_memory = _Memory()


def convert(slab: Slab) -> Bytes:
    """What a worker does: read, dequantize, quantize, validate.

    Returns uint8 (n,): the bytes of the result, in the byte order of the source.
    """
    copies = slab.type is slab.new_type
    data = np.empty(slab.nbytes, np.uint8) if copies else _memory.source(slab.nbytes)
    _read(slab, data)
    where = f"{slab.path}: tensor {slab.tensor!r}: "
    check_source = partial(check_finite, data, slab.type, where, slab.first, slab.n_per_row, slab.byteorder)
    if copies:
        check_source()
        return data
    how = execution_of(None)
    native = swapped(data, slab.type) if slab.byteorder == "big" else data
    n = slab.nbytes // slab.type.type_size * slab.type.block_size
    n_per_row = n if slab.importance is None else len(slab.importance)
    x = _memory.values(n).reshape(-1, n_per_row)
    format_of(slab.type).dequantize_rows(native.reshape(len(x), -1), x, how)
    packed = np.empty((len(x), slab.new_type.row_bytes(n_per_row)), np.uint8)
    found, overflow = quantize_checked(format_of(slab.new_type), x, slab.importance, packed, how)
    if found != WHOLE:
        check_source()
        raise NonFiniteError(
            f"{where}expected finite values, got NaN or infinity from element {slab.first} on"
        )
    if overflow:
        row, column = divmod(slab.first + overflow.element, slab.n_per_row)
        raise OutOfRangeError(f"{where}{overflow.sentence(f'in row {row}, column {column}')}")
    result = packed.reshape(-1)
    return swapped(result, slab.new_type) if slab.byteorder == "big" else result


def _read(slab: Slab, data: Bytes) -> None:
    with Path(slab.path).open("rb", buffering=0) as file:
        file.seek(slab.offset)
        got = 0
        while got < slab.nbytes:
            count = file.readinto(data.data[got:])
            if not count:
                raise GGUFTruncatedError(
                    f"{slab.path}: tensor {slab.tensor!r}: expected {slab.nbytes} bytes from byte "
                    f"{slab.offset}, got {got}: the file has shrunk since its header was read"
                )
            got += count
