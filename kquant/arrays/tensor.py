"""Packed rows that behave like an array.

`@` calls `kquant.matmul` by its public name: products know tensors, and tensors know no products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import kquant
from kquant._floats import as_numbers
from kquant.arrays import codec
from kquant.arrays.byteorder import PLAIN
from kquant.errors import ShapeError, UnsupportedTypeError
from kquant.types import TensorType

if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["QuantizedTensor", "Transposed"]


def _n_axes(item: Any) -> int:
    """How many axes one item of an index picks from."""
    if item is None or item is ...:
        return 0
    array = np.asarray(item)
    return array.ndim if array.dtype == np.bool_ else 1


def _unpacked_product(left: Any, right: Any, tensor: QuantizedTensor | Transposed) -> npt.NDArray[np.float32]:
    """NumPy's product; raises `ShapeError` if the shapes do not fit."""
    try:
        product: npt.NDArray[np.float32] = np.matmul(left, right)
        return product
    except ValueError:
        raise ShapeError(
            f"{tensor!r}: expected shapes (..., n, k) @ (..., k, m), got {np.shape(left)} @ {np.shape(right)}"
        ) from None


class _Operand:
    """What NumPy's functions treat as an array, and `@` as packed rows."""

    __slots__ = ()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """`array @ tensor` reaches this class through `np.matmul`; all others see an array of values."""
        if ufunc is np.matmul and method == "__call__" and not options:
            left, right = inputs
            if isinstance(right, Transposed):
                return right.__rmatmul__(left)
            if isinstance(left, QuantizedTensor):
                return kquant.matmul(left, right)
            if isinstance(right, QuantizedTensor):
                return right.__rmatmul__(left)
        arrays = [np.asarray(x) if isinstance(x, _Operand) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **options)


