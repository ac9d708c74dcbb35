"""Packed rows that behave like an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kquant import codec
from kquant.errors import ShapeError, UnsupportedTypeError
from kquant.types import TensorType

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["QuantizedTensor"]

_INTEGERS = {
    TensorType.I8: "i1",
    TensorType.I16: "<i2",
    TensorType.I32: "<i4",
    TensorType.I64: "<i8",
    TensorType.F64: "<f8",
}
"""The types that are plain numbers, and no codec's."""


def _n_axes(item: Any) -> int:
    """How many axes one item of an index picks from."""
    if item is None or item is ...:
        return 0
    array = np.asarray(item)
    return array.ndim if array.dtype == np.bool_ else 1


class QuantizedTensor:
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
            raise UnsupportedTypeError(f"{what}: ggml has removed this type")
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
        if self.type in _INTEGERS:
            return np.ascontiguousarray(self.data).view(_INTEGERS[self.type])
        return codec.dequantize(self.data, self.type, threads)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        is_view = self.type in _INTEGERS
        if copy is False and not (is_view and dtype in (None, np.dtype(_INTEGERS[self.type]))):
            raise ValueError(f"{self!r} cannot become an array without being unpacked into a new one")
        values = self.numpy()
        return values.astype(values.dtype if dtype is None else dtype, copy=is_view and bool(copy))

    def __getitem__(self, index: Any) -> Self:
        """Rows; the last axis is taken whole, because its elements share their blocks."""
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
