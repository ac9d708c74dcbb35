"""`quantize` and `dequantize`: checks, memory layouts, threads.

Nothing is checked again in the formats and kernels that these functions call.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from kquant.arrays.validation import check_finite
from kquant.errors import NonFiniteError, OptionError, ShapeError, UnsupportedTypeError
from kquant.formats import format_of, has_format
from kquant.kernels.execute import (
    CHUNK,
    WHOLE,
    Bytes,
    Execution,
    Floats,
    aligned_empty,
)
from kquant.parallel.slabs import available_threads, in_slabs
from kquant.types import TensorType

__all__ = [
    "dequantize",
    "execution_of",
    "has_codec",
    "packed_rows",
    "quantize",
    "slab_elements",
    "validate",
]

LARGE = 12 << 20
"""Bytes of a result that does not stay in a cache."""
LARGEST_SLAB = 1 << 21
"""Elements that a thread takes at a time at most where they need no copy first."""


def has_codec(type: TensorType | str | int) -> bool:
    """Whether kquant can quantize to, and dequantize from, this type.

    >>> from kquant.arrays import codec
    >>> codec.has_codec("Q4_K"), codec.has_codec("IQ2_XXS")
    (True, False)
    """
    return has_format(TensorType.of(type))


def quantize(
    x: npt.ArrayLike,
    type: TensorType | str | int,
    imatrix: npt.ArrayLike | None = None,
    threads: int | None = None,
    *,
    execution: Execution | None = None,
) -> Bytes:
    """Pack rows of floats, byte for byte as `ggml_quantize_chunk` does.

    Args:
        x: Shape (..., n_per_row), any memory layout; what is not float32 is rounded to it first.
        type: The tensor type to pack into.
        imatrix: Importance of each column, shape (n_per_row,); None for the search without weights.
            Ignored, as by ggml, for the types that do not search.
        threads: At most so many; None for one per core.  The result does not depend on it.
        execution: "numba" (compiled) or "numpy" (the same kernels as they stand, slower, nothing to
            compile); None for what the environment variable `KQUANT_EXECUTION` says, else "numba".

    Returns:
        uint8 of shape (..., row_bytes).

    Raises:
        ShapeError: The block size does not divide n_per_row, or `imatrix` has another length.
        NonFiniteError: A value or a weight is NaN or infinite, or too large for float32.
        UnknownTypeError, UnsupportedTypeError: No such type, or one that kquant has no codec for.

    Source: `ggml_quantize_chunk` in
    https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml.c

    >>> import numpy as np, kquant
    >>> x = np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)
    >>> packed = kquant.quantize(x, "Q4_K")
    >>> packed.dtype, packed.shape
    (dtype('uint8'), (2, 144))
    >>> bool(np.abs(kquant.dequantize(packed, "Q4_K") - x).max() < 0.04)
    True
    """
    tensor_type = TensorType.of(type)
    codec, how = format_of(tensor_type), execution_of(execution)
    values = np.asarray(x)
    if values.dtype.kind not in "fiub":
        raise UnsupportedTypeError(f"expected an array of floats, got dtype {values.dtype}")
    if values.ndim == 0:
        raise ShapeError(f"{tensor_type.name}: expected rows of floats, got a single number")
    n_per_row = values.shape[-1]
    out = aligned_empty((*values.shape[:-1], tensor_type.row_bytes(n_per_row)), np.uint8)
    importance = None if imatrix is None else _importance(imatrix, n_per_row)
    if not values.size:
        return out
    rows, packed = values.reshape(-1, n_per_row), out.reshape(-1, out.shape[-1])

    def slab(first: int, last: int) -> None:
        x, y = _as_float32(rows[first:last]), packed[first:last]
        block = codec.quantize_rows(x, importance, y, how, large=out.nbytes > LARGE)
        if block != WHOLE:
            _refuse(tensor_type, rows[first:last], first, values.shape)

    as_they_are = values.dtype == np.float32 and values.flags.c_contiguous
    size = _larger_slabs(threads, values.size, how) if as_they_are else slab_elements(how)
    in_slabs(slab, len(rows), max(1, size // n_per_row), threads)
    return out


def dequantize(
    data: npt.ArrayLike,
    type: TensorType | str | int,
    threads: int | None = None,
    *,
    execution: Execution | None = None,
) -> Floats:
    """Unpack rows to float32, bit for bit as ggml does.

    Args:
        data: uint8 of shape (..., row_bytes), any memory layout.
        type: The tensor type that it is packed in.
        threads: At most so many; None for one per core.
        execution: As for `quantize`.

    Returns:
        float32 of shape (..., n_per_row).

    Raises:
        ShapeError: Not bytes, or row_bytes is not a whole number of blocks.
        UnknownTypeError, UnsupportedTypeError: No such type, or one that kquant has no codec for.

    Source: `to_float` of `type_traits` in
    https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml.c

    >>> import numpy as np, kquant
    >>> kquant.dequantize(np.zeros((3, 34), np.uint8), "Q8_0").shape
    (3, 32)
    """
    tensor_type = TensorType.of(type)
    codec, how = format_of(tensor_type), execution_of(execution)
    bytes_ = packed_rows(data, tensor_type)
    n_per_row = bytes_.shape[-1] // tensor_type.type_size * tensor_type.block_size
    out = aligned_empty((*bytes_.shape[:-1], n_per_row), np.float32)
    if not out.size:
        return out
    packed, rows = bytes_.reshape(-1, bytes_.shape[-1]), out.reshape(-1, n_per_row)

    def slab(first: int, last: int) -> None:
        aligned = np.require(packed[first:last], requirements=["C", "A"])
        codec.dequantize_rows(aligned, rows[first:last], how, large=out.nbytes > LARGE)

    size = _larger_slabs(threads, rows.size, how)
    in_slabs(slab, len(rows), max(1, size // n_per_row), threads)
    return out


def validate(data: npt.ArrayLike, type: TensorType | str | int) -> None:
    """Check that no scale and no value of packed rows is NaN or infinite.

    Args:
        data: uint8 of shape (..., row_bytes).
        type: The tensor type that it is packed in; any that ggml defines.

    Raises:
        InvalidDataError: One is; the message names the field, the row and the block.
        ShapeError: Not bytes, or not a whole number of blocks.
        UnknownTypeError: No such type.

    Source: `ggml_validate_row_data` in
    https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c

    >>> import numpy as np
    >>> from kquant.arrays import codec
    >>> codec.validate(np.array([0x00, 0x7c, 0x00, 0x3c], np.uint8), "F16")
    Traceback (most recent call last):
        ...
    kquant.errors.InvalidDataError: F16: expected finite numbers, got NaN or infinity for x in row 0, block 0
    """
    tensor_type = TensorType.of(type)
    packed = packed_rows(data, tensor_type)
    if packed.size:
        check_finite(packed.reshape(-1, packed.shape[-1]), tensor_type)


def execution_of(asked: Execution | None) -> Execution:
    """The execution asked for, or the one that the environment variable `KQUANT_EXECUTION` names."""
    chosen = asked or os.environ.get("KQUANT_EXECUTION") or "numba"
    if chosen not in ("numba", "numpy"):
        raise OptionError(f"execution: expected 'numba' or 'numpy', got {chosen!r}")
    return chosen  # type: ignore[return-value]


def slab_elements(execution: Execution) -> int:
    """Elements that a thread takes at a time: what fits the cache, or what outweighs NumPy's overhead."""
    return 1 << 18 if execution == "numba" else CHUNK << 8


