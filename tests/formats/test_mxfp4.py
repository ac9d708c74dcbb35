"""MXFP4: exponents as C's `log2f` has them, the nearest float of four bits at every border between two."""

from __future__ import annotations

import numpy as np
import pytest

import kquant
from kquant.arrays.codec import validate
from kquant.formats.fp4 import mxfp4
from kquant.kernels.execute import Execution

f32 = np.float32
both = pytest.mark.parametrize("execution", ["numba", "numpy"])


@both
def test_exponents_just_below_powers_of_two(execution: Execution) -> None:
    """log2 in double precision, rounded to float32, is what `log2f` gives: none of these is near a tie."""
    powers = np.ldexp(f32(1), np.arange(-125, 128, dtype=np.int32)).astype(f32)
    ulps = np.arange(100, dtype=np.int32)
    magnitudes = (powers.view(np.int32)[:, None] - ulps).view(f32)
    magnitudes = magnitudes[magnitudes >= f32(2.0**-125)]
    x = np.zeros((len(magnitudes), 32), f32)
    x[:, 7] = -magnitudes
    found = mxfp4.unpack(kquant.quantize(x, "MXFP4", execution=execution))["e"][:, 0]
    logarithms = np.log2(magnitudes.astype(np.float64)).astype(f32)
    assert found.tolist() == (np.floor(logarithms) - 2 + 127).astype(int).tolist()


def as_ggml_does(x: np.float32, half_scale: np.float32) -> int:
    """`best_index_mxfp4`: the first of the sixteen whose float32 difference is smallest."""
    with np.errstate(over="ignore"):
        errors = [abs(f32(value) * half_scale - x) for value in mxfp4.DOUBLED]
    return errors.index(min(errors))


@both
@pytest.mark.parametrize("power", [-125, -124, -100, -1, 0, 3, 100, 127])
def test_nearest(power: int, execution: Execution) -> None:
    """Both signs of every border, and of the numbers next to it; 6 fixes the exponent of each block."""
    scale = np.ldexp(f32(1), power - 2).astype(f32)
    borders = np.array([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 7], f32) * scale
    up, down = np.nextafter(borders, f32(np.inf)), np.nextafter(borders, f32(-np.inf))
    values = np.concatenate([borders, up, down])
    values = np.concatenate([values, -values])
    x = np.full((len(values), 32), 6, f32) * scale
    x[:, 5] = values
    fields = mxfp4.unpack(kquant.quantize(x, "MXFP4", execution=execution))
    assert set(fields["e"].ravel().tolist()) == {power - 2 + 127}
    assert fields["q"][:, 0, 5].tolist() == [as_ggml_does(value, scale / f32(2)) for value in values]


@both
def test_blocks_below_the_smallest_exponent(execution: Execution) -> None:
    """Undefined in C: here they have the smallest scale, 2**-127, and its nearest multiples."""
    x = np.ldexp(np.arange(32, dtype=f32) / 4, -127).astype(f32)[None]
    packed = kquant.quantize(x, "MXFP4", execution=execution)
    assert packed[0, 0] == 0
    y = kquant.dequantize(packed, "MXFP4", execution=execution)
    assert np.abs(y - x).max() <= 2 * 2.0**-127
    assert np.array_equal(kquant.quantize(y, "MXFP4", execution=execution), packed)


@both
def test_there_is_no_minus_zero(execution: Execution) -> None:
    packed = kquant.quantize(np.array([-0.0, 6, -0.2, 0.2] * 8, f32), "MXFP4", execution=execution)
    assert not np.any(mxfp4.unpack(packed)["q"] == 8)
    every = np.array([127, *([0x88] * 16)], np.uint8)
    assert not np.signbit(kquant.dequantize(every, "MXFP4", execution=execution)).any()


def test_the_exponent_that_stands_for_no_number() -> None:
    data = np.zeros((2, 3 * 17), np.uint8)
    validate(data, "MXFP4")
    data[1, 17] = 255
    with pytest.raises(kquant.InvalidDataError, match="for e in row 1, block 1"):
        validate(data, "MXFP4")
