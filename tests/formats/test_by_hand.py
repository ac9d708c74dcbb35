"""One block of each format, worked by hand on paper: the bytes, and the numbers that they stand for.

fp16 numbers used below: 0x3c00 = 1, 0x3800 = 1/2, 0x3400 = 1/4, 0x2c00 = 1/16, 0xbc00 = -1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.arrays import codec
from kquant.kernels.execute import Execution

LEVELS = range(32)
IQ4_NL_LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]


def block(*parts: str) -> NDArray[Any]:
    """Bytes written in hexadecimal; `"e4 * 64"` repeats them."""
    data = b""
    for part in parts:
        text, _, times = part.partition("*")
        data += bytes.fromhex(text) * int(times or 1)
    return np.frombuffer(data, np.uint8)


def runs(values: list[float], length: int, **marked: float) -> NDArray[Any]:
    """Each value `length` times; `at_7=x` sets the element 7."""
    x = np.repeat(np.array(values, np.float32), length)
    for name, value in marked.items():
        x[int(name.removeprefix("at_"))] = value
    return x


SIMPLE = {
    # levels 0..15, then 15..0, with 8 for zero; d = 1/2
    "Q4_0": (
        block("00 38", "f0 e1 d2 c3 b4 a5 96 87 78 69 5a 4b 3c 2d 1e 0f"),
        [(i - 8) / 2 for i in range(16)] + [(7 - i) / 2 for i in range(16)],
    ),
    # the same levels; d = 1/4, m = -1
    "Q4_1": (
        block("00 34", "00 bc", "f0 e1 d2 c3 b4 a5 96 87 78 69 5a 4b 3c 2d 1e 0f"),
        [i / 4 - 1 for i in range(16)] + [2.75 - i / 4 for i in range(16)],
    ),
    # level i for element i, with 16 for zero: the upper half has its fifth bit set; d = 1/2
    "Q5_0": (
        block("00 38", "00 00 ff ff", "00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff"),
        [(i - 16) / 2 for i in LEVELS],
    ),
    # the same levels; d = 1/4, m = -1
    "Q5_1": (
        block("00 34", "00 bc", "00 00 ff ff", "00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff"),
        [i / 4 - 1 for i in LEVELS],
    ),
    # entry i of the table for element i, then from the end; d = 1/2
    "IQ4_NL": (
        block("00 38", "f0 e1 d2 c3 b4 a5 96 87 78 69 5a 4b 3c 2d 1e 0f"),
        [v / 2 for v in IQ4_NL_LEVELS + IQ4_NL_LEVELS[::-1]],
    ),
    # 0 1/2 1 3/2 2 3 4 6 with either sign, but no -0, and then zeros; e = 128 doubles them
    "MXFP4": (
        block("80", "00 01 02 03 04 05 06 07 00 09 0a 0b 0c 0d 0e 0f"),
        [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12] + [0] * 16,
    ),
    # -127, 127, then 1 and -1 alternately; d = 1/2
    "Q8_0": (block("00 38", "81 7f", "01 ff * 15"), [-63.5, 63.5] + [0.5, -0.5] * 15),
    # 127, then thirty-one times 1: their sum is 158, times d = 1/2 is 79 (0x54f0)
    "Q8_1": (block("00 38", "f0 54", "7f", "01 * 31"), [63.5] + [0.5] * 31),
}

SCALES_AND_MINIMA = "41 82 c3 c4  40 81 c2 c3  01 12 23 ff"
"""Scales 1 2 3 4 17 34 51 63 and minima 0 1 2 3 16 33 50 63, six bits each.

