"""Carries a format's kernels over arrays, in either execution.

Each class holds the kernels of one way to quantize or to dequantize, and runs them over whole C-contiguous
arrays of rows; none knows of threads.  "numba" calls the compiled drivers: for a search they gather as many
blocks as a vector has lanes, transposed so that each lies in a lane.  "numpy" does so with a few thousand
lanes and the kernels as they stand.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from kquant.kernels.compile import compiled, lane_count, passes_cache
from kquant.kernels.drivers import (
    RUN,
    WHOLE,
    decode_numbers,
    dequantize_blocks,
    encode_numbers,
    quantize_groups,
    quantize_weighted_groups,
    quantize_whole_blocks,
)
from kquant.kernels.language.blocks import BLOCKS
from kquant.kernels.language.lanes import Lanes, Rows
from kquant.types import TensorType

__all__ = [
    "CHUNK",
    "INFINITY",
    "WHOLE",
    "BlockDecoder",
    "BlockRounding",
    "Bytes",
    "Decoder",
    "Execution",
    "Floats",
    "NumberDecoder",
    "NumberEncoder",
    "Quantizer",
    "Search",
    "WeightedSearch",
    "aligned_empty",
]

Execution: TypeAlias = Literal["numba", "numpy"]
Floats: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]

CHUNK = 1 << 15
"""Blocks that NumPy works on at a time: many enough for its overhead, few enough for the memory."""


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`np.empty` that starts at a multiple of 64 bytes: stores as wide as that cross no cache line."""
    wanted = np.dtype(dtype)
    n_bytes = math.prod(shape) * wanted.itemsize
    memory = np.empty(n_bytes + 64, np.uint8)
    start = -memory.__array_interface__["data"][0] % 64
    return memory[start : start + n_bytes].view(wanted).reshape(shape)


def _streams(out: npt.NDArray[Any], large: bool) -> bool:
    """Whether results are stored past the caches: only whole lines can be."""
    return large and passes_cache() and not out.ctypes.data % 64


# ---------------------------------------------------------------- packed rows to values


class Decoder(ABC):
    """How packed rows become values."""

    @abstractmethod
    def compiled(self, tensor_type: TensorType) -> Any:
        """The compiled driver, out of the cache or compiled now."""

    @abstractmethod
    def __call__(
        self, tensor_type: TensorType, data: Bytes, out: Floats, execution: Execution, *, large: bool = False
    ) -> None:
        """uint8 (n_rows, row_bytes) to float32 (n_rows, n_per_row), both C-contiguous.

        large: `out` is part of more than stays in a cache.
        """


@dataclass(frozen=True)
class BlockDecoder(Decoder):
    """Blocks, one after the other."""

    dequantize: Callable[[Rows, Rows], None]
    """kernel(block, y): the bytes of one block -> its values."""

    def compiled(self, tensor_type: TensorType) -> Any:
        """(uint8 (blocks, type_size), float32 (blocks, block_size), exceeds_cache)."""
        driver = dequantize_blocks(self.dequantize)
        signature = "R(uint8, 2), float32[:, ::1], boolean"
        return compiled(driver, signature, f"{tensor_type.name.lower()}-dequantize")

    def __call__(
        self, tensor_type: TensorType, data: Bytes, out: Floats, execution: Execution, *, large: bool = False
    ) -> None:
        """See `Decoder`."""
        if not out.size:
            return
        blocks = data.reshape(-1, tensor_type.type_size)
        values = out.reshape(-1, tensor_type.block_size)
        if execution == "numba":
            self.compiled(tensor_type)(blocks, values, _streams(values, large))
            return
        for b in range(0, len(blocks), CHUNK):
            with np.errstate(all="ignore"):
                self.dequantize(blocks[b : b + CHUNK], values[b : b + CHUNK])


@dataclass(frozen=True)
class NumberDecoder(Decoder):
    """Numbers, each of which is a block."""

    decode: Callable[[Lanes], Lanes]
    """kernel(bits) -> value: int32 to float32."""

    def compiled(self, tensor_type: TensorType) -> Any:
        """(numbers, float32, exceeds_cache), a whole number of runs."""
        signature = f"R(uint{8 * tensor_type.type_size}, 1), float32[::1], boolean"
        return compiled(decode_numbers(self.decode), signature, f"{tensor_type.name.lower()}-dequantize")

    def __call__(
        self, tensor_type: TensorType, data: Bytes, out: Floats, execution: Execution, *, large: bool = False
    ) -> None:
        """See `Decoder`."""
        if not out.size:
            return
        bits, values = data.reshape(-1).view(f"<u{tensor_type.type_size}"), out.reshape(-1)
        if execution == "numpy":
            values[...] = self.decode(bits.astype(np.int32))
            return
        drive, whole = self.compiled(tensor_type), len(bits) - len(bits) % RUN
        drive(bits[:whole], values[:whole], _streams(values, large))
        if whole < len(bits):
            last, rest = np.zeros(RUN, bits.dtype), np.empty(RUN, np.float32)
            last[: len(bits) - whole] = bits[whole:]
            drive(last, rest, False)
            values[whole:] = rest[: len(bits) - whole]


