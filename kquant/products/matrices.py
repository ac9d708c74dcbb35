"""Matrix products with packed rows: the activations are packed once, then integers are multiplied.

`matmul(w, x)` is `w @ x` with the packed rows in the place of an array's: (..., m, k) @ (k,),
(..., m, k) @ (k, n), and stacks of matrices (experts) by NumPy's rules.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kquant._floats import as_numbers
from kquant.arrays.codec import dequantize, execution_of, quantize
from kquant.errors import ShapeError, UnsupportedTypeError
from kquant.formats import format_of
from kquant.formats.base import NumberDot
from kquant.kernels.execute import Bytes, Execution, Floats
from kquant.kernels.language.products import ROWS
from kquant.parallel.slabs import in_slabs, thread_count
from kquant.products.dots import vec_dot_type
from kquant.products.engine import activations, is_far, multiply
from kquant.products.overflow import refuse_overflow
from kquant.types import TensorType

if TYPE_CHECKING:
    from kquant.arrays.tensor import QuantizedTensor

__all__ = ["matmul"]

SLAB = 1 << 24
"""Products of elements that a thread takes at a time at least."""
SLABS = 8
"""For each of several threads, so that none waits for another for long."""
ALONE = 3 << 24
"""Products of elements that a thread has done, in about a millisecond, before a helper is of use."""
UNPACKING = 4
"""What unpacking an element costs, in products."""


def matmul(
    w: QuantizedTensor,
    x: npt.ArrayLike,
    threads: int | None = None,
    *,
    execution: Execution | None = None,
) -> Floats:
    """`w @ x` for packed rows: float32 in, float32 out, and the weights stay packed.

    The activations, the columns of `x`, are packed once in the partner type of the weights (Q8_K, Q8_0 or
    Q8_1), which rounds them to 8 bits; F32, F16 and BF16 are decoded instead, some rows at a time.

    Args:
        w: Shape (..., m, k), or (k,) for a single row.
        x: Floats of shape (k,) or (..., k, n), in any memory layout.
        threads: At most so many; None for one per core.  The result does not depend on it.
        execution: As for `kquant.quantize`.

    Returns:
        float32 of the shape that `np.matmul` gives.

    Raises:
        ShapeError: The shapes do not fit `np.matmul`'s rules.
        NonFiniteError: An activation is NaN or infinite.
        OutOfRangeError: An activation is too large to be packed, or a result is beyond float32, though all
            numbers are finite.
        UnsupportedTypeError: `x` is no array of floats, or kquant cannot multiply the type of `w`.

    Source: `ggml_compute_forward_mul_mat` in
    https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-cpu/ggml-cpu.c

    >>> import numpy as np, kquant
    >>> w = kquant.QuantizedTensor.from_numpy(np.eye(4, 256, dtype=np.float32), "Q8_0")
    >>> kquant.matmul(w, np.arange(256, dtype=np.float32)).round()
    array([0., 1., 2., 3.], dtype=float32)
    >>> kquant.matmul(w, np.ones((256, 5), np.float32)).shape
    (4, 5)
    """
    if not isinstance(getattr(w, "type", None), TensorType):
        raise UnsupportedTypeError(f"expected packed weights in a QuantizedTensor, got {type(w).__name__}")
    how, columns = execution_of(execution), _floats(x)
    shape = _result_shape(w, columns)
    # one row of k elements for each column of each matrix of the stack
    rows = columns[None] if columns.ndim == 1 else columns.swapaxes(-1, -2)
    weights = w.data[None] if w.ndim == 1 else w.data
    stack = np.broadcast_shapes(weights.shape[:-2], rows.shape[:-2])
    out = np.zeros((*stack, rows.shape[-2], weights.shape[-2]), np.float32)
    if out.size and w.shape[-1]:
        _fill(out, weights, rows, w.type, threads, how)
    products = out.swapaxes(-1, -2).reshape(shape)
    return refuse_overflow(products, "matmul", (w.data, w.type), (columns, TensorType.F32))


def _fill(
    out: Floats, weights: Bytes, rows: Floats, tensor_type: TensorType, threads: int | None, how: Execution
) -> None:
    """out (..., n, m) of packed weights (..., m, row_bytes) and rows of activations (..., n, k)."""
    codec, partner, stack = format_of(tensor_type), vec_dot_type(tensor_type), out.shape[:-2]
    n, m = out.shape[-2:]
    is_decoded, far = isinstance(codec.dot, NumberDot), is_far(weights)
    packed: npt.NDArray[Any] = rows if is_decoded else quantize(rows, partner, threads=threads, execution=how)
    prepared = [x if is_decoded else activations(codec, x, partner, how) for x in _matrices(packed)]
    each = [
        *zip(
            _repeated(_matrices(weights), weights.shape[:-2], stack),
            _repeated(prepared, packed.shape[:-2], stack),
            _matrices(out),
            strict=True,
        )
    ]
    tiles = -(-m // ROWS)

    def slab(first: int, last: int) -> None:
        """Tiles of rows of all the stack's weights, one after the other."""
        for at in range(first // tiles, -(-last // tiles)):
            here = slice(max(first - at * tiles, 0) * ROWS, min((last - at * tiles) * ROWS, m))
            w, given, y = each[at][0][here], each[at][1], each[at][2][:, here]
            if is_decoded:
                np.matmul(given, dequantize(w, tensor_type, threads=1, execution=how).T, out=y)
            else:
                multiply(codec, w, given, y, how, far=far)

    most = thread_count(threads)
    workers = most if rows.shape[-1] * m * n * len(each) >= ALONE else 1
    least = max(1, SLAB // (rows.shape[-1] * ROWS * (n + UNPACKING)))
    copies = is_decoded or weights.strides[-2] != weights.shape[-1]  # rows apart, which are put side by side
    share = 0 if copies else tiles * len(each) // (SLABS * workers if workers > 1 else 1)
    in_slabs(slab, tiles * len(each), max(least, share), workers)


def _matrices(stack: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Those of (..., m, n), one after the other."""
    return [stack[index] for index in itertools.product(*map(range, stack.shape[:-2]))]


def _repeated(matrices: list[Any], shape: tuple[int, ...], stack: tuple[int, ...]) -> list[Any]:
    """The matrices of a stack of this shape, as often as broadcasting to another repeats them."""
    if shape == stack:
        return matrices
    return [matrices[i] for i in np.broadcast_to(np.arange(len(matrices)).reshape(shape), stack).flat]


def _floats(x: npt.ArrayLike) -> Floats:
    values = as_numbers(x, "matmul")
    with np.errstate(over="ignore"):  # what becomes infinite is refused when it is packed
        return values.astype(np.float32, copy=False)


def _result_shape(w: QuantizedTensor, x: Floats) -> tuple[int, ...]:
    """What `np.matmul` gives, or its refusal."""
    k = x.shape[-2:][0] if x.ndim else None
    try:
        if k != w.shape[-1]:
            raise ValueError
        stack = np.broadcast_shapes(w.shape[:-2], x.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"matmul: expected shapes (..., m, k) @ (k,) or (..., k, n), got {w.shape} of "
            f"{w.type.name} @ {x.shape}"
        ) from None
    return (*stack, *w.shape[-2:-1], *x.shape[-1:] * (x.ndim > 1))
