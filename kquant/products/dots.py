"""Dot products of packed rows, without unpacking them to floats: integers are multiplied inside the blocks.

Each format declares its partner, and two kernels that unpack a block of each of some rows: `unpack_scales`
and `unpack_levels`.  The loops that multiply are the same for all.  Types whose block is one number are
decoded.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kquant.arrays.codec import dequantize, execution_of, packed_rows
from kquant.errors import ShapeError, UnsupportedTypeError
from kquant.formats import format_of
from kquant.formats.base import BlockFormat
from kquant.kernels.execute import Bytes, Execution, Floats
from kquant.kernels.language.dot import NumberDot
from kquant.kernels.layout import ROWS
from kquant.parallel.pool import Pool, pool_of, thread_count
from kquant.products._engine import run
from kquant.products._loops import Job, activations_of, is_beyond_cache, multiply
from kquant.products._overflow import refuse_overflow
from kquant.types import TensorType

__all__ = ["vec_dot", "vec_dot_type"]


def vec_dot_type(type: TensorType | str | int) -> TensorType:
    """The type that activations are packed in, to be multiplied with rows of this type.

    Raises `UnsupportedTypeError` for types that kquant cannot multiply.

    >>> from kquant.products.dots import vec_dot_type
    >>> vec_dot_type("Q4_K"), vec_dot_type("Q4_1")
    (TensorType.Q8_K, TensorType.Q8_1)
    """
    tensor_type = TensorType.of(type)
    dot = format_of(tensor_type).dot
    if dot is None:
        raise UnsupportedTypeError(
            f"{tensor_type.name}: a type for activations; expected a type that weights are stored in"
        )
    return dot.partner


def vec_dot(
    w: npt.ArrayLike,
    wtype: TensorType | str | int,
    a: npt.ArrayLike,
    atype: TensorType | str | int,
    threads: int | None = None,
    *,
    execution: Execution | None = None,
    pool: Pool | None = None,
) -> Floats:
    """Dot products of packed rows with packed activations, as ggml's `vec_dot` has them.

    The integer sums inside a block are ggml's exactly; the order in which the blocks' float32
    contributions are added is kquant's own.

    Args:
        w: uint8 of shape (..., row_bytes): the weights.
        wtype: The tensor type that they are packed in.
        a: uint8 of shape (..., row_bytes of its type): the activations.  The axes before the last
            broadcast with those of `w`.
        atype: Q8_K for the k-quants, Q8_0 or Q8_1 for blocks of 32, the same type for F32, F16, BF16:
            what `kquant.products.dots.vec_dot_type` says.
        threads: At most so many; None for one per core.  The result does not depend on it.
        execution, pool: As for `kquant.quantize`.

    Returns:
        float32 of the broadcast shape.

    Raises:
        ShapeError: Not bytes, not whole blocks, rows of different lengths, or axes that do not broadcast.
        UnsupportedTypeError: `atype` is not the partner of `wtype`, or there is none.
        UnknownTypeError: No such type.
        OutOfRangeError: A result is beyond float32, though all numbers are finite.
        OptionError: `threads` is less than 1, or `pool` is no open pool.

    Source: `ggml_vec_dot_q4_K_q8_K_generic` and its neighbours in
    https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-cpu/quants.c

    >>> import numpy as np, kquant
    >>> w = kquant.quantize(np.ones((3, 256), np.float32), "Q4_K")
    >>> a = kquant.quantize(np.ones(256, np.float32), "Q8_K")
    >>> kquant.vec_dot(w, "Q4_K", a, "Q8_K").round()
    array([256., 256., 256.], dtype=float32)
    """
    weight_type, partner, how = TensorType.of(wtype), TensorType.of(atype), execution_of(execution)
    if vec_dot_type(weight_type) is not partner:
        raise UnsupportedTypeError(
            f"{weight_type.name}: expected activations in {vec_dot_type(weight_type).name}, "
            f"got {partner.name}"
        )
    thread_count(threads)
    pool_of(pool)
    weights, activations = packed_rows(w, weight_type), packed_rows(a, partner)
    n = _length(weights, weight_type)
    if n != _length(activations, partner):
        raise ShapeError(
            f"{weight_type.name} · {partner.name}: expected rows of one length, "
            f"got {n} and {_length(activations, partner)} elements"
        )
    try:
        shape = np.broadcast_shapes(weights.shape[:-1], activations.shape[:-1])
    except ValueError:
        raise ShapeError(
            f"{weight_type.name} · {partner.name}: expected axes that broadcast, "
            f"got {weights.shape[:-1]} and {activations.shape[:-1]}"
        ) from None
    if not n or 0 in shape:
        return np.zeros(shape, np.float32)
    if isinstance(format_of(weight_type).dot, NumberDot):
        products = _dot_numbers(weights, activations, weight_type, how)
    else:
        products = _dot_blocks(weights, activations, weight_type, how, threads, pool)
    return refuse_overflow(products, "vec_dot", (weights, weight_type), (activations, partner))


def _length(packed: Bytes, tensor_type: TensorType) -> int:
    return int(packed.shape[-1] // tensor_type.type_size * tensor_type.block_size)


def _dot_blocks(
    w: Bytes,
    a: Bytes,
    tensor_type: TensorType,
    execution: Execution,
    threads: int | None,
    pool: Pool | None,
) -> Floats:
    """As products of matrices: an axis that one of both has counts its rows, one of both counts matrices."""
    n_axes = max(w.ndim, a.ndim) - 1
    w, a = (x.reshape((1,) * (n_axes + 1 - x.ndim) + x.shape) for x in (w, a))
    of_both = [i for i in range(n_axes) if w.shape[i] > 1 < a.shape[i]]
    of_a = [i for i in range(n_axes) if w.shape[i] == 1 < a.shape[i]]
    of_w = [i for i in range(n_axes) if a.shape[i] == 1]
    order = [*of_both, *of_a, *of_w]
    shape = np.broadcast_shapes(w.shape[:-1], a.shape[:-1])
    n, n_columns, n_rows = (int(np.prod([shape[i] for i in axes])) for axes in (of_both, of_a, of_w))
    out = np.empty((n, n_columns, n_rows), np.float32)
    rows = w.transpose(*order, n_axes).reshape(n, n_rows, -1)
    columns = a.transpose(*order, n_axes).reshape(n, n_columns, -1)
    fmt, exceeds_cache = format_of(tensor_type), is_beyond_cache(rows.nbytes)
    if (n_columns, n_rows) == (1, 1):
        _dot_pairs(fmt, rows[:, 0], columns[:, 0], out[:, 0, 0], execution, exceeds_cache)
    else:
        partner = vec_dot_type(tensor_type)
        jobs = [
            Job(fmt, some, activations_of(others, partner), products, exceeds_cache)
            for some, others, products in zip(rows, columns, out, strict=True)
        ]
        run(jobs, execution, threads, pool)
    return out.reshape([shape[i] for i in order]).transpose(np.argsort(order))


def _dot_pairs(
    fmt: BlockFormat, w: Bytes, a: Bytes, out: Floats, execution: Execution, exceeds_cache: bool
) -> None:
    """Row by row: the diagonal of products of some rows with as many columns."""
    for first in range(0, len(out), ROWS):
        here = slice(first, first + ROWS)
        products = np.empty((len(w[here]),) * 2, np.float32)
        given = activations_of(a[here], vec_dot_type(fmt.type))
        multiply(Job(fmt, w[here], given, products, exceeds_cache), execution)
        out[here] = products.diagonal()


def _dot_numbers(w: Bytes, a: Bytes, tensor_type: TensorType, execution: Execution) -> Floats:
    """Sums in double precision, as ggml's."""
    values = (dequantize(rows, tensor_type, execution=execution) for rows in (w, a))
    with np.errstate(all="ignore"):
        sums: Floats = np.einsum("...i,...i->...", *values, dtype=np.float64).astype(np.float32)
    return sums
