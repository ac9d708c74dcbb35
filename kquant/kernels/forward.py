"""What a forward pass does between its matrix products: norms, rotations, gates and attention, compiled.

Sums over a row are those of sixteen lanes, added in the end; those over positions go from the first to the
last.  So no result depends on what is computed beside it.  `kquant.runtime.functions` says the same in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from kquant.kernels.compile import compiled, lane_count
from kquant.kernels.language.lanes import (
    Lanes,
    Rows,
    as_float,
    as_int,
    count_up,
    float_of_bits,
    float_of_half,
    gather_tile,
    larger,
    load_run,
    round_even,
    smaller,
    store_run,
)
from kquant.kernels.language.mark import kernel

__all__ = ["LANES", "NUMBERS", "attend", "multiply", "normalize", "silu_gate"]

LANES = 16
"""Elements that are worked on at a time: heads and rows are whole numbers of them."""

f32 = np.float32

LOG2_E, LN2_HIGH, LN2_LOW = f32(1.44269504), f32(0.693359375), f32(-2.12194440e-4)
LEAST, MOST = f32(-87.0), f32(88.0)
"""Arguments of `exp` whose results are normal numbers."""
EXP = tuple(
    f32(x) for x in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
)
"""Cephes' polynomial for exp(r) - 1 - r over r², |r| <= ln(2) / 2: https://www.netlib.org/cephes/."""
C0, C1, C2, C3, C4, C5 = EXP


@kernel
def exp(x: Lanes) -> Lanes:
    """The exponential, to 2 units of the last place; 0 below -87."""
    inside = larger(smaller(x, MOST), LEAST)
    n = round_even(inside * LOG2_E)
    r = (inside - n * LN2_HIGH) - n * LN2_LOW
    p = ((((C0 * r + C1) * r + C2) * r + C3) * r + C4) * r + C5
    value = (p * (r * r) + r) + f32(1)
    return value * float_of_bits((as_int(n) + 127) << 23)


@kernel
def nothing() -> Lanes:
    """Zeros."""
    return as_float(count_up(LANES)) * f32(0)


@kernel
def sum_of(scratch: Rows, total: Lanes) -> Any:
    """The lanes, added one after the other."""
    store_run(scratch, 0, total)
    s = f32(0)
    for i in range(LANES):
        s = f32(s + scratch[i])
    return s


# ---------------------------------------------------------------- rows


@cache
def _normalize(centered: bool) -> Callable[..., None]:
    @kernel
    def drive(x: Rows, eps: float, weight: Rows, bias: Rows, out: Rows) -> None:
        n, scratch = x.shape[1], np.empty(LANES, np.float32)
        for row in range(x.shape[0]):
            mean = f32(0)
            if centered:
                total = nothing()
                for i in range(0, n, LANES):
                    total = total + load_run(x[row], i, LANES)
                mean = f32(sum_of(scratch, total) / f32(n))
            squares = nothing()
            for i in range(0, n, LANES):
                value = load_run(x[row], i, LANES) - mean
                squares = squares + value * value
            factor = f32(f32(1) / np.sqrt(f32(f32(sum_of(scratch, squares) / f32(n)) + f32(eps))))
            part = row % weight.shape[0]
            for i in range(0, n, LANES):
                value = (load_run(x[row], i, LANES) - mean) * factor * load_run(weight[part], i, LANES)
                if bias.shape[0]:
                    value = value + load_run(bias[row % bias.shape[0]], i, LANES)
                store_run(out[row], i, value)

    return drive


def normalize(centered: bool) -> Any:
    """(x, eps, weight, bias, out): x (n, width), weight (1 or parts, width), bias so or (0, 0)."""
    signature = "R(float32, 2), float64, R(float32, 2), R(float32, 2), float32[:, ::1]"
    return compiled(_normalize(centered), signature, f"forward-{'layer' if centered else 'rms'}_norm")


