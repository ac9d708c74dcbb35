"""The vocabulary of dot products: bytes and 16-bit integers inside a block, and sums of their products.

What `kquant.kernels.lanes` is to the searches, this is to `dot`.  NumPy executes the functions below; Numba
compiles them to the CPU's own instructions for such sums (`kquant.kernels.simd_products`).  Bytes keep their
8 bits under `&`, `|`, `<<` and `>>`, so that a register holds as many of them as it can.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kquant.kernels.jit import kernel
from kquant.kernels.lanes import Lanes, Rows, float_of_half

__all__ = [
    "add_products",
    "bits_at",
    "bytes_of",
    "folded",
    "ints_of",
    "joined",
    "load_bytes",
    "load_shorts",
    "load_signed_bytes",
    "no_sum",
    "pair_sums",
    "repeated",
    "run_float",
    "run_halves",
    "shorts_of",
    "signed",
    "sum_lanes",
]


def load_bytes(block: Rows, at: int, n: int) -> Lanes:
    """Bytes at .. at + n of one block, as uint8."""
    return block[..., at : at + n]


def load_signed_bytes(block: Rows, at: int, n: int) -> Lanes:
    """Bytes at .. at + n of one block, as int8."""
    return block[..., at : at + n].view(np.int8)


def load_shorts(block: Rows, at: int, n: int) -> Lanes:
    """n little-endian 16-bit integers from byte `at` on, as int16."""
    return np.ascontiguousarray(block[..., at : at + 2 * n]).view("<i2")


def run_float(block: Rows, at: int) -> Lanes:
    """The little-endian float32 at byte `at`, which fits every run."""
    return np.ascontiguousarray(block[..., at : at + 4]).view("<f4")


@kernel
def run_halves(block: Rows, at: int) -> Lanes:
    """The two fp16 numbers from byte `at` on, as float32."""
    return float_of_half(ints_of(load_shorts(block, at, 2)))


def no_sum(n: int) -> Lanes:
    """n int32 zeros, to add products to."""
    return np.zeros(n, np.int32)


def signed(value: Lanes) -> Lanes:
    """The same bytes, as int8."""
    return value.view(np.int8)


def ints_of(value: Lanes) -> Lanes:
    """int16 as int32."""
    return value.astype(np.int32)


def bytes_of(value: Lanes) -> Lanes:
    """The low 8 bits of int32, as uint8."""
    return value.astype(np.uint8)


def shorts_of(value: Lanes) -> Lanes:
    """uint8 or int8 as int16."""
    return value.astype(np.int16)


def bits_at(value: Lanes, low: int, high: int, mask: int) -> Lanes:
    """Bytes twice over, shifted right by `low` and then by `high`, masked; a negative shift goes left.

    The mask leaves no bit that comes from outside a byte.
    """
    shifted = [value >> at if at >= 0 else value << -at for at in (low, high)]
    return joined(*shifted) & mask


def folded(value: Lanes) -> Lanes:
    """The second half of int32 added to the first."""
    half = value.shape[-1] // 2
    return value[..., :half] + value[..., half:]


def joined(low: Lanes, high: Lanes) -> Lanes:
    """One vector after the other."""
    return np.concatenate([low, high], axis=-1)


def repeated(value: Lanes, at: int, count: int, each: int) -> Lanes:
    """Elements at .. at + count, each of them so many times in a row."""
    return np.repeat(value[..., at : at + count], each, axis=-1)


def pair_sums(u: Lanes, s: Lanes) -> Lanes:
    """u[0] * s[0] + u[1] * s[1], ... as int16, for u of uint8 up to 127 and s of int8."""
    products = u.astype(np.int16) * s
    return products[..., ::2] + products[..., 1::2]


def add_products(total: Lanes, x: Lanes, y: Lanes) -> Lanes:
    """total[0] + x[0] * y[0] + x[1] * y[1], ... as int32, for x and y of int16."""
    products = x.astype(np.int32) * y
    return total + (products[..., ::2] + products[..., 1::2])


def sum_lanes(value: Lanes) -> Any:
    """The sum of a run of 2**k float32: one half added to the other, until one is left."""
    while value.shape[-1] > 1:
        half = value.shape[-1] // 2
        value = value[..., :half] + value[..., half:]
    return value[..., 0]
