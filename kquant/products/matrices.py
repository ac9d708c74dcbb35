"""Matrix products with packed rows: the activations are packed once, then integers are multiplied.

`matmul(w, x)` is `w @ x` with the packed rows in the place of an array's: (..., m, k) @ (k,),
(..., m, k) @ (k, n), and stacks of matrices (experts) by NumPy's rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kquant._floats import as_array
from kquant.arrays.codec import check_out, execution_of
from kquant.errors import KQuantError, OptionError, ShapeError, UnsupportedTypeError
from kquant.formats import format_of
from kquant.kernels.execute import Execution, Floats
from kquant.kernels.language.dot import BlockDot
from kquant.parallel.pool import Pool
from kquant.products._engine import run
from kquant.products._loops import Job, is_beyond_cache
from kquant.products._overflow import refuse_overflow
from kquant.products.activations import PackedActivations, matrices_of
from kquant.products.dots import vec_dot_type
from kquant.types import TensorType

if TYPE_CHECKING:
    from kquant.arrays.tensor import QuantizedTensor

__all__ = ["matmul", "matmul_many"]


def matmul(
    w: QuantizedTensor,
    x: npt.ArrayLike | PackedActivations,
    threads: int | None = None,
    *,
    out: Floats | None = None,
    experts: npt.ArrayLike | None = None,
    pool: Pool | None = None,
    execution: Execution | None = None,
) -> Floats:
    """`w @ x` for packed rows: float32 in, float32 out, and the weights stay packed.

    The activations, the columns of `x`, are packed once in the partner type of the weights (Q8_K, Q8_0 or
    Q8_1), which rounds them to 8 bits; F32, F16 and BF16 are decoded instead, some rows at a time.

    Args:
        w: Shape (..., m, k), or (k,) for a single row.
        x: Floats of shape (k,) or (..., k, n), in any memory layout, or `kquant.PackedActivations`, which
            several calls can share.
        threads: At most so many; None for one per core.  The result does not depend on it.
        out: Where the result goes: float32 of its shape, in any memory layout; returned.  If it shares
            memory with `x` or `w`, the result is made elsewhere first.
        experts: Integers from 0, of any shape (...,): `w`, of shape (n_expert, m, k), stands for
            `w[experts]`, of shape (..., m, k), whose bytes are not copied.
        pool: Threads of one's own; None for those of the process.
        execution: As for `kquant.quantize`.

    Returns:
        float32 of the shape that `np.matmul` gives.

    Raises:
        ShapeError: The shapes do not fit `np.matmul`'s rules, or that of `out` is another.
        NonFiniteError: An activation that is to be packed is NaN or infinite, or one is finite and too
            large for float32.  With F32, F16 and BF16, NaN and infinity go through, as in NumPy.
        OutOfRangeError: An activation is too large to be packed, or a result is beyond float32, though all
            numbers are finite.
        UnsupportedTypeError: `x` is no array of floats, `out` none of float32 that can be written to,
            `experts` none of integers, or kquant cannot multiply the type of `w`.
        OptionError: There is no such expert, `threads` is less than 1, or `pool` is no open pool.

    Source: `ggml_compute_forward_mul_mat` and `ggml_compute_forward_mul_mat_id` in
    https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-cpu/ggml-cpu.c

    >>> import numpy as np, kquant
    >>> w = kquant.QuantizedTensor.from_numpy(np.eye(4, 256, dtype=np.float32), "Q8_0")
    >>> kquant.matmul(w, np.arange(256, dtype=np.float32)).round()
    array([0., 1., 2., 3.], dtype=float32)
    >>> kquant.matmul(w, np.ones((256, 5), np.float32)).shape
    (4, 5)
    >>> stack = kquant.QuantizedTensor.from_numpy(np.ones((8, 4, 256), np.float32), "Q4_K")
    >>> kquant.matmul(stack, np.ones(256, np.float32), experts=[6, 1]).shape
    (2, 4)
    """
    how = execution_of(execution)
    given = x if isinstance(x, PackedActivations) else PackedActivations.held(x)
    planned = _Planned(w, given, out, experts)
    run(planned.jobs(given, how, threads, pool), how, threads, pool)
    planned.check(how)
    return planned.finished()


def matmul_many(
    weights: Sequence[QuantizedTensor],
    x: npt.ArrayLike | PackedActivations,
    out: Sequence[Floats] | None = None,
    threads: int | None = None,
    pool: Pool | None = None,
    *,
    experts: npt.ArrayLike | None = None,
    execution: Execution | None = None,
) -> list[Floats]:
    """`kquant.matmul` of several weights with the same activations, as one piece of work for the threads.

    The activations are packed once for each partner type, and threads meet once, not once for each
    weight: for the query, key and value weights of a layer, or gate and up.

    Args:
        weights: Each of shape (..., m, k), or (k,); their types may differ.
        x: As for `kquant.matmul`.
        out: An array for each result, none of which shares memory with another.
        threads, pool, execution: As for `kquant.matmul`.
        experts: As for `kquant.matmul`; the same of all weights.

    Returns:
        A list of what `kquant.matmul` gives for each.

    Raises:
        ShapeError, NonFiniteError, OutOfRangeError, UnsupportedTypeError, OptionError: As `kquant.matmul`,
            with the number of the weight; also if `out` is not as long as `weights`, or its arrays share
            memory.

    >>> import numpy as np, kquant
    >>> wq = kquant.QuantizedTensor.from_numpy(np.eye(4, 256), "Q4_K")
    >>> wv = kquant.QuantizedTensor.from_numpy(np.eye(2, 256), "Q6_K")
    >>> [y.shape for y in kquant.matmul_many([wq, wv], np.ones((256, 3), np.float32))]
    [(4, 3), (2, 3)]
    """
    how = execution_of(execution)
    given = x if isinstance(x, PackedActivations) else PackedActivations.held(x)
    outs = [None] * len(weights) if out is None else _apart(out, len(weights))
    planned = [_planned(i, w, given, outs[i], experts) for i, w in enumerate(weights)]
    run([job for p in planned for job in p.jobs(given, how, threads, pool)], how, threads, pool)
    for p in planned:
        p.check(how)
    return [p.finished() for p in planned]


class _Planned:
    """One product: the shapes are checked, and there is memory for the result."""

    __slots__ = (
        "_exceeds_cache",
        "_format",
        "_matrices",
        "_out",
        "_result",
        "_stack",
        "_target",
        "_w_stack",
        "_x",
    )

    def __init__(
        self, w: QuantizedTensor, x: PackedActivations, out: Floats | None, experts: npt.ArrayLike | None
    ) -> None:
        if not isinstance(getattr(w, "type", None), TensorType):
            raise UnsupportedTypeError(
                f"matmul: expected packed weights in a QuantizedTensor, got {type(w).__name__}"
            )
        self._format, self._out, self._x = format_of(w.type), out, x
        if self._format.dot is None:
            vec_dot_type(w.type)  # tells why
        data, x_shape = w.data, x.shape
        is_row, is_column = data.ndim == 1, len(x_shape) == 1
        if is_row:
            data = data[None]
        if experts is None:
            self._w_stack, self._matrices, n_bytes = data.shape[:-2], matrices_of(data), data.nbytes
        else:
            ids = _ids(experts, w)
            self._w_stack, self._matrices = ids.shape, [data[i] for i in ids.ravel().tolist()]
            n_bytes = ids.size * data.nbytes // max(len(data), 1)
        self._exceeds_cache = is_beyond_cache(n_bytes)
        self._stack = stack = _stack_of(w, self._w_stack, x)
        shape = stack if is_row else (*stack, data.shape[-2])
        shape = shape if is_column else (*shape, x_shape[-1])
        if out is not None:
            check_out(out, shape, np.float32)
        if out is None or np.may_share_memory(out, x.rows) or np.may_share_memory(out, data):
            # (..., n, m): what is computed together lies together
            self._target = np.empty((*stack, x.rows.shape[-2], data.shape[-2]), np.float32)
            self._result = self._target.swapaxes(-1, -2).reshape(shape)
        elif is_column:
            self._target, self._result = (out[..., None, None] if is_row else out[..., None, :]), out
        else:
            self._target, self._result = (out[..., None] if is_row else out.swapaxes(-1, -2)), out

    def jobs(
        self, x: PackedActivations, execution: Execution, threads: int | None, pool: Pool | None
    ) -> list[Job]:
        """What the engine is to do, with packed activations."""
        target, weights, dot = self._target, self._matrices, self._format.dot
        if not target.size or not x.rows.shape[-1]:
            target[...] = 0
            return []
        activations: list[Any]
        if isinstance(dot, BlockDot):
            activations = x.packed(dot.partner, execution, threads, pool)
        else:
            activations = matrices_of(x.contiguous())
        if not self._stack:
            return [Job(self._format, weights[0], activations[0], target, self._exceeds_cache)]
        weights = _repeated(weights, self._w_stack, self._stack)
        activations = _repeated(activations, x.rows.shape[:-2], self._stack)
        each = zip(weights, activations, matrices_of(target), strict=True)
        return [Job(self._format, *of_one, self._exceeds_cache) for of_one in each]

    def check(self, execution: Execution) -> None:
        """Raises `OutOfRangeError` if the result is beyond float32 though all operands are finite."""
        if not np.isfinite(self._result).all():
            dot = self._format.dot
            if isinstance(dot, BlockDot):
                self._x.check_range(dot.partner, execution)
            packed = [(matrix, self._format.type) for matrix in self._matrices]
            result = self._result.swapaxes(-1, -2) if self._x.are_rows else self._result
            refuse_overflow(result, "matmul", *packed, (self._x.rows, TensorType.F32))

    def finished(self) -> Floats:
        """The result, where the caller wants it."""
        if self._out is None or self._out is self._result:
            return self._result
        self._out[...] = self._result
        return self._out


def _planned(i: int, w: QuantizedTensor, *given: Any) -> _Planned:
    """One of several products; errors say which."""
    try:
        return _Planned(w, *given)
    except KQuantError as error:
        raise type(error)(f"weight {i}: {error}") from None


def _repeated(matrices: list[Any], shape: tuple[int, ...], stack: tuple[int, ...]) -> list[Any]:
    """The matrices of a stack of this shape, as often as broadcasting to another repeats them."""
    if shape == stack:
        return matrices
    return [matrices[i] for i in np.broadcast_to(np.arange(len(matrices)).reshape(shape), stack).flat]


def _stack_of(w: QuantizedTensor, w_stack: tuple[int, ...], x: PackedActivations) -> tuple[int, ...]:
    """The axes before the matrices in what `np.matmul` gives, or its refusal."""
    x_shape, x_stack = x.shape, x.shape[:-2]
    try:
        if x_shape[-2:][:1] != w.shape[-1:]:
            raise ValueError
        if not w_stack or not x_stack:
            return w_stack or x_stack
        return np.broadcast_shapes(w_stack, x_stack)
    except ValueError:
        got = (*w_stack, *w.shape[-2:])
        if x.are_rows:
            raise ShapeError(
                f"matmul: expected shapes (..., n, k) @ (..., k, m), got {(*x_stack, *x_shape[:-3:-1])} @ "
                f"{(*w_stack, *w.shape[:-3:-1])} of {w.type.name}, transposed"
            ) from None
        raise ShapeError(
            f"matmul: expected shapes (..., m, k) @ (k,) or (..., k, n), got {got} of "
            f"{w.type.name} @ {x_shape}"
        ) from None


def _ids(experts: npt.ArrayLike, w: QuantizedTensor) -> npt.NDArray[np.intp]:
    """The experts' numbers; all of them are there."""
    ids = as_array(experts, "experts")
    if ids.dtype.kind not in "iu" and ids.size:
        raise UnsupportedTypeError(f"experts: expected integers, got dtype {ids.dtype}")
    if w.ndim != 3:
        raise ShapeError(
            f"experts: expected weights of shape (n_expert, m, k) to choose from, got {w.shape} of "
            f"{w.type.name}"
        )
    wrong = np.argwhere((ids < 0) | (ids >= len(w)))
    if len(wrong):
        where = tuple(int(i) for i in wrong[0])
        raise OptionError(
            f"experts: expected numbers from 0 to {len(w) - 1}, got {ids[where]} at index {where}"
        )
    return ids.astype(np.intp)


def _apart(out: Any, n: int) -> list[Any]:
    """The callers' arrays for n results."""
    if isinstance(out, np.ndarray) or len(out) != n:
        got = "one array" if isinstance(out, np.ndarray) else str(len(out))
        raise ShapeError(f"out: expected a list of {n} arrays, one for each weight, got {got}")
    for (i, one), (j, other) in itertools.combinations(enumerate(out), 2):
        if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and np.shares_memory(one, other):
            raise OptionError(f"out: expected arrays that share no memory, got some at {i} and {j} that do")
    return list(out)