@kernel
def _silu_gate(gate: Rows, up: Rows, out: Rows) -> None:
    for row in range(gate.shape[0]):
        for i in range(0, gate.shape[1], LANES):
            x = load_run(gate[row], i, LANES)
            store_run(out[row], i, x / (f32(1) + exp(-x)) * load_run(up[row], i, LANES))


def silu_gate() -> Any:
    """(gate, up, out): out = gate * sigmoid(gate) * up, rows of a whole number of lanes."""
    rows = "R(float32, 2)"
    return compiled(_silu_gate, f"{rows}, {rows}, float32[:, ::1]", "forward-silu_gate")


# ---------------------------------------------------------------- products of numbers


@kernel
def _float_from(row: Rows, at: int) -> Lanes:
    return load_run(row, at, LANES)


@kernel
def _half_from(row: Rows, at: int) -> Lanes:
    return float_of_half(load_run(row, at, LANES))


@kernel
def _bfloat_from(row: Rows, at: int) -> Lanes:
    return float_of_bits(load_run(row, at, LANES) << 16)


NUMBERS = {"F32": _float_from, "F16": _half_from, "BF16": _bfloat_from}


@cache
def _multiply(name: str) -> Callable[..., None]:
    number = NUMBERS[name]

    @kernel
    def drive(w: Rows, x: Rows, first: int, last: int, out: Rows) -> None:
        n, width, scratch = x.shape[0], x.shape[1], np.empty(LANES, np.float32)
        whole = n - n % 4
        for row in range(first, last):
            for c in range(0, whole, 4):
                s0, s1, s2, s3 = nothing(), nothing(), nothing(), nothing()
                for i in range(0, width, LANES):
                    value = number(w[row], i)
                    s0 = s0 + value * load_run(x[c], i, LANES)
                    s1 = s1 + value * load_run(x[c + 1], i, LANES)
                    s2 = s2 + value * load_run(x[c + 2], i, LANES)
                    s3 = s3 + value * load_run(x[c + 3], i, LANES)
                out[c, row] = sum_of(scratch, s0)
                out[c + 1, row] = sum_of(scratch, s1)
                out[c + 2, row] = sum_of(scratch, s2)
                out[c + 3, row] = sum_of(scratch, s3)
        for c in range(whole, n):
            row = first
            while row + 4 <= last:
                s0, s1, s2, s3 = nothing(), nothing(), nothing(), nothing()
                for i in range(0, width, LANES):
                    value = load_run(x[c], i, LANES)
                    s0 = s0 + number(w[row], i) * value
                    s1 = s1 + number(w[row + 1], i) * value
                    s2 = s2 + number(w[row + 2], i) * value
                    s3 = s3 + number(w[row + 3], i) * value
                out[c, row] = sum_of(scratch, s0)
                out[c, row + 1] = sum_of(scratch, s1)
                out[c, row + 2] = sum_of(scratch, s2)
                out[c, row + 3] = sum_of(scratch, s3)
                row += 4
            while row < last:
                s0 = nothing()
                for i in range(0, width, LANES):
                    s0 = s0 + number(w[row], i) * load_run(x[c], i, LANES)
                out[c, row] = sum_of(scratch, s0)
                row += 1

    return drive


def multiply(name: str) -> Any:
    """(w, x, first, last, out): rows `first` to `last` of w (m, width), times x (n, width), into out (n, m).

    name: F32, of float32; F16 or BF16, of uint16, their bits.
    """
    number = "float32" if name == "F32" else "uint16"
    signature = f"R({number}, 2), R(float32, 2), intp, intp, float32[:, ::1]"
    return compiled(_multiply(name), signature, f"forward-multiply-{name.lower()}")


# ---------------------------------------------------------------- attention


