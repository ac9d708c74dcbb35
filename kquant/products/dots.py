"""Dot products of packed rows, without unpacking them to floats: integers are multiplied inside the blocks.

Each room names its partner, `VEC_DOT_TYPE`, and has three kernels: `unpack_scales` and `unpack_levels`
unpack a block of each of some rows to bytes, `add` multiplies these with blocks of activations.  Types whose
block is one number are decoded.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kquant.arrays.codec import dequantize, execution_of, packed_rows
from kquant.errors import ShapeError, UnsupportedTypeError
from kquant.formats import format_of
from kquant.formats.base import NumberDot
from kquant.kernels.execute import Bytes, Execution, Floats
from kquant.kernels.language.products import ROWS
from kquant.products.engine import activations_of, is_far, multiply
from kquant.products.overflow import refuse_overflow
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
    *,
    execution: Execution | None = None,
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
        execution: As for `kquant.quantize`.

    Returns:
        float32 of the broadcast shape.

    Raises:
        ShapeError: Not bytes, not whole blocks, rows of different lengths, or axes that do not broadcast.
        UnsupportedTypeError: `atype` is not the partner of `wtype`, or there is none.
        UnknownTypeError: No such type.
        OutOfRangeError: A result is beyond float32, though all numbers are finite.

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
    codec = format_of(weight_type)
    dot = _dot_numbers if isinstance(codec.dot, NumberDot) else _dot_blocks
    products = dot(weights, activations, weight_type, how)
    return refuse_overflow(products, "vec_dot", (weights, weight_type), (activations, partner))


def _length(packed: Bytes, tensor_type: TensorType) -> int:
    return int(packed.shape[-1] // tensor_type.type_size * tensor_type.block_size)


def _dot_blocks(w: Bytes, a: Bytes, tensor_type: TensorType, execution: Execution) -> Floats:
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
    _dot_matrices(rows, columns, out, tensor_type, execution)
    return out.reshape([shape[i] for i in order]).transpose(np.argsort(order))


def _dot_matrices(w: Bytes, a: Bytes, out: Floats, tensor_type: TensorType, execution: Execution) -> None:
    """out (n, columns, rows) of w (n, rows, row_bytes) and a (n, columns, row_bytes)."""
    codec, partner, far = format_of(tensor_type), vec_dot_type(tensor_type), is_far(w)
    if out.shape[1:] != (1, 1):
        for some, others, products in zip(w, a, out, strict=True):
            multiply(codec, some, activations_of(others, partner), products, execution, far=far)
        return
    for first in range(0, len(out), ROWS):  # single rows with single columns: the diagonal of some of them
        here = slice(first, first + ROWS)
        products = np.empty((len(w[here]),) * 2, np.float32)
        multiply(codec, w[here, 0], activations_of(a[here, 0], partner), products, execution, far=far)
        out[here, 0, 0] = products.diagonal()


def _dot_numbers(w: Bytes, a: Bytes, tensor_type: TensorType, execution: Execution) -> Floats:
    """Sums in double precision, as ggml's."""
    values = (dequantize(rows, tensor_type, execution=execution) for rows in (w, a))
    with np.errstate(all="ignore"):
        sums: Floats = np.einsum("...i,...i->...", *values, dtype=np.float64).astype(np.float32)
    return sums