# ---------------------------------------------------------------- values to packed rows


class Quantizer(ABC):
    """How values become packed rows, without importance weights."""

    @abstractmethod
    def compiled(self, tensor_type: TensorType) -> Any:
        """The compiled driver, out of the cache or compiled now."""

    @abstractmethod
    def __call__(
        self,
        tensor_type: TensorType,
        x: Floats,
        out: Bytes,
        execution: Execution,
        *,
        large: bool = False,
        limited: bool = False,
    ) -> int:
        """float32 (n_rows, n_per_row) to uint8 (n_rows, row_bytes), both C-contiguous.

        large: `out` is part of more than stays in a cache.
        limited: Stop also at magnitudes of which the format does not surely hold every one.

        Returns `WHOLE`, or the index of a block before which all values were finite, where some are not.
        """


INFINITY = np.float32(np.inf)
SURE = np.float32(32752)
"""Half of the largest fp16 number: a format whose scales and minima are fp16 holds all magnitudes below."""


def _first_beyond(blocks: Floats, limit: np.float32) -> int:
    """The first block that holds NaN or a magnitude that is not below the limit, or `WHOLE`."""
    if -limit < blocks.min() and blocks.max() < limit:
        return WHOLE
    return int(np.flatnonzero(~(np.abs(blocks) < limit).all(axis=1))[0])


@cache
def _bits(limit: np.float32) -> int:
    return int(limit.view(np.int32))


@dataclass(frozen=True)
class Search(Quantizer):
    """A block in every lane: for algorithms whose order of sums decides the bits."""

    quantize: Callable[[Rows, Rows], None]
    """kernel(x, block): values (block_size, lanes) -> bytes (type_size, lanes)."""
    sure: np.float32 = SURE
    """All magnitudes below are held."""

    def compiled(self, tensor_type: TensorType) -> Any:
        """(x, block_size, type_size, lanes, out, limit) -> `WHOLE` or a block."""
        signature = "R(float32, 1), intp, intp, intp, uint8[::1], intp"
        return compiled(quantize_groups(self.quantize), signature, f"{tensor_type.name.lower()}-quantize")

    def __call__(
        self,
        tensor_type: TensorType,
        x: Floats,
        out: Bytes,
        execution: Execution,
        *,
        large: bool = False,
        limited: bool = False,
    ) -> int:
        """See `Quantizer`."""
        if not x.size:
            return WHOLE
        block_size, type_size = tensor_type.block_size, tensor_type.type_size
        limit = self.sure if limited else INFINITY
        if execution == "numba":
            drive, sizes = self.compiled(tensor_type), (block_size, type_size, lane_count())
            return int(drive(x.reshape(-1), *sizes, out.reshape(-1), _bits(limit)))
        blocks, packed = x.reshape(-1, block_size), out.reshape(-1, type_size)
        bad = _first_beyond(blocks, limit)
        for b in range(0, len(blocks) if bad == WHOLE else 0, CHUNK):
            rows = _transposed(blocks[b : b + CHUNK])
            block = np.empty((type_size, rows.shape[1]), np.uint8)
            with np.errstate(all="ignore"):
                self.quantize(rows, block)
            packed[b : b + CHUNK] = _transposed(block)
        return bad


@dataclass(frozen=True)
class BlockRounding(Quantizer):
    """Some blocks of 32 at a time: for types that ask a block for its extremes only."""

    quantize: Callable[[Rows, Rows], None]
    """kernel(x, block): values (blocks, 32) -> bytes (blocks, type_size)."""
    sure: np.float32 = SURE
    """All magnitudes below are held."""

    def compiled(self, tensor_type: TensorType) -> Any:
        """(x, out, limit) -> `WHOLE` or a block, for at least `BLOCKS` blocks."""
        driver = quantize_whole_blocks(self.quantize)
        signature = "R(float32, 2), uint8[:, ::1], intp"
        return compiled(driver, signature, f"{tensor_type.name.lower()}-quantize")

    def __call__(
        self,
        tensor_type: TensorType,
        x: Floats,
        out: Bytes,
        execution: Execution,
        *,
        large: bool = False,
        limited: bool = False,
    ) -> int:
        """See `Quantizer`."""
        if not x.size:
            return WHOLE
        block_size, type_size = tensor_type.block_size, tensor_type.type_size
        blocks, packed = x.reshape(-1, block_size), out.reshape(-1, type_size)
        n, limit = len(blocks), self.sure if limited else INFINITY
        if execution == "numpy":
            bad = _first_beyond(blocks, limit)
            for b in range(0, n if bad == WHOLE else 0, CHUNK):
                with np.errstate(all="ignore"):
                    self.quantize(blocks[b : b + CHUNK], packed[b : b + CHUNK])
            return bad
        drive = self.compiled(tensor_type)
        if n >= BLOCKS:
            return int(drive(blocks, packed, _bits(limit)))
        some = np.empty((BLOCKS, type_size), np.uint8)
        bad = int(drive(np.resize(blocks, (BLOCKS, block_size)), some, _bits(limit)))
        packed[...] = some[:n]
        return bad


