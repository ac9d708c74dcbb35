"""Every operation of the kernel language gives the same bits under NumPy and compiled by Numba."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.errors import TypingError
from numpy.typing import NDArray

from kquant.kernels import compile as jit
from kquant.kernels.compile import compiled, lane_count
from kquant.kernels.execute import aligned_empty
from kquant.kernels.language.lanes import (
    FEW,
    ROUNDING_RANGE,
    Lanes,
    Rows,
    as_float,
    as_int,
    bits_of_float,
    count_up,
    fence,
    float_of_bits,
    float_of_half,
    gather_tile,
    half_bits,
    half_bits_of_number,
    larger,
    load,
    load_half,
    load_run,
    load_run_signed,
    nearest_int,
    nearest_quotient,
    round_even,
    run_half,
    scatter_tile,
    smaller,
    store,
    store_half,
    store_run,
    streamed,
    update,
    update_rows,
    where,
    zeros,
)
from kquant.kernels.language.mark import kernel
from kquant.kernels.lowering import halves as simd_half

pytestmark = pytest.mark.usefixtures("compiled_here")

LANES = lane_count()
f32 = np.float32
ONE, ZERO = f32(1), f32(0)

FLOATS = np.array(
    [
        *(
            0.0,
            0.5,
            1.0,
            1.5,
            2.5,
            3.49999976,
            126.5,
            127.0,
            1 / 3,
            0.1,
            1e-8,
            1e-15,
            6e-8,
            5.9604645e-8,
            1e30,
        ),
        *(4194302.5, 4194303.0, 4194303.5, 8388607.5, 8388608.0, 12582912.0, 2.0**31, 65504.0, 65519.996),
        *(
            65520.0,
            1e38,
            3.4028235e38,
            1.1754944e-38,
            1.1754942e-38,
            1e-45,
            6.1035156e-5,
            6.097555e-5,
            np.inf,
        ),
    ],
    np.float32,
)
FLOATS = np.concatenate(
    [FLOATS, -FLOATS, np.array([0x7FC00000, 0xFFC00001, 0x7F800001, 0xFFBFFFFF], np.uint32).view(np.float32)]
)
INTEGERS = np.array(
    [0, 1, 2, 3, 31, 32, 127, 128, 255, 256, 32767, 65535, 0x7FFFFF, 0x800000, 16777217, 2**31 - 1], np.int64
)
INTEGERS = np.concatenate([INTEGERS, -INTEGERS, [-(2**31)]]).astype(np.int32)


def rows_of(values: NDArray[Any]) -> NDArray[Any]:
    """Any number of values as rows of lanes; the last value fills up the last row."""
    n = -(-len(values) // LANES) * LANES
    filled: NDArray[Any] = np.concatenate([values, np.repeat(values[-1:], n - len(values))])
    return filled.reshape(-1, LANES)


def pairs_of(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Every pair, as rows of lanes."""
    first, second = np.array(list(itertools.product(values, repeat=2)), values.dtype).T
    return rows_of(first), rows_of(second)


def assert_same(words: Sequence[str], numpy: NDArray[Any], numba: NDArray[Any], what: str) -> None:
    """Equal bits for each word; NaN equals NaN."""
    same = numpy.view(np.int32) == numba.view(np.int32)
    if numpy.dtype == np.float32:
        same |= np.isnan(numpy) & np.isnan(numba)
    for k, word in enumerate(words):
        bad = np.argwhere(~same[k :: len(words)])
        if len(bad):
            at = tuple(bad[0])
            a, b = numpy[k :: len(words)][at], numba[k :: len(words)][at]
            raise AssertionError(f"{what}: {word}: {len(bad)} differ; at {at} NumPy {a!r}, Numba {b!r}")