@cache
def _attend(half: bool, width: int = LANES) -> Callable[..., None]:
    """width: lanes of a row of tiles, as compiled code counts them."""
    number = _half_from if half else _float_from

    @kernel
    def drive(
        q: Rows,
        k: Rows,
        v: Rows,
        starts: Rows,
        ends: Rows,
        first: int,
        last: int,
        group: int,
        size: int,
        value_size: int,
        scale: float,
        soft_cap: float,
        slopes: Rows,
        position: int,
        sinks: Rows,
        out: Rows,
    ) -> None:
        n_head = slopes.shape[0]
        n_most = k.shape[0] + LANES
        scores, partial = np.empty(n_most, np.float32), np.zeros(LANES * LANES, np.float32)
        places, tile = np.arange(LANES) * LANES, np.empty((LANES, width), np.float32)
        scratch = np.empty(LANES, np.float32)
        for unit in range(first, last):
            token, head = unit // n_head, unit % n_head
            start, end = starts[token], ends[token]
            at, slope = head * size, slopes[head]
            key, value_at = head // group * size, head // group * value_size
            for j in range(start, end, LANES):
                for i in range(min(LANES, end - j)):
                    total = nothing()
                    for c in range(0, size, LANES):
                        total = total + load_run(q[token], at + c, LANES) * number(k[j + i], key + c)
                    store_run(partial, i * LANES, total)
                gather_tile(partial, places, 0, 0, tile)
                sums = load_run(tile[0], 0, LANES)
                for i in range(1, LANES):
                    sums = sums + load_run(tile[i], 0, LANES)
                sums = sums * f32(scale)
                if soft_cap:
                    e = exp(sums * f32(2.0 / soft_cap))
                    sums = (f32(1) - f32(2) / (e + f32(1))) * f32(soft_cap)
                store_run(scores, j - start, sums)
            n = end - start
            top = f32(-np.inf)
            for j in range(n):
                if slope:
                    scores[j] = f32(scores[j] - f32(slope * f32(abs(position + token - (start + j)))))
                if scores[j] > top:
                    top = scores[j]
            if sinks.shape[0] and sinks[head] > top:
                top = sinks[head]
            for j in range(n, n + LANES - 1 - (n + LANES - 1) % LANES):
                scores[j] = f32(-np.inf)
            total = nothing()
            for j in range(0, n, LANES):
                e = exp(load_run(scores, j, LANES) - top)
                store_run(scores, j, e)
                if j + LANES <= n:
                    total = total + e
            whole = sum_of(scratch, total)
            for j in range(n - n % LANES, n):
                whole = f32(whole + scores[j])
            if sinks.shape[0]:
                scratch[0] = f32(sinks[head] - top)
                store_run(scratch, 0, exp(load_run(scratch, 0, LANES)))
                whole = f32(whole + scratch[0])
            share = f32(f32(1) / whole)
            for c in range(0, value_size, LANES):
                total = nothing()
                for j in range(n):
                    total = total + number(v[start + j], value_at + c) * scores[j]
                store_run(out[token], head * value_size + c, total * share)

    return drive


def attend(half: bool) -> Any:
    """The attention of units `first` to `last` of tokens times heads.

    Its arguments are q, k, v, starts, ends, first, last, group, size, value_size, scale, soft_cap, slopes,
    position, sinks, out.  q: (n, heads * size); k, v: (positions, heads_kv * size) of float32, or of uint16,
    the bits of fp16; starts, ends: (n,), the positions that each token sees; group: heads that share keys;
    slopes: (heads,), ALiBi's; position: of the first token; sinks: (heads,) or (0,); out: (n, heads *
    value_size).
    """
    rows = f"R({'uint16' if half else 'float32'}, 2)"
    signature = (
        f"R(float32, 2), {rows}, {rows}, R(int64, 1), R(int64, 1), intp, intp, intp, intp, intp, float64, "
        "float64, R(float32, 1), intp, R(float32, 1), float32[:, ::1]"
    )
    name = f"forward-attend-{'f16' if half else 'f32'}"
    return compiled(_attend(half, lane_count()), signature, name)
