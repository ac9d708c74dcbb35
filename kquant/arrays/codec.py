"""`quantize` and `dequantize`: checks, memory layouts, threads.

Nothing is checked again in the formats and kernels that these functions call.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from kquant._floats import as_numbers
from kquant.arrays.overflow import quantize_checked
from kquant.arrays.validation import check_finite
from kquant.errors import (
    ImatrixError,
    NonFiniteError,
    OptionError,
    OutOfRangeError,
    ShapeError,
    UnsupportedTypeError,
)
from kquant.formats import format_of, has_format
from kquant.kernels.availability import jit_is_disabled
from kquant.kernels.execute import (
    CHUNK,
    WHOLE,
    Bytes,
    Execution,
    Floats,
    aligned_empty,
)
from kquant.parallel.pool import Pool, pool_of
from kquant.types import TensorType

__all__ = [
    "check_out",
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
    pool: Pool | None = None,
    out: Bytes | None = None,
    check: bool = True,
) -> Bytes:
    """Pack rows of floats, byte for byte as `ggml_quantize_chunk` does.

    Args:
        x: Shape (..., n_per_row), any memory layout and any dtype of real numbers, also bfloat16 and
            float8 of ml_dtypes; what is not float32 is rounded to it first.
        type: The tensor type to pack into.
        imatrix: Importance of each column, shape (n_per_row,); None for the search without weights.
            Ignored, as by ggml, for the types that do not search.
        threads: At most so many; None for one per core.  The result does not depend on it.
        execution: "numba" (compiled) or "numpy" (the same kernels as they stand, slower, nothing to
            compile); None for what the environment variable `KQUANT_EXECUTION` says, else "numba".
        check: Refuse finite values that the type cannot hold.  Without, their blocks are as ggml writes
            them, and unpack to NaN or infinity.
        pool: Threads of one's own; None for those of the process.
        out: Where the result goes: uint8 of its shape, any memory layout; returned.

    Returns:
        uint8 of shape (..., row_bytes).

    Raises:
        ShapeError: The block size does not divide n_per_row, or `imatrix` has another length.
        NonFiniteError: A value or a weight is NaN or infinite, or too large for float32.
        ImatrixError: A weight is negative.
        OutOfRangeError: A value is too large for the type, such as 1e5 for F16; a NonFiniteError, too.
        OptionError: `threads` is less than 1, `pool` is no open pool, or there is no such execution.
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
    codec, how, workers = format_of(tensor_type), execution_of(execution), pool_of(pool)
    values = as_numbers(x)
    if values.ndim == 0:
        raise ShapeError(f"{tensor_type.name}: expected rows of floats, got a single number")
    n_per_row = values.shape[-1]
    given, out = out, _result(out, (*values.shape[:-1], tensor_type.row_bytes(n_per_row)), np.uint8, values)
    importance = None if imatrix is None else _importance(imatrix, n_per_row)
    if not values.size:
        return out if given is None else given
    rows, packed = values.reshape(-1, n_per_row), out.reshape(-1, out.shape[-1])

    def slab(first: int, last: int) -> None:
        x, y, large = _as_float32(rows[first:last]), packed[first:last], out.nbytes > LARGE
        overflow = None
        if check:
            block, overflow = quantize_checked(codec, x, importance, y, how, large=large)
        else:
            block = codec.quantize_rows(x, importance, y, how, large=large)
        if block != WHOLE:
            _refuse(tensor_type, rows[first:last], first, values.shape)
        if overflow:
            place = _index(first * n_per_row + overflow.element, values.shape)
            raise OutOfRangeError(overflow.sentence(f"at index {place}"))

    as_they_are = values.dtype == np.float32 and values.flags.c_contiguous
    step = max(1, slab_elements(how) // n_per_row)
    most = LARGEST_SLAB // n_per_row if as_they_are else step  # what must be copied first stays in the cache
    workers.run(slab, len(rows), step, most=most, threads=threads)
    return _returned(out, given)


def dequantize(
    data: npt.ArrayLike,
    type: TensorType | str | int,
    threads: int | None = None,
    *,
    execution: Execution | None = None,
    pool: Pool | None = None,
    out: Floats | None = None,
) -> Floats:
    """Unpack rows to float32, bit for bit as ggml does.

    Args:
        data: uint8 of shape (..., row_bytes), any memory layout.
        type: The tensor type that it is packed in.
        threads: At most so many; None for one per core.
        execution, pool: As for `quantize`.
        out: Where the result goes: float32 of its shape, any memory layout; returned.

    Returns:
        float32 of shape (..., n_per_row).

    Raises:
        ShapeError: Not bytes, or row_bytes is not a whole number of blocks.
        UnknownTypeError, UnsupportedTypeError: No such type, or one that kquant has no codec for.
        OptionError: As for `quantize`.

    Source: `to_float` of `type_traits` in
    https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml.c

    >>> import numpy as np, kquant
    >>> kquant.dequantize(np.zeros((3, 34), np.uint8), "Q8_0").shape
    (3, 32)
    """
    tensor_type = TensorType.of(type)
    codec, how, workers = format_of(tensor_type), execution_of(execution), pool_of(pool)
    bytes_ = packed_rows(data, tensor_type)
    n_per_row = bytes_.shape[-1] // tensor_type.type_size * tensor_type.block_size
    given, out = out, _result(out, (*bytes_.shape[:-1], n_per_row), np.float32, bytes_)
    if not out.size:
        return out if given is None else given
    packed, rows = bytes_.reshape(-1, bytes_.shape[-1]), out.reshape(-1, n_per_row)

    def slab(first: int, last: int) -> None:
        aligned = np.require(packed[first:last], requirements=["C", "A"])
        codec.dequantize_rows(aligned, rows[first:last], how, large=out.nbytes > LARGE)

    step, most = (max(1, size // n_per_row) for size in (slab_elements(how), LARGEST_SLAB))
    workers.run(slab, len(rows), step, most=most, threads=threads)
    return _returned(out, given)


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

    >>> import numpy as np, kquant
    >>> kquant.validate(np.array([0x00, 0x7c, 0x00, 0x3c], np.uint8), "F16")
    Traceback (most recent call last):
        ...
    kquant.errors.InvalidDataError: F16: expected finite numbers, got NaN or infinity for x in row 0, block 0
    """
    tensor_type = TensorType.of(type)
    packed = packed_rows(data, tensor_type)
    if packed.size:
        check_finite(packed.reshape(-1, packed.shape[-1]), tensor_type)


def execution_of(asked: Execution | None) -> Execution:
    """The execution asked for, or the one that the environment variable `KQUANT_EXECUTION` names.

    By default it is Numba's, and NumPy's where NUMBA_DISABLE_JIT forbids to compile.  Raises `OptionError`
    for another name, and if Numba is asked for and cannot compile.
    """
    named = asked or os.environ.get("KQUANT_EXECUTION")
    if named not in ("numba", "numpy", "", None):
        where = "execution" if asked else "the environment variable KQUANT_EXECUTION"
        raise OptionError(f"{where}: expected 'numba' or 'numpy', got {named!r}")
    if named == "numpy" or (not named and jit_is_disabled()):
        return "numpy"
    if jit_is_disabled():
        raise OptionError("execution: expected that Numba may compile, got NUMBA_DISABLE_JIT")
    return "numba"


def slab_elements(execution: Execution) -> int:
    """Elements that a thread takes at a time: what fits the cache, or what outweighs NumPy's overhead."""
    return 1 << 18 if execution == "numba" else CHUNK << 8


def _result(
    given: npt.NDArray[Any] | None, shape: tuple[int, ...], dtype: type[Any], source: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """The caller's array for a result; a new one if there is none, its elements lie apart, or the source's do
    not lie elsewhere."""
    if given is not None:
        check_out(given, shape, dtype)
        if given.flags.carray and not np.may_share_memory(given, source):
            return given
    return aligned_empty(shape, dtype)


def _returned(out: npt.NDArray[Any], given: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    if given is None or given is out:
        return out
    given[...] = out
    return given


def check_out(out: Any, shape: tuple[int, ...], dtype: type[Any]) -> None:
    """Raises `ShapeError` or `UnsupportedTypeError` for an array that a result cannot be written to."""
    if not isinstance(out, np.ndarray) or out.dtype != dtype or not out.flags.writeable:
        got = type(out).__name__
        if isinstance(out, np.ndarray):
            got = f"{out.dtype}{'' if out.flags.writeable else ', read-only'}"
        raise UnsupportedTypeError(
            f"out: expected an array of {np.dtype(dtype)} that can be written to, got {got}"
        )
    if out.shape != shape:
        raise ShapeError(f"out: expected the result's shape {shape}, got {out.shape}")


def _as_float32(values: npt.NDArray[Any]) -> Floats:
    with np.errstate(over="ignore"):  # what becomes infinite is refused by its block
        return np.require(values, np.float32, ["C", "A"])


def _importance(imatrix: npt.ArrayLike, n_per_row: int) -> Floats:
    weights = as_numbers(imatrix, "imatrix")
    if weights.shape != (n_per_row,):
        raise ShapeError(f"imatrix: expected one weight for each of {n_per_row} columns, got {weights.shape}")
    weights = _as_float32(weights)
    if not np.isfinite(weights).all():
        column = int(np.flatnonzero(~np.isfinite(weights))[0])
        raise NonFiniteError(f"imatrix: expected finite weights, got {weights[column]} for column {column}")
    if (weights < 0).any():
        column = int(np.flatnonzero(weights < 0)[0])
        raise ImatrixError(
            f"imatrix: expected weights of 0 or more, got {weights[column]:.6g} for column {column}"
        )
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
    raise NonFiniteError(
        f"{tensor_type.name}: expected finite float32 values, got {rows[row, column]} "
        f"at index {_index((first + row) * shape[-1] + column, shape)}"
    )


def _index(element: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(element, shape))
