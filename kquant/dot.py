"""Dot products of packed rows, without unpacking them: integers are multiplied inside the blocks.

Each room names its partner, `VEC_DOT_TYPE`, and has the kernel `dot`: a block of weights and one of
activations give a run of partial sums in float32.  Types whose block is one number are decoded.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from kquant.codec import dequantize, execution_of, packed_rows
from kquant.errors import ShapeError, UnsupportedTypeError
from kquant.formats import room
from kquant.kernels.execute import Bytes, Execution, Floats
from kquant.kernels.jit import compiled, kernel
from kquant.kernels.lanes import Rows, as_float
from kquant.kernels.products import no_sum, sum_lanes
from kquant.types import TensorType

__all__ = ["blocks_of_rows", "dot", "dot_kernel", "dot_numpy", "vec_dot", "vec_dot_type"]

PAIRS = 1 << 12
"""Rows that NumPy works on at a time."""


def dot(block: Rows, a: Rows) -> Any:
    """Stands for a room's `dot`."""


@kernel
def dot_pairs(w: Rows, a: Rows, w_rows: Rows, a_rows: Rows, out: Rows) -> None:
    """out[i] = row w_rows[i] of w times row a_rows[i] of a; rows are (blocks, type_size)."""
    for i in range(out.shape[0]):
        row, partner = w_rows[i], a_rows[i]
        total = as_float(no_sum(8))
        for b in range(w.shape[1]):
            total = total + dot(w[row, b], a[partner, b])
        out[i] = sum_lanes(total)


def vec_dot_type(type: TensorType | str | int) -> TensorType:
    """The type that activations are packed in, to be multiplied with rows of this type.

    Raises `UnsupportedTypeError` for types that kquant cannot multiply.

    >>> from kquant.dot import vec_dot_type
    >>> vec_dot_type("Q4_K"), vec_dot_type("Q4_1")
    (TensorType.Q8_K, TensorType.Q8_1)
    """
    tensor_type = TensorType.of(type)
    partner: TensorType | None = getattr(room(tensor_type), "VEC_DOT_TYPE", None)
    if partner is None:
        raise UnsupportedTypeError(
            f"{tensor_type.name}: a type for activations; expected a type that weights are stored in"
        )
    return partner


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
            what `kquant.dot.vec_dot_type` says.
        execution: As for `kquant.quantize`.

    Returns:
        float32 of the broadcast shape.

    Raises:
        ShapeError: Not bytes, not whole blocks, rows of different lengths, or axes that do not broadcast.
        UnsupportedTypeError: `atype` is not the partner of `wtype`, or there is none.
        UnknownTypeError: No such type.

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
    codec = room(weight_type)
    if hasattr(codec, "decode"):
        return _dot_numbers(weights, activations, weight_type, how)
    out = np.empty(shape, np.float32)
    pairs = _rows(weights, shape), _rows(activations, shape)
    blocks = blocks_of_rows(weights, weight_type), blocks_of_rows(activations, partner)
    if how == "numpy":
        flat = out.reshape(-1)
        for first in range(0, len(flat), PAIRS):
            some = slice(first, first + PAIRS)
            dot_numpy(codec, blocks[0][pairs[0][some]], blocks[1][pairs[1][some]], flat[some])
    else:
        dot_kernel(codec)(*blocks, *pairs, out.reshape(-1))
    return out


def dot_kernel(codec: ModuleType) -> Any:
    """The compiled `dot_pairs` of a room."""
    signature = "R(uint8, 3), R(uint8, 3), R(intp, 1), R(intp, 1), float32[::1]"
    return compiled(dot_pairs, signature, f"{codec.TYPE.name.lower()}-dot", dot=codec.dot)


def _length(packed: Bytes, tensor_type: TensorType) -> int:
    return int(packed.shape[-1] // tensor_type.type_size * tensor_type.block_size)


def blocks_of_rows(packed: Bytes, tensor_type: TensorType) -> Bytes:
    """(..., row_bytes) as C-contiguous (rows, blocks, type_size)."""
    n_blocks = packed.shape[-1] // tensor_type.type_size
    return np.ascontiguousarray(packed).reshape(-1, n_blocks, tensor_type.type_size)


def _rows(packed: Bytes, shape: tuple[int, ...]) -> npt.NDArray[np.intp]:
    """Which row of `packed` each element of the broadcast shape needs."""
    n_rows = int(np.prod(packed.shape[:-1], dtype=np.intp))
    rows = np.broadcast_to(np.arange(n_rows).reshape(packed.shape[:-1]), shape)
    return np.ascontiguousarray(rows, np.intp).reshape(-1)


def dot_numpy(codec: ModuleType, w: Bytes, a: Bytes, out: Floats) -> None:
    """A room's `dot` as it stands: out (...) of blocks (..., blocks, type_size) that broadcast."""
    total = np.zeros((*out.shape, 8), np.float32)
    with np.errstate(all="ignore"):
        for b in range(w.shape[-2]):
            total = total + codec.dot(w[..., b, :], a[..., b, :])
        out[...] = sum_lanes(total)


def _dot_numbers(w: Bytes, a: Bytes, tensor_type: TensorType, execution: Execution) -> Floats:
    """Sums in double precision, as ggml's."""
    values = (dequantize(rows, tensor_type, execution=execution) for rows in (w, a))
    with np.errstate(all="ignore"):
        sums: Floats = np.einsum("...i,...i->...", *values, dtype=np.float64).astype(np.float32)
    return sums
