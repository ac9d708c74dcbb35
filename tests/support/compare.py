"""Comparisons that say how many blocks differ and show the first of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kquant.types import TensorType


def assert_same_bytes(
    got: NDArray[np.uint8], want: NDArray[np.uint8], type_name: str, where: str = ""
) -> None:
    """Equal packed rows, or an AssertionError with the count of differing blocks and one of them."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape), where
    if np.array_equal(got, want):
        return
    size = TensorType[type_name].type_size
    blocks_got, blocks_want = got.reshape(-1, size), want.reshape(-1, size)
    bad = np.flatnonzero((blocks_got != blocks_want).any(axis=1))
    first = bad[0]
    raise AssertionError(
        f"{type_name} {where}: {len(bad)} of {len(blocks_got)} blocks differ; block {first}:\n"
        f"  got  {blocks_got[first].tobytes().hex(' ', 4)}\n"
        f"  want {blocks_want[first].tobytes().hex(' ', 4)}"
    )


def assert_same_floats(got: NDArray[Any], want: NDArray[Any], where: str = "") -> None:
    """Equal float32 bit patterns, signs of zeros included; NaN equals NaN of any payload."""
    assert got.dtype == np.float32, where
    assert got.shape == want.shape, where
    same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    if not same.all():
        first = tuple(int(i) for i in np.argwhere(~same)[0])
        raise AssertionError(
            f"{where}: {np.count_nonzero(~same)} of {same.size} values differ; "
            f"at {first}: got {got[first]!r}, want {want[first]!r}"
        )
