"""What the dot products of the k-quants with Q8_K share: integer sums over a super-block, then two floats."""

from __future__ import annotations

from kquant.formats.affine_block import SCALES
from kquant.formats.q8_k import BSUMS, QS
from kquant.formats.q8_k import D as D_OF_ACTIVATIONS
from kquant.kernels.jit import kernel
from kquant.kernels.lanes import Lanes, Rows, as_float, run_half
from kquant.kernels.products import (
    add_products,
    joined,
    load_bytes,
    load_shorts,
    load_signed_bytes,
    no_sum,
    pair_sums,
    repeated,
    run_float,
    run_halves,
    shorts_of,
)


@kernel
def add_64(total: Lanes, q: Lanes, a: Rows, at: int, sc: Lanes) -> Lanes:
    """Add scale * q * activation over 64 elements from `at` on: uint8 q, an int16 scale for each pair."""
    return add_products(total, pair_sums(q, load_signed_bytes(a, QS + at, 64)), sc)


@kernel
def times_bsums(m: Lanes, a: Rows) -> Lanes:
    """The sum of m[j] * activation, for one m in int16 for each 16 elements."""
    return add_products(no_sum(8), m, load_shorts(a, BSUMS, 16))


@kernel
def scaled(block: Rows, at: int, a: Rows, total: Lanes) -> Lanes:
    """The total times the fp16 scale at this byte, times the activation's."""
    return run_half(block, at) * run_float(a, D_OF_ACTIVATIONS) * as_float(total)


@kernel
def scaled_affine(block: Rows, at: int, a: Rows, total: Lanes, minima: Lanes) -> Lanes:
    """The same for a total less a total of minima, whose fp16 scale follows at the next two bytes."""
    both = run_halves(block, at) * run_float(a, D_OF_ACTIVATIONS)
    return repeated(both, 0, 1, 8) * as_float(total) - repeated(both, 1, 1, 8) * as_float(minima)


@kernel
def scale_min_shorts(block: Rows) -> tuple[Lanes, Lanes]:
    """sc and m of Q4_K and Q5_K as int16."""
    first, rest = load_bytes(block, SCALES, 8), load_bytes(block, SCALES + 8, 4)
    low = first & 63
    high = joined(rest & 15, rest >> 4) | ((first >> 6) << 4)
    both = shorts_of(joined(low, high))
    return (
        joined(repeated(both, 0, 4, 1), repeated(both, 8, 4, 1)),
        joined(repeated(both, 4, 4, 1), repeated(both, 12, 4, 1)),
    )