@dataclass(frozen=True)
class NumberEncoder(Quantizer):
    """Numbers, each of which is a block."""

    encode: Callable[[Lanes], Lanes]
    """kernel(value) -> bits: float32 to int32."""
    end: np.float32 = INFINITY
    """The least magnitude that becomes infinite."""

    def compiled(self, tensor_type: TensorType, *, limited: bool = True) -> Any:
        """(x, numbers, exceeds_cache) -> `WHOLE` or a number, a whole number of runs."""
        limit = self.end if limited else INFINITY
        signature = f"R(float32, 1), uint{8 * tensor_type.type_size}[::1], boolean"
        name = f"{tensor_type.name.lower()}-quantize{'' if limit == self.end else '-unlimited'}"
        return compiled(encode_numbers(self.encode, _bits(limit)), signature, name)

    def __call__(
        self,
        tensor_type: TensorType,
        x: Floats,
        out: Bytes,
        execution: Execution,
        *,
        large: bool = False,
        limited: bool = False,
    ) -> int:
        """See `Quantizer`."""
        if not x.size:
            return WHOLE
        values, bits = x.reshape(-1), out.reshape(-1).view(f"<u{tensor_type.type_size}")
        if execution == "numpy":
            bad = _first_beyond(values[:, None], self.end if limited else INFINITY)
            if bad == WHOLE:
                with np.errstate(over="ignore"):
                    bits[...] = self.encode(values)
            return bad
        drive, whole = self.compiled(tensor_type, limited=limited), len(values) - len(values) % RUN
        bad = int(drive(values[:whole], bits[:whole], _streams(bits, large)))
        if bad != WHOLE or whole == len(values):
            return bad
        rest, numbers = np.zeros(RUN, np.float32), np.empty(RUN, bits.dtype)
        rest[: len(values) - whole] = values[whole:]
        bad = drive(rest, numbers, False)
        bits[whole:] = numbers[: len(values) - whole]
        return WHOLE if bad == WHOLE else whole


@dataclass(frozen=True)
class WeightedSearch:
    """A block in every lane, with an importance weight for each column of a row."""

    quantize: Callable[[Rows, Rows, Rows, Rows], None]
    """kernel(x, weights, row_mean, block): x and weights (block_size, lanes), row_mean (1, lanes)."""
    needs_row_mean: bool = False
    """Whether the kernel reads the mean square of the whole row; zero otherwise."""

    _SIGNATURE: ClassVar = "R(float32, 1), R(float32, 1), boolean, intp, intp, intp, uint8[::1]"

    def compiled(self, tensor_type: TensorType) -> Any:
        """(x, importance, needs_row_mean, block_size, type_size, lanes, out) -> `WHOLE` or a block."""
        driver = quantize_weighted_groups(self.quantize)
        return compiled(driver, self._SIGNATURE, f"{tensor_type.name.lower()}-quantize_weighted")

    def __call__(
        self, tensor_type: TensorType, x: Floats, importance: Floats, out: Bytes, execution: Execution
    ) -> int:
        """As `Quantizer`; importance: float32 (n_per_row,)."""
        if not x.size:
            return WHOLE
        block_size, type_size = tensor_type.block_size, tensor_type.type_size
        if execution == "numba":
            drive, sizes = self.compiled(tensor_type), (block_size, type_size, lane_count())
            return int(drive(x.reshape(-1), importance, self.needs_row_mean, *sizes, out.reshape(-1)))
        blocks, packed = x.reshape(-1, block_size), out.reshape(-1, type_size)
        bad, per_row = _first_beyond(blocks, INFINITY), x.shape[1] // block_size
        means = _mean_squares(x) if self.needs_row_mean and bad == WHOLE else np.zeros(len(x), np.float32)
        for b in range(0, len(blocks) if bad == WHOLE else 0, CHUNK):
            rows = _transposed(blocks[b : b + CHUNK])
            block = np.empty((type_size, rows.shape[1]), np.uint8)
            which = np.arange(b, b + rows.shape[1])
            weights = np.ascontiguousarray(importance.reshape(per_row, -1)[which % per_row].T)
            with np.errstate(all="ignore"):
                self.quantize(rows, weights, means[which // per_row][None], block)
            packed[b : b + CHUNK] = _transposed(block)
        return bad


def _transposed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The transpose, made in pieces that fit the cache."""
    out = np.empty(array.shape[::-1], array.dtype)
    for first in range(0, len(array), 128):
        out[:, first : first + 128] = array[first : first + 128].T
    return out


def _mean_squares(x: Floats) -> Floats:
    total = np.zeros(len(x), np.float32)
    with np.errstate(all="ignore"):
        for column in x.T:
            total = total + column * column
        return total / np.float32(x.shape[1])
