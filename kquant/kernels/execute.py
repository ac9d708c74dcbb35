"""Carries a room's kernels over arrays, in either execution.

`quantize_rows` and `dequantize_rows` take whole C-contiguous arrays of rows and know nothing of threads.
"numba" calls the compiled drivers: for a search they gather as many blocks as a vector has lanes, and turn
them so that each lies in a lane.  "numpy" does so with a few thousand lanes and the kernels as they stand.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from kquant.kernels.blocks import BLOCKS
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
from kquant.kernels.jit import compiled, lane_count, passes_cache

__all__ = ["WHOLE", "Execution", "aligned_empty", "dequantize_rows", "prepare", "quantize_rows"]

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
