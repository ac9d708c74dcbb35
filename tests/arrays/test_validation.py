"""`codec.validate` refuses what `ggml_validate_row_data` refuses, and says where it is."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.arrays import codec
from kquant.errors import InvalidDataError, ShapeError
from kquant.formats import format_of
from kquant.types import TensorType
from support import golden, naive

HALF_FIELDS = [(t, at) for t, places in naive.HALVES.items() for at in places]
BAD_HALVES = {"inf": 0x7C00, "-inf": 0xFC00, "nan": 0x7E00, "signalling nan": 0x7C01}
GOOD_HALVES = {"largest": 0x7BFF, "smallest": 0x0001, "minus zero": 0x8000}
SINGLES = {"F32": "x", "Q8_K": "d"}


def zero_rows(type_name: str) -> NDArray[Any]:
    """Two rows of three blocks, all of whose bytes are zero."""
    return np.zeros((2, 3 * TensorType[type_name].type_size), np.uint8)


def place(rows: NDArray[Any], type_name: str, at: int, pattern: bytes) -> None:
    """Write at an offset of the last block of the second row."""
    start = 2 * TensorType[type_name].type_size + at
    rows[1, start : start + len(pattern)] = list(pattern)


def field_at(type_name: str, at: int) -> str:
    return next(field.name for field in format_of(TensorType[type_name]).fields if field.offset == at)


def refused(type_name: str, field: str, row: int = 1, block: int = 2) -> Any:
    message = (
        f"{type_name}: expected finite numbers, got NaN or infinity for {field} in row {row}, block {block}"
    )
    return pytest.raises(InvalidDataError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize("bits", BAD_HALVES.values(), ids=BAD_HALVES)
@pytest.mark.parametrize(("type_name", "at"), HALF_FIELDS)
def test_every_half_is_looked_at(type_name: str, at: int, bits: int) -> None:
    rows = zero_rows(type_name)
    codec.validate(rows, type_name)
    place(rows, type_name, at, struct.pack("<H", bits))
    with refused(type_name, field_at(type_name, at)):
        codec.validate(rows, type_name)


@pytest.mark.parametrize("bits", GOOD_HALVES.values(), ids=GOOD_HALVES)
@pytest.mark.parametrize(("type_name", "at"), HALF_FIELDS)
def test_finite_halves_pass(type_name: str, at: int, bits: int) -> None:
    rows = zero_rows(type_name)
    place(rows, type_name, at, struct.pack("<H", bits))
    codec.validate(rows, type_name)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(("type_name", "name"), SINGLES.items())
def test_single_precision(type_name: str, name: str, value: float) -> None:
    rows = zero_rows(type_name)
    place(rows, type_name, 0, struct.pack("<f", value))
    with refused(type_name, name):
        codec.validate(rows, type_name)
    place(rows, type_name, 0, struct.pack("<f", np.finfo(np.float32).max))
    codec.validate(rows, type_name)


@pytest.mark.parametrize(
    ("bits", "good"), [(0x7F80, False), (0xFF80, False), (0x7F81, False), (0x7F7F, True)]
)
def test_bf16(bits: int, good: bool) -> None:
    rows = zero_rows("BF16")
    place(rows, "BF16", 0, struct.pack("<H", bits))
    if good:
        codec.validate(rows, "BF16")
    else:
        with refused("BF16", "x"):
            codec.validate(rows, "BF16")


@pytest.mark.parametrize("type_name", sorted(set(golden.TYPES) - {"Q8_1"}))
def test_what_ggml_wrote_is_valid(type_name: str) -> None:
    """ggml itself validates no Q8_1, and writes infinite sums of large values there."""
    for case in golden.quantized(type_name):
        codec.validate(case.bytes, type_name)


@pytest.mark.parametrize("type_name", ["F32", *golden.TYPES])
@pytest.mark.parametrize("blocks", [0, 1, 5])
def test_shapes(type_name: str, blocks: int) -> None:
    size = TensorType[type_name].type_size
    codec.validate(np.zeros(blocks * size, np.uint8), type_name)
    codec.validate(np.zeros((2, 3, blocks * size), np.uint8), type_name)
    codec.validate(np.zeros((0, blocks * size), np.uint8), type_name)


def test_not_a_whole_number_of_blocks() -> None:
    with pytest.raises(ShapeError, match=r"^Q4_K: expected rows of a multiple of 144 bytes, got 143 bytes$"):
        codec.validate(np.zeros((2, 143), np.uint8), "Q4_K")


def test_too_large_for_a_half() -> None:
    """Quantizing unchecked overflows as ggml does; validating then finds it, as llama-quantize does."""
    packed = codec.quantize(np.full((1, 32), 1e30, np.float32), "Q8_0", check=False)
    with refused("Q8_0", "d", row=0, block=0):
        codec.validate(packed, "Q8_0")
