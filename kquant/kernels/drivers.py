"""The loops that drive a format's kernels over rows of blocks.

Each function here makes the driver of one kernel.  It is itself a kernel: NumPy can run it as it stands, and
`kquant.kernels.compile.compiled` compiles it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from kquant.kernels.language.blocks import BLOCKS, are_below
from kquant.kernels.language.lanes import (
    Lanes,
    Rows,
    as_int,
    bits_of_float,
    fence,
    gather_tile,
    larger,
    load,
    load_run,
    scatter_tile,
    store,
    store_run,
    streamed,
    zeros,
)
from kquant.kernels.language.mark import kernel
from kquant.kernels.language.products import block_from

__all__ = [
    "RUN",
    "WHOLE",
    "decode_numbers",
    "dequantize_blocks",
    "encode_numbers",
    "quantize_groups",
    "quantize_weighted_groups",
    "quantize_whole_blocks",
]

RUN = 64
"""Numbers that are encoded and decoded at a time."""
INFINITE_BITS = 0x7F800000
WHOLE = -1
"""What a driver returns if all values were finite; else the first block of the group that was not.

Drivers with a `limit`, the bits of a float32, stop also at magnitudes that are not below it.
"""


# ---------------------------------------------------------------- one number a block


@cache
def encode_numbers(encode: Callable[[Lanes], Lanes], limit: int) -> Callable[[Rows, Rows, bool], int]:
    """(x, out, exceeds_cache): float32 to numbers, a whole number of runs.

    The limit is part of the kernel: read from an argument it costs a tenth of the time.
    """

    @kernel
    def encode_runs(x: Rows, out: Rows, n: int) -> int:
        for i in range(0, n - RUN + 1, RUN):
            value = load_run(x, i, RUN)
            if not np.all(bits_of_float(np.abs(value)) < limit):
                return i
            store_run(out, i, encode(value))
        return WHOLE

    @kernel
    def drive(x: Rows, out: Rows, exceeds_cache: bool) -> int:
        if exceeds_cache:
            bad: int = encode_runs(streamed(x), streamed(out), x.shape[0])
            fence()
            return bad
        return encode_runs(x, out, x.shape[0])

    return drive


@cache
def decode_numbers(decode: Callable[[Lanes], Lanes]) -> Callable[[Rows, Rows, bool], None]:
    """(data, y, exceeds_cache): the inverse."""

    @kernel
    def decode_runs(data: Rows, y: Rows, n: int) -> None:
        for i in range(0, n - RUN + 1, RUN):
            store_run(y, i, decode(load_run(data, i, RUN)))

    @kernel
    def drive(data: Rows, y: Rows, exceeds_cache: bool) -> None:
        if exceeds_cache:
            decode_runs(streamed(data), streamed(y), data.shape[0])
            fence()
        else:
            decode_runs(data, y, data.shape[0])

    return drive


# ---------------------------------------------------------------- blocks


@cache
def dequantize_blocks(dequantize: Callable[[Rows, Rows], None]) -> Callable[[Rows, Rows, bool], None]:
    """(data, y, exceeds_cache): block by block."""

    @kernel
    def drive(data: Rows, y: Rows, exceeds_cache: bool) -> None:
        if exceeds_cache:
            for b in range(data.shape[0]):
                dequantize(streamed(data[b]), streamed(y[b]))
            fence()
        else:
            for b in range(data.shape[0]):
                dequantize(data[b], y[b])

    return drive


@cache
def quantize_whole_blocks(quantize: Callable[[Rows, Rows], None]) -> Callable[[Rows, Rows, int], int]:
    """(x, out, limit): `BLOCKS` at a time; the last ones overlap those before them."""

    @kernel
    def drive(x: Rows, out: Rows, limit: int) -> int:
        n = x.shape[0]
        for start in range(0, n, BLOCKS):
            first: int = min(start, n - BLOCKS)
            some = block_from(x, first, 0, BLOCKS)
            if not are_below(some, limit):
                return first
            quantize(some, block_from(out, first, 0, BLOCKS))
        return WHOLE

    return drive


@kernel
def gather_tiles(flat: Rows, starts: Rows, rows: Rows) -> None:
    """Row i of `rows` receives element i of the block that starts at starts[lane], in every lane."""
    for lane in range(0, rows.shape[1], 16):
        for i in range(0, rows.shape[0], 16):
            gather_tile(flat, starts, lane, i, rows)


@kernel
def scatter_tiles(rows: Rows, starts: Rows, flat: Rows) -> None:
    """The inverse of `gather_tiles`.  The last tile overlaps the one before it."""
    for lane in range(0, rows.shape[1], 16):
        for i in range(0, rows.shape[0], 16):
            scatter_tile(flat, starts, lane, min(i, rows.shape[0] - 16), rows)


@kernel
def all_below(rows: Rows, limit: int) -> bool:
    """Whether every magnitude is below the float32 of these bits; NaN is not."""
    top = as_int(zeros(rows))
    for i in range(rows.shape[0]):
        top = larger(bits_of_float(np.abs(load(rows, i))), top)
    return np.all(top < limit)  # type: ignore[return-value]


@cache
def quantize_groups(quantize: Callable[[Rows, Rows], None]) -> Callable[..., int]:
    """Blocks in groups of one for each lane; the last block fills up the last group."""

    @kernel
    def drive(x: Rows, block_size: int, type_size: int, lanes: int, out: Rows, limit: int) -> int:
        n = x.shape[0] // block_size
        rows = np.empty((block_size, lanes), np.float32)
        block = np.empty((type_size, lanes), np.uint8)
        sources, targets = np.empty(lanes, np.int64), np.empty(lanes, np.int64)
        for group in range(0, n, lanes):
            for lane in range(lanes):
                b = min(group + lane, n - 1)
                sources[lane], targets[lane] = b * block_size, b * type_size
            gather_tiles(x, sources, rows)
            if not all_below(rows, limit):
                return group
            quantize(rows, block)
            scatter_tiles(block, targets, out)
        return WHOLE

    return drive


@cache
def quantize_weighted_groups(quantize: Callable[[Rows, Rows, Rows, Rows], None]) -> Callable[..., int]:
    """The same with the importance of each column of a row."""

    @kernel
    def drive(
        x: Rows,
        importance: Rows,
        whole_row: bool,
        block_size: int,
        type_size: int,
        lanes: int,
        out: Rows,
    ) -> int:
        n, per_row = x.shape[0] // block_size, importance.shape[0] // block_size
        rows = np.empty((block_size, lanes), np.float32)
        weights = np.empty((block_size, lanes), np.float32)
        row_mean = np.empty((1, lanes), np.float32)
        block = np.empty((type_size, lanes), np.uint8)
        sources, targets = np.empty(lanes, np.int64), np.empty(lanes, np.int64)
        columns = np.empty(lanes, np.int64)
        means = np.empty(n // per_row if whole_row else 0, np.float32)
        if whole_row:
            mean_squares(x, importance.shape[0], lanes, means)
        for group in range(0, n, lanes):
            for lane in range(lanes):
                b = min(group + lane, n - 1)
                sources[lane], targets[lane] = b * block_size, b * type_size
                columns[lane] = b % per_row * block_size
                if whole_row:
                    row_mean[0, lane] = means[b // per_row]
            gather_tiles(x, sources, rows)
            if not all_below(rows, INFINITE_BITS):
                return group
            gather_tiles(importance, columns, weights)
            quantize(rows, weights, row_mean, block)
            scatter_tiles(block, targets, out)
        return WHOLE

    return drive


@kernel
def mean_squares(x: Rows, n_per_row: int, lanes: int, means: Rows) -> None:
    """The mean square of every row, each summed in order in a lane of its own."""
    tile = np.empty((16, lanes), np.float32)
    starts = np.empty(lanes, np.int64)
    result = np.empty((1, lanes), np.float32)
    for first in range(0, means.shape[0], lanes):
        total = zeros(tile)
        for column in range(0, n_per_row, 16):
            for lane in range(lanes):
                starts[lane] = min(first + lane, means.shape[0] - 1) * n_per_row + column
            gather_tiles(x, starts, tile)
            for i in range(16):
                total = total + load(tile, i) * load(tile, i)
        store(result, 0, total / np.float32(n_per_row))
        for lane in range(min(lanes, means.shape[0] - first)):
            means[first + lane] = result[0, lane]
