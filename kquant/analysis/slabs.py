"""Pieces of tensors read from disk, and work on them by many threads with results in order.

The pieces are read, not memory-mapped, so that a model of any size passes through a fixed amount of
memory; the results come in the order of the pieces, so that sums do not depend on the threads.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from kquant.arrays.byteorder import PLAIN, swapped
from kquant.arrays.codec import execution_of
from kquant.arrays.validation import check_finite
from kquant.errors import GGUFTruncatedError, OptionError
from kquant.formats import format_of, has_format
from kquant.gguf import GGUFFile, TensorInfo
from kquant.parallel.slabs import available_threads
from kquant.types import TensorType

__all__ = ["SLAB_ELEMENTS", "Slab", "in_order", "matching", "readable", "slabs"]

SLAB_ELEMENTS = 1 << 17
"""Elements of a slab: a multiple of every block size, and a megabyte in float64."""
QUEUED = 4
"""Slabs in progress for each thread."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def readable(tensor_type: TensorType) -> bool:
    """Whether kquant knows the values that packed rows of this type stand for."""
    return tensor_type in PLAIN or has_format(tensor_type)


def matching(names: Iterable[str], pattern: str | None) -> list[str]:
    """The names in which a regular expression is found; all of them for None.

    Raises `OptionError` if `pattern` is not a regular expression.

    >>> matching(["blk.0.attn_v.weight", "output.weight"], r"attn_.\\.")
    ['blk.0.attn_v.weight']
    """
    try:
        found = re.compile(pattern or "")
    except re.error as error:
        raise OptionError(f"tensors: expected a regular expression, got {pattern!r}: {error}") from error
    return [name for name in names if found.search(name)]


@dataclass(frozen=True, slots=True)
class Slab:
    """Some consecutive elements of a tensor, whole blocks, in a file."""

    path: Path
    byteorder: str
    info: TensorInfo
    first: int
    """Elements of the tensor before these."""
    count: int

    @property
    def offset(self) -> int:
        """Byte of the file where they start."""
        return self.info.offset + self.first // self.info.type.block_size * self.info.type.type_size

    @property
    def nbytes(self) -> int:
        """Bytes of them."""
        return self.count // self.info.type.block_size * self.info.type.type_size

    @property
    def where(self) -> str:
        """The beginning of a message about them."""
        return f"{self.path}: tensor {self.info.name!r}: "

    def read(self) -> npt.NDArray[np.uint8]:
        """uint8 (nbytes,), as the file stores them.

        Raises `GGUFTruncatedError` if the file has shrunk.
        """
        data = np.fromfile(self.path, np.uint8, self.nbytes, offset=self.offset)
        if len(data) < self.nbytes:
            raise GGUFTruncatedError(
                f"{self.where}expected {self.nbytes} bytes from byte {self.offset}, got {len(data)}: "
                "the file has shrunk since its header was read"
            )
        return data

    def check(self, data: npt.NDArray[np.uint8], where: str = "") -> None:
        """Raises `InvalidDataError` if a scale or value in what was read is NaN or infinite."""
        check_finite(data, self.info.type, where, self.first, self.info.n_per_row, self.byteorder)

    def values(self) -> npt.NDArray[Any]:
        """What the elements stand for: float32 (count,), or the numbers of a plain type.

        Raises `InvalidDataError` for NaN and infinity, `UnsupportedTypeError` without a codec.
        """
        data, tensor_type = self.read(), self.info.type
        self.check(data, self.where)
        if self.byteorder == "big":
            data = swapped(data, tensor_type)
        if tensor_type in PLAIN:
            numbers: npt.NDArray[Any] = data.view(PLAIN[tensor_type])
            return numbers
        x = np.empty((1, self.count), np.float32)
        format_of(tensor_type).dequantize_rows(data.reshape(1, -1), x, execution_of(None))
        values: npt.NDArray[Any] = x[0]
        return values


def slabs(model: GGUFFile, info: TensorInfo, size: int = SLAB_ELEMENTS) -> Iterator[Slab]:
    """A tensor in pieces of `size` elements."""
    path = model.paths[info.shard]
    for first in range(0, info.n_elements, size):
        yield Slab(path, model.byteorder, info, first, min(size, info.n_elements - first))


def in_order(
    function: Callable[[_T], _R], jobs: Iterable[_T], threads: int | None
) -> Generator[_R, None, None]:
    """The results of a function for each job, computed by threads, a few jobs ahead.

    >>> list(in_order(abs, [-3, 1, -2], threads=2))
    [3, 1, 2]
    """
    if threads is not None and threads < 1:
        raise OptionError(f"threads: expected at least 1, got {threads}")
    workers = threads or available_threads()
    pending: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(workers) as executor:
        try:
            for job in jobs:
                pending.append(executor.submit(function, job))
                if len(pending) >= QUEUED * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