def both(
    driver: Callable[..., Any], signature: str, inputs: Sequence[NDArray[Any]], *outs: NDArray[Any]
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Runs a kernel in both executions: what each wrote to copies of `outs`."""
    by_numpy, by_numba = [out.copy() for out in outs], [out.copy() for out in outs]
    with np.errstate(all="ignore"):
        driver(*inputs, *by_numpy)
    compiled(driver, signature, driver.__name__)(*inputs, *by_numba)
    return list(zip(by_numpy, by_numba, strict=True))


def out(n_words: int, like: NDArray[Any], dtype: Any = np.float32) -> NDArray[Any]:
    return np.full((n_words * len(like), LANES), 77, dtype)


# ---------------------------------------------------------------- floats

PAIR_WORDS = (
    *("a + b", "a - b", "a * b", "a / b", "smaller", "larger"),
    *("a < b", "a <= b", "a > b", "a >= b", "a == b", "a != b", "where", "~(a < b)", "& |"),
)


@kernel
def truth(condition: Lanes) -> Lanes:
    return where(condition, ONE, ZERO)


@kernel
def float_pairs(x: Rows, y: Rows, out: Rows) -> None:
    for i in range(x.shape[0]):
        a, b = load(x, i), load(y, i)
        store(out, 15 * i, a + b)
        store(out, 15 * i + 1, a - b)
        store(out, 15 * i + 2, a * b)
        store(out, 15 * i + 3, a / b)
        store(out, 15 * i + 4, smaller(a, b))
        store(out, 15 * i + 5, larger(a, b))
        store(out, 15 * i + 6, truth(a < b))
        store(out, 15 * i + 7, truth(a <= b))
        store(out, 15 * i + 8, truth(a > b))
        store(out, 15 * i + 9, truth(a >= b))
        store(out, 15 * i + 10, truth(a == b))
        store(out, 15 * i + 11, truth(a != b))
        store(out, 15 * i + 12, where(a < b, a, b * b))
        store(out, 15 * i + 13, truth(~(a < b)))
        store(out, 15 * i + 14, truth(((a < b) & (b < ONE)) | (a == b)))


FLOATS_2 = "R(float32, 2), R(float32, 2), float32[:, ::1]"


def test_pairs_of_floats() -> None:
    x, y = pairs_of(FLOATS)
    ((numpy, numba),) = both(float_pairs, FLOATS_2, (x, y), out(15, x))
    assert_same(PAIR_WORDS, numpy, numba, "floats")


@kernel
def quotients(x: Rows, y: Rows, out: Rows) -> None:
    for i in range(x.shape[0]):
        store(out, i, nearest_quotient(load(x, i), load(y, i)))


def test_nearest_quotients() -> None:
    """Rows in which every lane is far from a tie, rows in which some are next to one, and anything."""
    rng = np.random.default_rng(12)
    shape = (4000, LANES)
    y = (rng.standard_normal(shape) * np.exp2(rng.integers(-100, 100, shape[:1]))[:, None]).astype(np.float32)
    whole = rng.integers(-380, 380, shape)
    far = ((whole + rng.uniform(-0.499, 0.499, shape)) * y).astype(np.float32)
    near = np.nextafter(
        ((whole + 0.5) * y).astype(np.float32), rng.choice(np.array([-9e30, 9e30], np.float32), shape)
    )
    bits = rng.integers(0, 1 << 32, (2, *shape), np.uint32).view(np.float32)
    anything, divisors = pairs_of(FLOATS)
    x = np.concatenate([far, near, bits[0], anything])
    y = np.concatenate([y, y, bits[1], divisors])
    ((numpy, numba),) = both(quotients, FLOATS_2, (x, y), out(1, x))
    assert_same(("nearest_quotient",), numpy, numba, "floats")


@kernel
def clamps(x: Rows, y: Rows, out: Rows) -> None:
    for i in range(x.shape[0]):
        a, b = load(x, i), load(y, i)
        store(out, 3 * i, np.minimum(a, b))
        store(out, 3 * i + 1, np.maximum(a, b))
        store(out, 3 * i + 2, np.fmax(a, b))


def test_minimum_and_maximum_of_what_can_be_compared() -> None:
    """NaN and the signs of equal zeros are for `smaller` and `larger`."""
    values = FLOATS[np.isfinite(FLOATS) | np.isinf(FLOATS)]
    x, y = pairs_of(values[(values != 0) | ~np.signbit(values)])
    ((numpy, numba),) = both(clamps, FLOATS_2, (x, y), out(3, x))
    assert_same(("minimum", "maximum", "fmax"), numpy, numba, "clamps")


@kernel
def float_words(x: Rows, out: Rows, integers: Rows) -> None:
    for i in range(x.shape[0]):
        a = load(x, i)
        store(out, 11 * i, np.abs(a))
        store(out, 11 * i + 1, np.sqrt(a))
        store(out, 11 * i + 2, -a)
        store(out, 11 * i + 3, round_even(a))
        store(out, 11 * i + 4, nearest_int(a))
        store(out, 11 * i + 5, a + 3)
        store(out, 11 * i + 6, 2 - a)
        store(out, 11 * i + 7, a * 0.1)
        store(out, 11 * i + 8, ONE / a)
        store(out, 11 * i + 9, f32(0.3))
        store(out, 11 * i + 10, zeros(x))
        store(integers, 2 * i, bits_of_float(a))
        store(integers, 2 * i + 1, half_bits(a))


FLOAT_WORDS = (
    "abs",
    "sqrt",
    "-a",
    "round_even",
    "nearest_int",
    "a + 3",
    "2 - a",
    "a * 0.1",
    "1 / a",
    "c",
    "zeros",
)


def test_floats() -> None:
    bits = np.random.default_rng(1).integers(0, 1 << 32, 50_000, np.uint32)
    x = rows_of(np.concatenate([FLOATS, bits.view(np.float32)]))
    signature = "R(float32, 2), float32[:, ::1], int32[:, ::1]"
    floats, integers = both(float_words, signature, (x,), out(11, x), out(2, x, np.int32))
    assert_same(FLOAT_WORDS, *floats, "floats")
    assert_same(("bits_of_float", "half_bits"), *integers, "bits")
    inside = x[np.abs(x) <= ROUNDING_RANGE]
    assert np.array_equal(round_even(inside), np.rint(inside))
    assert np.array_equal(nearest_int(inside), np.rint(inside))


# ---------------------------------------------------------------- integers

INTEGER_WORDS = (
    *("a + b", "a - b", "a * b", "a & b", "a | b", "a << b", "a >> b", "a << 4", "a >> 4", "a & 15"),
    *("smaller", "larger", "where", "7 - a", "a < b", "a == 3"),
)


@kernel
def integer_pairs(x: Rows, y: Rows, out: Rows) -> None:
    for i in range(x.shape[0]):
        a, b = load(x, i), load(y, i)
        store(out, 16 * i, a + b)
        store(out, 16 * i + 1, a - b)
        store(out, 16 * i + 2, a * b)
        store(out, 16 * i + 3, a & b)
        store(out, 16 * i + 4, a | b)
        store(out, 16 * i + 5, a << (b & 31))
        store(out, 16 * i + 6, a >> (b & 31))
        store(out, 16 * i + 7, a << 4)
        store(out, 16 * i + 8, a >> 4)
        store(out, 16 * i + 9, a & 15)
        store(out, 16 * i + 10, smaller(a, b))
        store(out, 16 * i + 11, larger(a, b))
        store(out, 16 * i + 12, where(a <= b, a, 9))
        store(out, 16 * i + 13, 7 - a)
        store(out, 16 * i + 14, where(a < b, a, b))
        store(out, 16 * i + 15, where(a == 3, 1, b))


def test_pairs_of_integers() -> None:
    x, y = pairs_of(INTEGERS)
    signature = "R(int32, 2), R(int32, 2), int32[:, ::1]"
    ((numpy, numba),) = both(integer_pairs, signature, (x, y), out(16, x, np.int32))
    assert_same(INTEGER_WORDS, numpy, numba, "integers")


@kernel
def conversions(x: Rows, y: Rows, out: Rows, integers: Rows) -> None:
    for i in range(x.shape[0]):
        store(out, 2 * i, as_float(load(x, i)))
        store(out, 2 * i + 1, float_of_bits(load(x, i)))
        store(integers, i, as_int(load(y, i)))


def test_conversions() -> None:
    rng = np.random.default_rng(2)
    x = rows_of(np.concatenate([INTEGERS, rng.integers(-(2**31), 2**31, 5000).astype(np.int32)]))
    y = (rng.standard_normal(x.shape) * np.exp2(rng.integers(-10, 28, x.shape))).astype(np.float32)
    signature = "R(int32, 2), R(float32, 2), float32[:, ::1], int32[:, ::1]"
    floats, integers = both(conversions, signature, (x, y), out(2, x), out(1, x, np.int32))
    assert_same(("as_float", "float_of_bits"), *floats, "from integers")
    assert_same(("as_int",), *integers, "to integers")


@kernel
def halves(x: Rows, out: Rows) -> None:
    for i in range(x.shape[0]):
        store(out, i, float_of_half(load(x, i)))


def test_every_half() -> None:
    x = np.arange(65536, dtype=np.uint16).reshape(-1, LANES)
    ((numpy, numba),) = both(halves, "R(uint16, 2), float32[:, ::1]", (x,), out(1, x))
    assert np.array_equal(numpy.view(np.int32), numba.view(np.int32))  # NaNs, too: each is quiet
    want = x.view(np.float16).astype(np.float32)
    assert np.array_equal(numpy, want, equal_nan=True)
    numbers = ~np.isnan(want)
    assert np.array_equal(half_bits(numpy)[numbers], x[numbers])


def test_halves_without_a_processor_that_knows_them() -> None:
    """Every pattern of fp16; of float32, every one that differs where rounding could."""
    patterns = np.arange(65536, dtype=np.int32)
    want = float_of_half(patterns)
    assert np.array_equal(simd_half.float_of_half(patterns).view(np.int32), want.view(np.int32))
    low = np.array([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF], np.uint32)
    random = np.random.default_rng(13).integers(0, 1 << 32, 1_000_000, np.uint32)
    for bits in ((np.arange(1 << 19, dtype=np.uint32)[:, None] << 13 | low).reshape(-1), random):
        x = bits.view(np.float32)
        with np.errstate(all="ignore"):
            x = x[~np.isnan(x)]
            assert np.array_equal(simd_half.half_bits_of_number(x), half_bits_of_number(x))


@pytest.mark.processors
def test_a_processor_without_halves_gives_the_same_bytes(tmp_path: Path) -> None:
    """LLVM has no instruction for it there, and Numba no function."""
    code = (
        "import sys, numpy as np; from kquant.arrays import codec\n"
        "from kquant.kernels.lowering.isa.facts import CONVERTS_HALVES\n"
        "assert not CONVERTS_HALVES\n"
        "codec.dequantize(np.arange(65536, dtype='<u2').view(np.uint8), 'F16').tofile(sys.argv[1])\n"
        "codec.quantize(np.load(sys.argv[2]), 'F16', check=False).tofile(sys.argv[1] + '2')"
    )
    bits = np.random.default_rng(14).integers(0, 1 << 32, 1 << 16, np.uint32)
    x = np.concatenate([FLOATS, bits.view(np.float32)])
    np.save(tmp_path / "x.npy", x[np.isfinite(x)])
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "KQUANT_CACHE_DIR": "",
    }
    command = [sys.executable, "-c", code, str(tmp_path / "y"), str(tmp_path / "x.npy")]
    subprocess.run(command, check=True, env=environment)
    patterns = np.arange(65536, dtype=np.int32)
    assert (tmp_path / "y").read_bytes() == float_of_half(patterns).tobytes()
    with np.errstate(over="ignore"):
        want = x[np.isfinite(x)].astype("<f2")
    assert (tmp_path / "y2").read_bytes() == want.tobytes()


# ---------------------------------------------------------------- rows and runs of bytes


@kernel
def rows_to_bytes(values: Rows, integers: Rows, out: Rows) -> None:
    for i in range(values.shape[0]):
        store(out, 5 * i, load(values, i))
        store(out, 5 * i + 1, load(integers, i))
        store(out, 5 * i + 2, 200)
        store_half(out, 5 * i + 3, load(values, i))


def test_bytes_to_rows_and_back() -> None:
    rng = np.random.default_rng(3)
    values = rows_of((rng.standard_normal(4000) * 300).astype(np.float32))
    integers = rng.integers(-(2**31), 2**31, values.shape).astype(np.int32)
    signature = "R(float32, 2), R(int32, 2), uint8[:, ::1]"
    ((numpy, numba),) = both(rows_to_bytes, signature, (values, integers), out(5, values, np.uint8))
    assert np.array_equal(numpy, numba)
    assert np.array_equal(numpy[::5], values.astype(np.int32).astype(np.uint8))
    assert np.array_equal(numpy[1::5], integers.astype(np.uint8))
    assert np.all(numpy[2::5] == 200)


@kernel
def read_rows(x: Rows, out: Rows, integers: Rows) -> None:
    for i in range(x.shape[0] - 1):
        store(integers, i, load(x, i))
        store(out, i, load_half(x, i))


def test_rows_of_bytes() -> None:
    x = np.random.default_rng(4).integers(0, 256, (200, LANES), np.uint8)
    signature = "R(uint8, 2), float32[:, ::1], int32[:, ::1]"
    floats, integers = both(read_rows, signature, (x,), out(1, x[1:]), out(1, x[1:], np.int32))
    assert_same(("load_half",), *floats, "bytes")
    assert np.array_equal(*integers)
    assert np.array_equal(integers[0], x[:-1])


@kernel
def runs(block: Rows, floats: Rows, y: Rows, z: Rows) -> None:
    for b in range(block.shape[0]):
        d = run_half(block[b], 62)
        store_run(y[b], 0, as_float(load_run(block[b], 1, 32)) * d)
        store_run(y[b], 32, as_float(load_run_signed(block[b], 30, 32) << 1) - d)
        store_run(y[b], 64, as_float(load_run(block[b], 3, 16) >> count_up(16)))
        store_run(y[b], 80, load_run(floats[b], 5, 8) + 0.5)
        store_run(z[b], 7, load_run(block[b], 0, 24) - 100)


def test_runs_of_a_block() -> None:
    rng = np.random.default_rng(5)
    block = rng.integers(0, 256, (300, 64), np.uint8)
    floats = rng.standard_normal((300, 16), np.float32)
    signature = "R(uint8, 2), R(float32, 2), float32[:, ::1], uint8[:, ::1]"
    y, z = np.full((300, 96), 77, np.float32), np.full((300, 40), 77, np.uint8)
    decoded, cut = both(runs, signature, (block, floats), y, z)
    assert_same(("runs",), *decoded, "runs")
    assert np.array_equal(*cut)
    assert np.all(decoded[0][:, 88:] == 77)
    assert np.all(cut[0][:, :7] == 77)
    assert np.all(cut[0][:, 31:] == 77)


@kernel
def far_runs(block: Rows, y: Rows, z: Rows) -> None:
    for b in range(block.shape[0]):
        here, there = streamed(block[b]), streamed(y[b])
        store_run(there, 0, as_float(load_run(here, 0, 32)) * run_half(here, 62))
        store_run(there, 32, as_float(load_run_signed(here, 32, 32)))
        store_run(there, 64, as_float(load_run(here, 16, 16)))
        store_run(streamed(z[b]), 0, load_run(here, 0, 64) + 1)
    fence()


def test_runs_past_the_cache() -> None:
    block = np.random.default_rng(7).integers(0, 256, (300, 64), np.uint8)
    y, z = aligned_empty((300, 80), np.float32), aligned_empty((300, 64), np.uint8)
    signature = "R(uint8, 2), float32[:, ::1], uint8[:, ::1]"
    compiled(far_runs, signature, "far_runs")(block, y, z)
    decoded, cut = y.copy(), z.copy()
    far_runs(block, y, z)
    assert_same(("streamed runs",), y, decoded, "streamed runs")
    assert np.array_equal(z, cut)


# ---------------------------------------------------------------- tiles


@kernel
def turn_in(flat: Rows, starts: Rows, rows: Rows) -> None:
    for lane in range(0, rows.shape[1], 16):
        for column in range(0, rows.shape[0], 16):
            gather_tile(flat, starts, lane, column, rows)


@kernel
def turn_out(rows: Rows, starts: Rows, flat: Rows) -> None:
    for lane in range(0, rows.shape[1], 16):
        for column in range(0, rows.shape[0], 16):
            scatter_tile(flat, starts, lane, min(column, rows.shape[0] - 16), rows)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_tiles(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_ready", {})
    rng = np.random.default_rng(6)
    flat = rng.integers(0, 256, 5000).astype(dtype)
    starts = rng.integers(0, 4900, LANES)
    rows = np.zeros((64, LANES), dtype)
    signature = f"R({dtype}, 1), R(int64, 1), {dtype}[:, ::1]"
    ((numpy, numba),) = both(turn_in, signature, (flat, starts), rows)
    assert np.array_equal(numpy, numba)
    assert np.array_equal(numpy, np.stack([flat[start : start + 64] for start in starts], 1))


@pytest.mark.parametrize("n", [16, 34, 84])
def test_tiles_back(n: int) -> None:
    """The last tile overlaps the one before it where 16 does not divide the bytes of a block."""
    rows = np.random.default_rng(7).integers(0, 256, (n, LANES), np.uint8)
    starts = np.arange(LANES)[::-1] * n + 3
    flat = np.full(LANES * n + 9, 77, np.uint8)
    signature = "R(uint8, 2), R(int64, 1), uint8[::1]"
    ((numpy, numba),) = both(turn_out, signature, (rows, starts), flat)
    assert np.array_equal(numpy, numba)
    assert np.array_equal(numpy[3:-6].reshape(LANES, n), rows[:, ::-1].T)
    assert set(numpy[:3]) | set(numpy[-6:]) == {77}


# ---------------------------------------------------------------- conditions


@kernel
def decisions(x: Rows, out: Rows) -> None:
    for i in range(x.shape[0]):
        a = load(x, i)
        if np.all(a > ZERO):
            store(out, i, ONE)
        else:
            store(out, i, a)


def test_all_lanes_decide() -> None:
    x = np.ones((2 * LANES + 2, LANES), np.float32)
    for lane in range(LANES):
        x[lane, lane], x[LANES + lane, lane] = -5, np.nan
    ((numpy, numba),) = both(decisions, "R(float32, 2), float32[:, ::1]", (x,), out(1, x))
    assert_same(("all",), numpy, numba, "all")
    assert np.array_equal(numpy, x, equal_nan=True)


@kernel
def step(a: Lanes, b: Lanes, x: Lanes, constant: Any) -> Any:
    return a + x * constant, where(b > x, x, b)


@kernel
def step_rows(a: Lanes, levels: Rows, x: Rows, constant: Any) -> Any:
    changed = load(x, 0) > a
    store(levels, 1, where(changed, load(x, 1) * constant, load(levels, 1)))
    return (where(changed, load(x, 0), a),)


@kernel
def updates(x: Rows, out: Rows) -> None:
    for i in range(x.shape[0] - 2):
        a, b = update(load(x, i) > ONE, step, (load(x, i), load(x, i + 1)), (load(x, i + 2),), ONE / 3)
        store(out, 2 * i, a)
        store(out, 2 * i + 1, b)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 1])
def test_updates(share: float) -> None:
    rng = np.random.default_rng(8)
    x = np.where(rng.random((40, LANES)) < share, 3, -1) * rng.random((40, LANES), np.float32)
    x = x.astype(np.float32)
    ((numpy, numba),) = both(updates, "R(float32, 2), float32[:, ::1]", (x,), out(2, x[2:]))
    assert_same(("a", "b"), numpy, numba, "update")


@pytest.mark.parametrize("n", [FEW - 1, FEW, FEW + 1, 8 * FEW])
@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 1])
def test_numpy_updates_few_lanes_or_many_alike(n: int, share: float) -> None:
    rng = np.random.default_rng(9)
    condition = rng.random(n) < share
    a, b, x = rng.standard_normal((3, n), np.float32)
    new = step(a, b, x, f32(0.3))
    before = a.copy(), b.copy()
    got = update(condition, step, (a, b), (x,), f32(0.3))
    for value, changed, old in zip(got, new, before, strict=True):
        assert np.array_equal(value, np.where(condition, changed, old))


@pytest.mark.parametrize("n", [FEW - 1, FEW, FEW + 1, 8 * FEW])
@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 1])
def test_numpy_updates_rows_of_few_lanes_or_many_alike(n: int, share: float) -> None:
    """The kernel leaves the rows of other lanes alone: here those in which x is not larger."""
    rng = np.random.default_rng(10)
    x, levels = rng.standard_normal((2, 3, n), np.float32)
    condition = rng.random(n) < share
    a = np.where(condition, f32(0), f32(9))
    expected_levels = levels.copy()
    (expected,) = step_rows(a, expected_levels, x, f32(0.3))
    (got,) = update_rows(condition, step_rows, (a,), (levels,), (x,), f32(0.3))
    assert np.array_equal(got, np.where(condition, expected, a))
    assert np.array_equal(levels, expected_levels)


@pytest.mark.parametrize("n", [1, FEW, FEW + 1, 4 * FEW])
def test_numpy_chooses_in_few_lanes_and_in_many_alike(n: int) -> None:
    rng = np.random.default_rng(11)
    condition = rng.random(n) < 0.5
    floats = rng.integers(0, 1 << 32, (2, n), np.uint32).view(np.float32)
    integers = floats.view(np.int32)
    for a, b in (
        *(floats,),
        *(integers,),
        (floats[0], ZERO),
        (ONE, floats[1]),
        (ONE, ZERO),
        (integers[0], 7),
    ):
        got, want = where(condition, a, b), np.where(condition, a, b)
        assert got.dtype == want.dtype
        assert got.tobytes() == want.tobytes()
    assert where(condition, ONE, ZERO).dtype == np.float32


# ---------------------------------------------------------------- what is no word


@kernel
def mixed(x: Rows, y: Rows) -> None:
    store(x, 0, load(x, 0) + load(y, 0))


@kernel
def fraction_of_an_integer(x: Rows, y: Rows) -> None:
    store(y, 0, load(y, 0) + 0.5)


@kernel
def fraction_for_an_integer(x: Rows, y: Rows) -> None:
    store(y, 0, where(load(y, 0) > 3, load(y, 0), 0.5))


@kernel
def divided_integers(x: Rows, y: Rows) -> None:
    store(y, 0, load(y, 0) / load(y, 0))


@kernel
def runs_of_different_length(x: Rows, y: Rows) -> None:
    store_run(x[0], 0, load_run(x[0], 0, 8) + load_run(x[0], 0, 4))


@kernel
def numbers_in_the_place_of_lanes(x: Rows, y: Rows) -> None:
    store(x, 0, where(load(x, 0) > ZERO, 1, 0))


@pytest.mark.parametrize(
    "wrong",
    [
        mixed,
        fraction_of_an_integer,
        fraction_for_an_integer,
        divided_integers,
        runs_of_different_length,
        numbers_in_the_place_of_lanes,
    ],
)
def test_what_the_executions_would_not_agree_on_does_not_compile(wrong: Callable[..., None]) -> None:
    with pytest.raises(TypingError):
        compiled(wrong, "float32[:, ::1], int32[:, ::1]", wrong.__name__)
