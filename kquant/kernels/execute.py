"""Carries a room's kernels over arrays, in either execution.

`quantize_rows` and `dequantize_rows` take whole C-contiguous arrays of rows and know nothing of threads.
"numba" gathers as many blocks as a vector has lanes, turns them so that each lies in a lane, and calls
the compiled kernel; "numpy" does the same with a few thousand lanes and the kernel as it stands.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from kquant.kernels.blocks import BLOCKS, are_finite
from kquant.kernels.jit import compiled, lane_count, passes_cache
from kquant.kernels.lanes import (
    Rows,
    as_int,
    bits_of_float,
    larger,
    load,
    load_run,
    past_cache,
    settle,
    store,
    store_run,
    tile_in,
    tile_out,
    zeros,
)
from kquant.kernels.mark import kernel
from kquant.kernels.products import block_from

__all__ = ["Execution", "aligned_empty", "dequantize_rows", "prepare", "quantize_rows"]

Execution: TypeAlias = Literal["numba", "numpy"]
Floats: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]

CHUNK = 1 << 15
"""Blocks that NumPy works on at a time: many enough for its overhead, few enough for the memory."""
RUN = 64
"""Numbers that `encode` and `decode` take at a time when compiled."""
INFINITE_BITS = 0x7F800000
WHOLE = -1
"""What a driver returns if all values were finite; else the first block of the group that was not."""


# ---------------------------------------------------------------- one number a block


@kernel
def encode_numbers(x: Rows, out: Rows, is_far: bool) -> int:
    if is_far:
        bad: int = encode_runs(past_cache(x), past_cache(out), x.shape[0])
        settle()
        return bad
    return encode_runs(x, out, x.shape[0])


@kernel
def encode_runs(x: Rows, out: Rows, n: int) -> int:
    for i in range(0, n - RUN + 1, RUN):
        value = load_run(x, i, RUN)
        if not np.all(bits_of_float(np.abs(value)) < INFINITE_BITS):
            return i
        store_run(out, i, encode(value))
    return WHOLE


@kernel
def decode_numbers(data: Rows, y: Rows, is_far: bool) -> None:
    if is_far:
        decode_runs(past_cache(data), past_cache(y), data.shape[0])
        settle()
    else:
        decode_runs(data, y, data.shape[0])


@kernel
def decode_runs(data: Rows, y: Rows, n: int) -> None:
    for i in range(0, n - RUN + 1, RUN):
        store_run(y, i, decode(load_run(data, i, RUN)))


def encode(value: Any) -> Any:
    """Stands for a room's `encode`."""


def decode(bits: Any) -> Any:
    """Stands for a room's `decode`."""


# ---------------------------------------------------------------- blocks


def dequantize(block: Rows, y: Rows) -> None:
    """Stands for a room's `dequantize`."""


def quantize(x: Rows, block: Rows) -> None:
    """Stands for a room's `quantize`."""


def quantize_blocks(x: Rows, block: Rows) -> None:
    """Stands for a room's `quantize_blocks`."""


def quantize_weighted(x: Rows, weights: Rows, row_mean: Rows, block: Rows) -> None:
    """Stands for a room's `quantize_weighted`."""


@kernel
def dequantize_blocks(data: Rows, y: Rows, is_far: bool) -> None:
    if is_far:
        for b in range(data.shape[0]):
            dequantize(past_cache(data[b]), past_cache(y[b]))
        settle()
    else:
        for b in range(data.shape[0]):
            dequantize(data[b], y[b])


@kernel
def quantize_whole_blocks(x: Rows, out: Rows) -> int:
    """`BLOCKS` at a time; the last ones overlap those before them."""
    n = x.shape[0]
    for start in range(0, n, BLOCKS):
        first: int = min(start, n - BLOCKS)
        some = block_from(x, first, 0)
        if not are_finite(some):
            return first
        quantize_blocks(some, block_from(out, first, 0))
    return WHOLE


@kernel
def take(flat: Rows, starts: Rows, rows: Rows) -> None:
    """Row i of `rows` receives element i of the block that starts at starts[lane], in every lane."""
    for lane in range(0, rows.shape[1], 16):
        for i in range(0, rows.shape[0], 16):
            tile_in(flat, starts, lane, i, rows)


@kernel
def give(rows: Rows, starts: Rows, flat: Rows) -> None:
    """The inverse of `take`.  The last tile overlaps the one before it."""
    for lane in range(0, rows.shape[1], 16):
        for i in range(0, rows.shape[0], 16):
            tile_out(flat, starts, lane, min(i, rows.shape[0] - 16), rows)


@kernel
def all_finite(rows: Rows) -> bool:
    top = as_int(zeros(rows))
    for i in range(rows.shape[0]):
        top = larger(bits_of_float(np.abs(load(rows, i))), top)
    return np.all(top < INFINITE_BITS)  # type: ignore[return-value]