The last four have their low four bits in the third group, and their high two bits on top of the first
and second: 17 is 01 0001, so 1 of the third group and 01 on top of the scale 1, which makes 0x41.
"""

SUPER = {
    # scales j, minima 15 - j; the four levels of each byte 0xe4 are 0 1 2 3; d = 1, dmin = 1/2.
    # Sub-block 6: 1 * 6 * 3 - 1/2 * 9 = 13.5.  One byte is 0xe7: level 3 at element 128 + 5.
    "Q2_K": (
        block(
            "f0 e1 d2 c3 b4 a5 96 87 78 69 5a 4b 3c 2d 1e 0f",
            "e4 * 32",
            "e4 * 5",
            "e7",
            "e4 * 26",
            "00 3c",
            "00 38",
        ),
        runs([-7.5, -7, -4.5, -3, 2.5, 5, 13.5, 17, -3.5, -3, 7.5, 9, 22.5, 25, 41.5, 45], 16, at_133=20.5),
    ),
    # scales j - 8, stored as 24 + j; levels 0 1 2 3, less 4 where the mask 0x55 has no bit: 0 -3 2 -1;
    # d = 1/2.  Sub-block 2: 1/2 * -6 * -3 = 9.  One mask is 0x51: level 2 - 4 at element 64 + 5.
    "Q3_K": (
        block("55 * 5", "51", "55 * 26", "e4 * 64", "08 19 2a 3b 4c 5d 6e 7f", "a5 a5 a5 a5", "00 38"),
        runs([0, 0, 9, 7.5, -4, -3, 1, 0.5, 0, 0, -3, -4.5, 4, 5, -3, -3.5], 16, at_69=4),
    ),
    # levels 3 and 8 alternately; d = 1/16, dmin = 1/2.  Sub-block 4: 1/16 * 17 * 3 - 1/2 * 16 = -4.8125.
    # One byte is 0x8f: level 15 at element 128 + 7.
    "Q4_K": (
        block("00 2c", "00 38", SCALES_AND_MINIMA, "83 * 71", "8f", "83 * 56"),
        runs([0.1875, 0.5, -0.4375, 0.5, -4.8125, 0.5, -15.4375, 0], 32, at_135=7.9375),
    ),
    # the same, with the fifth bit (0xaa) of every other sub-block: levels 3 and 24.
    # One such byte is 0xba: level 19 at element 128 + 7.
    "Q5_K": (
        block("00 2c", "00 38", SCALES_AND_MINIMA, "aa * 7", "ba", "aa * 24", "83 * 128"),
        runs([0.1875, 2.5, -0.4375, 4.5, -4.8125, 34.5, -15.4375, 63], 32, at_135=12.1875),
    ),
    # scales j - 8; low bits 3 3 8 8, high bits 0 1 2 3: levels 3 19 40 56, less 32; d = 1/2.
    # Sub-block 0: 1/2 * -8 * -29 = 116.  One byte is 0x8f: level 31 - 32 at element 128 + 33.
    "Q6_K": (
        block("83 * 97", "8f", "83 * 30", "e4 * 64", "f8f9fafbfcfdfeff", "0001020304050607", "00 38"),
        runs([116, 101.5, 39, 32.5, -16, -12, -24, -12, 0, -14.5, -13, -19.5, 16, 20, 72, 84], 16, at_161=-1),
    ),
    # 127, -127, then zeros; the sums of each 16 follow; d = 1/4 as a float32
    "Q8_K": (block("00 00 80 3e", "7f 81", "00 * 254", "00 * 32"), [31.75, -31.75] + [0] * 254),
}

NUMBERS = {
    # 1, the smallest number of all, the largest, minus zero
    "F16": (block("00 3c", "01 00", "ff 7b", "00 80"), [1, 2.0**-24, 65504, -0.0]),
    "BF16": (block("80 3f", "01 00", "49 40", "00 80"), [1, 2.0**-133, 3.140625, -0.0]),
    "F32": (block("00 00 80 3f", "01 00 00 00", "db 0f 49 40", "00 00 00 80"), [1, 2.0**-149, np.pi, -0.0]),
}

both = pytest.mark.parametrize("execution", ["numba", "numpy"])


@both
@pytest.mark.parametrize("type_name", [*SIMPLE, *SUPER, *NUMBERS])
def test_decode(type_name: str, execution: Execution) -> None:
    data, values = (SIMPLE | SUPER | NUMBERS)[type_name]
    got = codec.dequantize(data, type_name, execution=execution)
    assert got.tolist() == np.array(values, np.float32).tolist()


@both
@pytest.mark.parametrize("type_name", [*SIMPLE, *NUMBERS, "Q8_K"])
def test_encode(type_name: str, execution: Execution) -> None:
    """Their extremes are levels of the block, so that no search is needed to find its scale."""
    data, values = (SIMPLE | SUPER | NUMBERS)[type_name]
    if type_name == "Q8_K":  # the first extreme becomes -127, whatever its sign: d = -1/4
        data = block("00 00 80 be", "81 7f", "00 * 254", "00 * 32")
    got = codec.quantize(np.array(values, np.float32), type_name, execution=execution)
    assert got.tobytes().hex() == data.tobytes().hex()


@both
@pytest.mark.parametrize(
    ("type_name", "value", "bits"),
    [
        ("F16", 1 + 2.0**-11, 0x3C00),  # a tie: rounds down to even
        ("F16", 1 + 3 * 2.0**-11, 0x3C02),  # a tie: rounds up to even
        ("F16", 1 + 2.0**-11 + 2.0**-20, 0x3C01),
        ("F16", 2.0**-25, 0x0000),
        ("F16", 3 * 2.0**-26, 0x0001),
        ("BF16", 1 + 2.0**-8, 0x3F80),
        ("BF16", 1 + 3 * 2.0**-8, 0x3F82),
        ("BF16", -np.pi, 0xC049),
    ],
)
def test_rounding(type_name: str, value: float, bits: int, execution: Execution) -> None:
    got = codec.quantize(np.array([value], np.float32), type_name, execution=execution)
    assert got.view("<u2").tolist() == [bits]


@both
@pytest.mark.parametrize("type_name", ["Q4_0", "Q5_0"])
def test_a_block_of_zeros_has_a_negative_scale(type_name: str, execution: Execution) -> None:
    """ggml divides the largest element by -8 or -16, also when that element is +0."""
    packed = codec.quantize(np.zeros(32, np.float32), type_name, execution=execution)
    assert packed[:2].tobytes().hex() == "0080"


@both
@pytest.mark.parametrize(("first", "m"), [(0.0, "0000"), (-0.0, "0080")])
@pytest.mark.parametrize("type_name", ["Q4_1", "Q5_1"])
def test_the_first_of_two_zeros_is_the_minimum(
    type_name: str, first: float, m: str, execution: Execution
) -> None:
    x = np.array([first, -first] * 16, np.float32)
    packed = codec.quantize(x, type_name, execution=execution)
    assert packed[2:4].tobytes().hex() == m
