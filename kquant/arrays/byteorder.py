"""Packed data of big-endian files: the same blocks with the bytes of every wider field reversed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kquant.errors import UnsupportedTypeError
from kquant.formats import format_of, has_format
from kquant.types import TensorType

__all__ = ["PLAIN", "swapped"]

PLAIN = {
    TensorType.I8: "i1",
    TensorType.I16: "<i2",
    TensorType.I32: "<i4",
    TensorType.I64: "<i8",
    TensorType.F64: "<f8",
}
"""The types that are plain numbers and have no format module."""


def swapped(data: npt.NDArray[np.uint8], tensor_type: TensorType) -> npt.NDArray[np.uint8]:
    """Packed rows in the other byte order, as a new array.

    Raises `UnsupportedTypeError` for types whose fields kquant does not know.
    """
    if has_format(tensor_type):
        layout = format_of(tensor_type).layout
    elif tensor_type in PLAIN:
        layout = np.dtype(PLAIN[tensor_type])
    else:
        raise UnsupportedTypeError(
            f"{tensor_type.name}: cannot change the byte order: kquant does not know the fields of this type"
        )
    blocks = np.ascontiguousarray(data).view(layout.newbyteorder(">"))
    native: npt.NDArray[np.uint8] = blocks.astype(layout).view(np.uint8)
    return native