def _larger_slabs(threads: int | None, n_elements: int, execution: Execution) -> int:
    """Slabs that are not copied first: few, as long as no thread waits for the last of another."""
    share = n_elements // (4 * (threads or available_threads()))
    return max(slab_elements(execution), min(share, LARGEST_SLAB))


def _as_float32(values: npt.NDArray[Any]) -> Floats:
    with np.errstate(over="ignore"):  # what becomes infinite is refused by its block
        return np.require(values, np.float32, ["C", "A"])


def _importance(imatrix: npt.ArrayLike, n_per_row: int) -> Floats:
    weights = np.asarray(imatrix)
    if weights.dtype.kind not in "fiub":
        raise UnsupportedTypeError(f"imatrix: expected an array of floats, got dtype {weights.dtype}")
    if weights.shape != (n_per_row,):
        raise ShapeError(f"imatrix: expected one weight for each of {n_per_row} columns, got {weights.shape}")
    weights = _as_float32(weights)
    if not np.isfinite(weights).all():
        column = int(np.flatnonzero(~np.isfinite(weights))[0])
        raise NonFiniteError(f"imatrix: expected finite weights, got {weights[column]} for column {column}")
    return weights


def packed_rows(data: npt.ArrayLike, tensor_type: TensorType) -> Bytes:
    """The data as rows; raises `ShapeError` if `data` is not rows of whole blocks."""
    packed = np.asarray(data)
    if packed.dtype != np.uint8:
        raise ShapeError(f"{tensor_type.name}: expected packed rows of uint8, got dtype {packed.dtype}")
    if tensor_type.removed:
        raise UnsupportedTypeError(f"{tensor_type.full_name}: ggml has removed this type")
    if packed.ndim == 0 or packed.shape[-1] % tensor_type.type_size:
        got = "a single byte" if packed.ndim == 0 else f"{packed.shape[-1]} bytes"
        raise ShapeError(
            f"{tensor_type.name}: expected rows of a multiple of {tensor_type.type_size} bytes, got {got}"
        )
    return packed


def _refuse(tensor_type: TensorType, rows: npt.NDArray[Any], first: int, shape: tuple[int, ...]) -> None:
    finite = np.isfinite(_as_float32(rows))
    row, column = (int(i) for i in np.argwhere(~finite)[0])
    where = np.unravel_index((first + row) * shape[-1] + column, shape)
    raise NonFiniteError(
        f"{tensor_type.name}: expected finite float32 values, got {rows[row, column]} "
        f"at index {tuple(int(i) for i in where)}"
    )
