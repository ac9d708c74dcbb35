"""Products of finite numbers that float32 cannot hold."""

from __future__ import annotations

import numpy as np

from kquant.arrays.codec import validate
from kquant.errors import InvalidDataError, OutOfRangeError
from kquant.kernels.execute import Bytes, Floats
from kquant.types import TensorType

__all__ = ["refuse_overflow"]


def refuse_overflow(products: Floats, what: str, *operands: tuple[Bytes | Floats, TensorType]) -> Floats:
    """The products, if they are finite or an operand is not: NaN and infinity go through, as in ggml.

    Args:
        products: Any shape.
        what: Which function they are of, for the message.
        operands: Packed rows and their type, or floats and F32.

    Raises `OutOfRangeError` if all operands are finite and a product is not.

    >>> refuse_overflow(np.array([np.inf], np.float32), "dot", (np.ones(2, np.float32), TensorType.F32))
    Traceback (most recent call last):
        ...
    kquant.errors.OutOfRangeError: dot: the sum of products at index (0,) is beyond float32
    """
    if np.isfinite(products).all():
        return products
    if not all(_is_finite(data, tensor_type) for data, tensor_type in operands):
        return products
    index = tuple(int(i) for i in np.argwhere(~np.isfinite(products))[0])
    raise OutOfRangeError(f"{what}: the sum of products at index {index} is beyond float32")


def _is_finite(data: Bytes | Floats, tensor_type: TensorType) -> bool:
    try:
        validate(np.ascontiguousarray(data).view(np.uint8), tensor_type)
    except InvalidDataError:
        return False
    return True
