"""What callers give for an array of floats: any array that NumPy can read and float32 can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kquant.errors import KQuantError, ShapeError, UnsupportedTypeError

__all__ = ["as_array", "as_numbers"]


def as_numbers(x: npt.ArrayLike, what: str = "") -> npt.NDArray[Any]:
    """The array as NumPy sees it, of any real numbers, without a copy where that is possible.

    Takes floats, integers and truth values, and every other dtype that NumPy casts to float32 without
    loss, such as those of ml_dtypes: bfloat16, float8_e4m3fn, int4.  What is no array but has `__array__`
    or `__dlpack__`, such as a tensor of PyTorch or JAX, becomes one.

    Args:
        x: The array.
        what: What it is, for messages.

    Raises `UnsupportedTypeError` for other dtypes, and for tensors that cannot become arrays; `ShapeError`
    for nested lists of different lengths.

    >>> as_numbers([[1, 2]]).dtype.kind
    'i'
    """
    values = as_array(x, what)
    if values.dtype.kind not in "fiub" and not np.can_cast(values.dtype, np.float32):
        where = f"{what}: " if what else ""
        if values.ndim == 0 and not isinstance(x, (np.ndarray, np.generic)):  # no array, nor a list
            raise UnsupportedTypeError(f"{where}expected an array of floats, got {type(x).__name__}")
        raise UnsupportedTypeError(
            f"{where}expected an array of floats, got dtype {values.dtype}; pass x.astype(np.float32)"
        )
    return values


def as_array(x: npt.ArrayLike, what: str = "") -> npt.NDArray[Any]:
    """The array as NumPy sees it, of any dtype; errors as those of `as_numbers`.

    >>> as_array([[1, 2], [3]], "x")
    Traceback (most recent call last):
        ...
    kquant.errors.ShapeError: x: expected nested lists of one length, got lists that NumPy cannot read
    """
    where = f"{what}: " if what else ""
    is_tensor = not isinstance(x, (np.ndarray, np.generic)) and (
        hasattr(x, "__array__") or hasattr(x, "__dlpack__")
    )
    try:
        if is_tensor and not hasattr(x, "__array__"):
            return np.from_dlpack(x)  # type: ignore[arg-type]
        return np.asarray(x)
    except KQuantError:
        raise
    except Exception as error:
        if isinstance(x, (list, tuple)) and isinstance(error, ValueError):
            raise ShapeError(
                f"{where}expected nested lists of one length, got lists that NumPy cannot read"
            ) from error
        if not is_tensor:
            raise
        kind = f"{type(x).__module__}.{type(x).__name__}"
        raise UnsupportedTypeError(
            f"{where}expected an array of floats, got a {kind} that NumPy cannot read ({error}); "
            "of a PyTorch tensor pass x.detach().float().cpu().numpy()"
        ) from error