class QuantizedTensor(_Operand):
    """Packed rows with their type and shape.

    Indexing the axes before the last gives rows, without copying: the packed bytes stay where they
    are, also in a memory map.

    Args:
        data: uint8 (..., row_bytes).
        type: The tensor type that the rows are packed in.
        name: For messages and `repr`.

    Raises `ShapeError` if the last axis is not a whole number of blocks.

    >>> import numpy as np, kquant
    >>> t = kquant.QuantizedTensor.from_numpy(np.ones((4, 512), np.float32), "Q8_0")
    >>> t
    QuantizedTensor(Q8_0, shape=(4, 512), 2176 bytes)
    >>> t.data.shape, t[1:3].shape, t.numpy().dtype
    ((4, 544), (2, 512), dtype('float32'))
    >>> (t @ np.ones(512)).round(), (np.ones((3, 512)) @ t[1:3].T).shape
    (array([512., 512., 512., 512.], dtype=float32), (3, 2))
    """

    __slots__ = ("data", "name", "shape", "type")

    data: npt.NDArray[np.uint8]
    """uint8 (..., row_bytes)."""
    type: TensorType
    shape: tuple[int, ...]
    """(..., n_per_row), in NumPy's order."""
    name: str | None

    def __init__(
        self, data: npt.NDArray[np.uint8], type: TensorType | str | int, name: str | None = None
    ) -> None:
        self.type = TensorType.of(type)
        self.name = name
        data = np.asanyarray(data)  # a memory map stays one
        what = f"{self.type.name}{f' {name}' if name else ''}"
        if self.type.removed:
            raise UnsupportedTypeError(f"{self.type.full_name}: ggml has removed this type")
        if data.dtype != np.uint8 or data.ndim == 0 or data.shape[-1] % self.type.type_size:
            raise ShapeError(
                f"{what}: expected uint8 rows of a multiple of {self.type.type_size} bytes, "
                f"got {data.dtype} of shape {data.shape}"
            )
        self.data = data
        self.shape = (*data.shape[:-1], data.shape[-1] // self.type.type_size * self.type.block_size)

    @classmethod
    def from_numpy(
        cls,
        x: npt.ArrayLike,
        type: TensorType | str | int,
        imatrix: npt.ArrayLike | None = None,
        threads: int | None = None,
    ) -> Self:
        """Pack rows of floats; arguments and errors are those of `kquant.quantize`."""
        return cls(codec.quantize(x, type, imatrix, threads), type)

    def numpy(self, threads: int | None = None) -> npt.NDArray[Any]:
        """The values: float32, or the integers and float64 that plain types hold, as a view.

        Raises `UnsupportedTypeError` for types that kquant has no codec for.
        """
        if self.type in PLAIN:
            return np.ascontiguousarray(self.data).view(PLAIN[self.type])
        return codec.dequantize(self.data, self.type, threads)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        is_view = self.type in PLAIN
        if copy is False and not (is_view and dtype in (None, np.dtype(PLAIN[self.type]))):
            raise ValueError(f"{self!r} cannot become an array without being unpacked into a new one")
        values = self.numpy()
        return values.astype(values.dtype if dtype is None else dtype, copy=is_view and bool(copy))

    def __matmul__(self, x: npt.ArrayLike | kquant.PackedActivations) -> npt.NDArray[np.float32]:
        """`kquant.matmul(self, x)`: the weights stay packed."""
        return kquant.matmul(self, x)

    def __rmatmul__(self, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """`x @ w` sums over the rows, and each row is packed separately: this unpacks them first."""
        return _unpacked_product(x, self.numpy(), self)

    @property
    def T(self) -> Transposed:
        """The transpose of a matrix, for `x @ w.T`."""
        if self.ndim != 2:
            raise ShapeError(f"{self!r}: expected a matrix; `mT` transposes every matrix of a stack")
        return Transposed(self)

    @property
    def mT(self) -> Transposed:
        """The transpose of every matrix of a stack."""
        if self.ndim < 2:
            raise ShapeError(f"{self!r}: expected at least two axes to transpose")
        return Transposed(self)

    def __getitem__(self, index: Any) -> Self:
        """Rows; the last axis cannot be divided, because its elements share blocks."""
        axes = index if isinstance(index, tuple) else (index,)
        names_last = any(axis is ... for axis in axes[:-1]) or sum(map(_n_axes, axes)) >= self.ndim
        if names_last and not (isinstance(axes[-1], slice) and axes[-1] == slice(None)):
            raise ShapeError(f"{self!r}: expected an index of the axes before the last, got {index!r}")
        return type(self)(self.data[index], self.type, self.name)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the packed rows."""
        return self.data.nbytes

    def __repr__(self) -> str:
        name = f"{self.name!r}, " if self.name else ""
        return f"QuantizedTensor({name}{self.type.name}, shape={self.shape}, {self.nbytes} bytes)"


class Transposed(_Operand):
    """The transpose of packed rows: the right operand of `x @ w.T`, as in a linear layer.

    >>> import numpy as np, kquant
    >>> w = kquant.QuantizedTensor.from_numpy(np.ones((4, 512), np.float32), "Q8_0")
    >>> w.T.shape, (np.ones((2, 512), np.float32) @ w.T).shape
    ((512, 4), (2, 4))
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: QuantizedTensor) -> None:
        self._rows = rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., n_per_row, n_rows)."""
        *stack, n_rows, n_per_row = self._rows.shape
        return (*stack, n_per_row, n_rows)

    @property
    def mT(self) -> QuantizedTensor:
        """The tensor that this is the transpose of."""
        return self._rows

    T = mT

    def __rmatmul__(self, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """`x @ w.T`: the weights stay packed; `kquant.matmul` tells the shapes and errors."""
        activations = as_numbers(x, "activations")
        if activations.ndim < 2:
            return kquant.matmul(self._rows, activations)
        rows = kquant.PackedActivations.held_rows(activations)
        return kquant.matmul(self._rows, rows).swapaxes(-1, -2)

    def __matmul__(self, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """`w.T @ x` sums over the rows, and each row is packed separately: this unpacks them first."""
        return _unpacked_product(np.asarray(self), x, self)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self._rows, dtype, copy=copy).swapaxes(-1, -2)

    def __repr__(self) -> str:
        return f"{self._rows!r}.{'T' if self._rows.ndim == 2 else 'mT'}"