@kernel
def quantize_groups(x: Rows, block_size: int, type_size: int, lanes: int, out: Rows) -> int:
    """Blocks in groups of one for each lane; the last block fills up the last group."""
    n = x.shape[0] // block_size
    rows = np.empty((block_size, lanes), np.float32)
    block = np.empty((type_size, lanes), np.uint8)
    sources, targets = np.empty(lanes, np.int64), np.empty(lanes, np.int64)
    for group in range(0, n, lanes):
        for lane in range(lanes):
            b = min(group + lane, n - 1)
            sources[lane], targets[lane] = b * block_size, b * type_size
        take(x, sources, rows)
        if not all_finite(rows):
            return group
        quantize(rows, block)
        give(block, targets, out)
    return WHOLE


@kernel
def quantize_weighted_groups(
    x: Rows,
    importance: Rows,
    whole_row: bool,
    block_size: int,
    type_size: int,
    lanes: int,
    out: Rows,
) -> int:
    """The same with the importance of each column of a row."""
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
        take(x, sources, rows)
        if not all_finite(rows):
            return group
        take(importance, columns, weights)
        quantize_weighted(rows, weights, row_mean, block)
        give(block, targets, out)
    return WHOLE


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
            take(x, starts, tile)
            for i in range(16):
                total = total + load(tile, i) * load(tile, i)
        store(result, 0, total / np.float32(n_per_row))
        for lane in range(min(lanes, means.shape[0] - first)):
            means[first + lane] = result[0, lane]


# ---------------------------------------------------------------- doors


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`np.empty` that starts at a multiple of 64 bytes: stores as wide as that cross no cache line."""
    wanted = np.dtype(dtype)
    n_bytes = math.prod(shape) * wanted.itemsize
    memory = np.empty(n_bytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + n_bytes].view(wanted).reshape(shape)


def _machine(room: ModuleType, job: str) -> Any:
    """The compiled driver for a room: job is "quantize", "quantize_weighted" or "dequantize"."""
    name = f"{room.TYPE.name.lower()}-{job}"
    if hasattr(room, "encode"):
        number = f"uint{8 * room.TYPE.type_size}"
        if job == "dequantize":
            signature = f"R({number}, 1), float32[::1], boolean"
            return compiled(decode_numbers, signature, name, decode=room.decode)
        signature = f"R(float32, 1), {number}[::1], boolean"
        return compiled(encode_numbers, signature, name, encode=room.encode)
    if job == "dequantize":
        signature = "R(uint8, 2), float32[:, ::1], boolean"
        return compiled(dequantize_blocks, signature, name, dequantize=room.dequantize)
    if job == "quantize" and hasattr(room, "quantize_blocks"):
        signature = "R(float32, 2), uint8[:, ::1]"
        return compiled(quantize_whole_blocks, signature, name, quantize_blocks=room.quantize_blocks)
    if job == "quantize":
        signature = "R(float32, 1), intp, intp, intp, uint8[::1]"
        return compiled(quantize_groups, signature, name, quantize=room.quantize)
    signature = "R(float32, 1), R(float32, 1), boolean, intp, intp, intp, uint8[::1]"
    return compiled(quantize_weighted_groups, signature, name, quantize_weighted=room.quantize_weighted)


def prepare(room: ModuleType, job: str) -> None:
    """Have a compiled kernel ready: out of the cache, or compiled now."""
    _machine(room, job)


def _is_far(out: npt.NDArray[Any], large: bool) -> bool:
    """Whether results are stored past the caches: only whole lines can be."""
    return large and passes_cache() and not out.ctypes.data % 64


def quantize_rows(
    room: ModuleType,
    x: Floats,
    importance: Floats | None,
    out: Bytes,
    execution: Execution,
    *,
    large: bool = False,
) -> int:
    """float32 (n_rows, n_per_row) to uint8 (n_rows, row_bytes), both C-contiguous.

    `large`: `out` is part of more than stays in a cache.

    Returns `WHOLE`, or the index of a block before which all values were finite, where some are not.
    """
    if not x.size:
        return WHOLE
    flat, packed = x.reshape(-1), out.reshape(-1)
    block_size, type_size = room.TYPE.block_size, room.TYPE.type_size
    if hasattr(room, "encode"):
        return _encode(room, flat, packed.view(f"<u{type_size}"), execution, large)
    if importance is None or room.quantize_weighted is None:
        if execution == "numpy":
            return _quantize_numpy(room, x, None, out)
        if hasattr(room, "quantize_blocks"):
            return _quantize_whole_blocks(room, flat.reshape(-1, block_size), packed.reshape(-1, type_size))
        drive = _machine(room, "quantize")
        return int(drive(flat, block_size, type_size, lane_count(), packed))
    if execution == "numpy":
        return _quantize_numpy(room, x, importance, out)
    drive = _machine(room, "quantize_weighted")
    return int(drive(flat, importance, room.WHOLE_ROW, block_size, type_size, lane_count(), packed))


def dequantize_rows(
    room: ModuleType, data: Bytes, out: Floats, execution: Execution, *, large: bool = False
) -> None:
    """uint8 (n_rows, row_bytes) to float32 (n_rows, n_per_row), both C-contiguous; `large` as above."""
    if not out.size:
        return
    block_size, type_size = room.TYPE.block_size, room.TYPE.type_size
    if hasattr(room, "decode"):
        _decode(room, data.reshape(-1).view(f"<u{type_size}"), out.reshape(-1), execution, large)
        return
    blocks, values = data.reshape(-1, type_size), out.reshape(-1, block_size)
    if execution == "numba":
        _machine(room, "dequantize")(blocks, values, _is_far(values, large))
        return
    for b in range(0, len(blocks), CHUNK):
        with np.errstate(all="ignore"):
            room.dequantize(blocks[b : b + CHUNK], values[b : b + CHUNK])


def _quantize_whole_blocks(room: ModuleType, blocks: Floats, packed: Bytes) -> int:
    drive, n = _machine(room, "quantize"), len(blocks)
    if n >= BLOCKS:
        return int(drive(blocks, packed))
    some = np.empty((BLOCKS, room.TYPE.type_size), np.uint8)
    bad = int(drive(np.resize(blocks, (BLOCKS, room.TYPE.block_size)), some))
    packed[...] = some[:n]
    return bad


def _quantize_numpy(room: ModuleType, x: Floats, importance: Floats | None, out: Bytes) -> int:
    block_size, type_size = room.TYPE.block_size, room.TYPE.type_size
    blocks, packed = x.reshape(-1, block_size), out.reshape(-1, type_size)
    if not (np.isfinite(x.min()) and np.isfinite(x.max())):
        return int(np.flatnonzero(~np.isfinite(blocks).all(axis=1))[0])
    per_row = x.shape[1] // block_size
    for b in range(0, len(blocks), CHUNK):
        if importance is None and hasattr(room, "quantize_blocks"):
            with np.errstate(all="ignore"):
                room.quantize_blocks(blocks[b : b + CHUNK], packed[b : b + CHUNK])
            continue
        rows = _turned(blocks[b : b + CHUNK])
        block = np.empty((type_size, rows.shape[1]), np.uint8)
        with np.errstate(all="ignore"):
            if importance is None:
                room.quantize(rows, block)
            else:
                which = np.arange(b, b + rows.shape[1])
                weights = np.ascontiguousarray(importance.reshape(per_row, -1)[which % per_row].T)
                first, last = which[0] // per_row, which[-1] // per_row
                means = (
                    _mean_squares_numpy(x[first : last + 1]) if room.WHOLE_ROW else np.zeros(1, np.float32)
                )
                row_mean = means[(which // per_row - first) % len(means)]
                room.quantize_weighted(rows, weights, row_mean[None], block)
        packed[b : b + CHUNK] = _turned(block)
    return WHOLE


def _turned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The transpose, made in pieces that fit the cache."""
    turned = np.empty(array.shape[::-1], array.dtype)
    for first in range(0, len(array), 128):
        turned[:, first : first + 128] = array[first : first + 128].T
    return turned


