"""Activations that several products share."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

import kquant
from kquant._floats import as_numbers
from kquant.arrays.codec import quantize
from kquant.arrays.overflow import quantize_checked
from kquant.errors import NonFiniteError, OutOfRangeError, ShapeError, UnsupportedTypeError
from kquant.formats import format_of
from kquant.kernels.activations import Activations
from kquant.kernels.execute import WHOLE, Bytes, Execution, Floats, aligned_empty
from kquant.parallel.pool import Pool
from kquant.products._loops import activations_of
from kquant.types import TensorType

if TYPE_CHECKING:
    from typing_extensions import Self

    from kquant.arrays.tensor import Transposed

__all__ = ["PackedActivations", "matrices_of"]

SMALL = 1 << 16
"""Activations that one thread packs at once, before a helper would be of use."""


class PackedActivations:
    """Activations to be multiplied with several weights: packed once for each partner type.

    `kquant.matmul` packs its activations in every call.  The products of a layer that share them, such as
    those with the query, key and value weights, share the packing as well if they are given this.  It
    packs, and arranges for the compiled loops, what a product asks for first, and keeps that.

    It stands where `x` does, in `kquant.matmul`, `kquant.matmul_many` and `w @ x`: the columns are what is
    packed.  Where activations are rows, as in `x @ w.T`, write `PackedActivations(x.T).T @ w.T`.  Threads
    may share it, and a forked child may use it.

    Args:
        x: Floats of shape (k,) or (..., k, n), in any memory layout.  They are copied.

    Raises:
        ShapeError: `x` is a single number.
        UnsupportedTypeError: `x` is no array of floats.
        NonFiniteError: A finite number of `x` is too large for float32.

    The first product with a type whose activations are packed raises `NonFiniteError` if one of them is
    NaN or infinite.

    >>> import numpy as np, kquant
    >>> x = kquant.PackedActivations(np.ones((256, 3), np.float32))
    >>> wq = kquant.QuantizedTensor.from_numpy(np.eye(4, 256), "Q4_K")
    >>> wv = kquant.QuantizedTensor.from_numpy(np.eye(2, 256), "Q6_K")
    >>> (wq @ x).shape, (wv @ x).shape, (x.T @ wv.T).shape
    ((4, 3), (2, 3), (3, 2))
    """

    __slots__ = ("_packed", "are_rows", "rows", "shape")

    shape: tuple[int, ...]
    """Of x: (k,) or (..., k, n)."""
    rows: Floats
    """float32 (..., n, k): a row for each column of x."""
    are_rows: bool
    """Whether the caller gave rows, as in `x @ w.T`: errors say where in them."""
    _packed: dict[TensorType, list[Activations]]

    def __init__(self, x: npt.ArrayLike) -> None:
        self._hold(floats(x))
        if not self.shape:
            raise ShapeError("activations: expected shape (k,) or (..., k, n), got a single number")
        own = aligned_empty(self.rows.shape, np.float32)
        own[...] = self.rows
        self.rows = own

    @classmethod
    def held(cls, x: npt.ArrayLike) -> Self:
        """The same for a single call, during which nobody changes `x`: without a copy."""
        made = cls.__new__(cls)
        made._hold(floats(x))
        return made

    @classmethod
    def held_rows(cls, x: npt.ArrayLike) -> Self:
        """The same of rows, (..., n, k), which stand in `x @ w.T`."""
        made = cls.__new__(cls)
        made._hold(floats(x).swapaxes(-1, -2), are_rows=True)
        return made

    def _hold(self, x: Floats, *, are_rows: bool = False) -> None:
        self.shape, self.are_rows = x.shape, are_rows
        self.rows = x[None] if x.ndim < 2 else x.swapaxes(-1, -2)
        self._packed = {}

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def T(self) -> TransposedActivations:
        """Activations that are rows, for `x.T @ w.T`; of one column, or of one matrix of them."""
        if self.ndim > 2:
            raise ShapeError(f"{self!r}: expected a matrix; `mT` transposes every matrix of a stack")
        return TransposedActivations(self)

    @property
    def mT(self) -> TransposedActivations:
        """The same for every matrix of a stack."""
        if self.ndim < 2:
            raise ShapeError(f"{self!r}: expected at least two axes to transpose")
        return TransposedActivations(self)

    def contiguous(self) -> Floats:
        """The rows, one after the other in memory that begins at a multiple of 64 bytes."""
        rows = self.rows
        if not rows.flags.c_contiguous or rows.ctypes.data % 64:
            rows = aligned_empty(rows.shape, np.float32)
            rows[...] = self.rows
        return rows

    def packed(
        self, partner: TensorType, execution: Execution, threads: int | None = None, pool: Pool | None = None
    ) -> list[Activations]:
        """Columns in a type for activations, one after the other of all matrices of the stack."""
        found = self._packed.get(partner)
        if found is None:
            made = [
                activations_of(matrix, partner, trusted=True)
                for matrix in matrices_of(self._pack(partner, execution, threads, pool))
            ]
            found = self._packed.setdefault(partner, made)  # another thread may have been first
        return found

    def _pack(
        self, partner: TensorType, execution: Execution, threads: int | None, pool: Pool | None
    ) -> Bytes:
        if self.rows.size > SMALL:
            try:
                return quantize(self.rows, partner, threads=threads, execution=execution, pool=pool)
            except NonFiniteError:
                raise self._refused(partner) from None
        k = self.rows.shape[-1]
        rows = np.require(self.rows, requirements=["C", "A"]).reshape(-1, k)
        out = np.empty((len(rows), partner.row_bytes(k)), np.uint8)
        if format_of(partner).quantize_rows(rows, None, out, execution) != WHOLE:
            raise self._refused(partner)
        return out.reshape(*self.rows.shape[:-1], -1)

    def _refused(self, partner: TensorType) -> NonFiniteError:
        element = int(np.argmin(np.isfinite(self.rows)))
        return NonFiniteError(
            f"activations: expected finite float32 values to pack as {partner.name}, "
            f"got {self.rows.flat[element]} at index {self._place(element)}"
        )

    def check_range(self, partner: TensorType, execution: Execution) -> None:
        """Raises `OutOfRangeError` for a number that the type cannot hold."""
        fmt, rows = format_of(partner), self.contiguous()
        rows = rows.reshape(-1, rows.shape[-1])
        out = np.empty((len(rows), partner.row_bytes(rows.shape[-1])), np.uint8)
        _, overflow = quantize_checked(fmt, rows, None, out, execution)
        if overflow:
            place = self._place(overflow.element)
            raise OutOfRangeError(f"activations: {overflow.sentence(f'at index {place}')}")

    def _place(self, element: int) -> tuple[int, ...]:
        """Where the caller has an element of `rows`."""
        *stack, column, i = (int(n) for n in np.unravel_index(element, self.rows.shape))
        if self.ndim == 1:
            return (i,)
        return (*stack, column, i) if self.are_rows else (*stack, i, column)

    def __matmul__(self, w: object) -> NoReturn:
        raise UnsupportedTypeError(
            f"{self!r}: expected on the right, as in w @ x; rows are multiplied by x.T @ w.T"
        )

    def __repr__(self) -> str:
        kept = "".join(f", {partner.name}" for partner in self._packed)
        return f"PackedActivations(shape={self.shape}{kept})"


class TransposedActivations:
    """Activations that are rows: what stands on the left of `x.T @ w.T`."""

    __slots__ = ("_columns",)

    __array_ufunc__ = None  # NumPy leaves `@` to this class

    def __init__(self, columns: PackedActivations) -> None:
        self._columns = columns

    @property
    def shape(self) -> tuple[int, ...]:
        """(k,) or (..., n, k)."""
        shape = self._columns.shape
        return (*shape[:-2], *shape[:-3:-1])

    @property
    def mT(self) -> PackedActivations:
        """The activations that this is the transpose of."""
        return self._columns

    T = mT

    def __matmul__(self, w: Transposed) -> Floats:
        """`x.T @ w.T`; `kquant.matmul` tells the shapes and errors."""
        weights = getattr(w, "mT", None)
        if not isinstance(weights, kquant.QuantizedTensor):
            raise UnsupportedTypeError(
                f"{self!r}: expected the transpose of a QuantizedTensor to multiply with, "
                f"got {type(w).__name__}"
            )
        result = kquant.matmul(weights, self._columns)
        return result if self._columns.ndim == 1 else result.swapaxes(-1, -2)

    def __repr__(self) -> str:
        return f"{self._columns!r}.{'T' if self._columns.ndim <= 2 else 'mT'}"


def floats(x: npt.ArrayLike) -> Floats:
    """float32.

    Raises `UnsupportedTypeError` if `x` is not an array of real numbers, `NonFiniteError` if float32 cannot
    hold one of them.
    """
    if type(x) is np.ndarray and x.dtype == np.float32:
        return x
    values = as_numbers(x, "activations")
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        made = values.astype(np.float32, copy=False)
    if values.dtype != np.float32 and np.isinf(made).any():
        lost = np.argwhere(np.isinf(made) & np.isfinite(values))
        if len(lost):
            where = tuple(int(i) for i in lost[0])
            raise NonFiniteError(
                f"activations: expected values that float32 can hold, got {values[where]} at index {where}"
            )
    return made


def matrices_of(stack: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Those of (..., m, n), one after the other."""
    if stack.ndim == 2:
        return [stack]
    return [stack[index] for index in itertools.product(*map(range, stack.shape[:-2]))]