def _mean_squares_numpy(x: Floats) -> Floats:
    total = np.zeros(len(x), np.float32)
    for column in x.T:
        total = total + column * column
    return total / np.float32(x.shape[1])


def _encode(room: ModuleType, x: Floats, out: npt.NDArray[Any], execution: Execution, large: bool) -> int:
    if execution == "numpy":
        if not np.isfinite(x).all():
            return int(np.flatnonzero(~np.isfinite(x))[0])
        out[...] = room.encode(x)
        return WHOLE
    drive, whole = _machine(room, "quantize"), len(x) - len(x) % RUN
    bad = drive(x[:whole], out[:whole], _is_far(out, large))
    if bad != WHOLE or whole == len(x):
        return int(bad)
    rest, numbers = np.zeros(RUN, np.float32), np.empty(RUN, out.dtype)
    rest[: len(x) - whole] = x[whole:]
    bad = drive(rest, numbers, False)
    out[whole:] = numbers[: len(x) - whole]
    return WHOLE if bad == WHOLE else whole


def _decode(room: ModuleType, data: npt.NDArray[Any], out: Floats, execution: Execution, large: bool) -> None:
    if execution == "numpy":
        out[...] = room.decode(data.astype(np.int32))
        return
    drive, whole = _machine(room, "dequantize"), len(data) - len(data) % RUN
    drive(data[:whole], out[:whole], _is_far(out, large))
    if whole < len(data):
        numbers, rest = np.zeros(RUN, data.dtype), np.empty(RUN, np.float32)
        numbers[: len(data) - whole] = data[whole:]
        drive(numbers, rest, False)
        out[whole:] = rest[: len(data) - whole]
