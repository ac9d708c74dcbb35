"""What `kquant.analysis.anatomy` says of a block, against published figures and the format modules."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

from kquant.analysis.anatomy import arithmetic, fields, parts, picture
from kquant.errors import UnsupportedTypeError
from kquant.formats import format_of, has_format
from kquant.types import TensorType

WITH_CODEC = [t for t in TensorType if has_format(t)]

# as the pages of llama.cpp and the literature have it: bits of quants, scales, mins, d and dmin
PUBLISHED = {
    "Q2_K": [256 * 2, 16 * 4, 16 * 4, 16, 16],
    "Q3_K": [256 * 3, 16 * 6, 16],
    "Q4_K": [256 * 4, 8 * 6, 8 * 6, 16, 16],
    "Q5_K": [256 * 5, 8 * 6, 8 * 6, 16, 16],
    "Q6_K": [256 * 6, 16 * 8, 16],
    "Q8_K": [256 * 8, 32, 16 * 16],
    "Q4_0": [32 * 4, 16],
    "Q5_1": [32 * 5, 16, 16],
    "Q8_0": [32 * 8, 16],
    "F16": [16],
    "F32": [32],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parts_are_the_published_ones(name: str) -> None:
    assert [part.total for part in parts(name)] == PUBLISHED[name]


@pytest.mark.parametrize("t", WITH_CODEC, ids=lambda t: t.name)
def test_every_bit_belongs_to_one_part_and_every_byte_to_one_field(t: TensorType) -> None:
    assert sum(part.total for part in parts(t)) == 8 * t.type_size
    assert arithmetic(t).endswith(f"= {8 * t.type_size} bits / {t.block_size} = {t.bits_per_element:g}")
    at = 0
    for field in fields(t):
        assert field.offset == at
        at += field.nbytes
    assert at == t.type_size


@pytest.mark.parametrize("t", WITH_CODEC, ids=lambda t: t.name)
def test_every_bit_of_a_block_changes_one_number_only(t: TensorType) -> None:
    blocks = np.zeros((8 * t.type_size + 1, t.type_size), np.uint8)
    bit = np.arange(8 * t.type_size)
    blocks[bit, bit // 8] = 1 << bit % 8
    unpacked = format_of(t).unpack(blocks)
    changed = {part.name: 0 for part in parts(t)}
    for name, values in unpacked.items():
        raw = np.ascontiguousarray(values.reshape(len(blocks), -1))
        raw = raw.view(f"u{raw.dtype.itemsize}")
        changed[name] = int(np.count_nonzero(raw[:-1] != raw[-1:]))
    assert changed == {part.name: part.total for part in parts(t)}


@pytest.mark.parametrize("t", WITH_CODEC, ids=lambda t: t.name)
def test_the_picture_is_the_text_of_the_room(t: TensorType) -> None:
    def words(text: str) -> list[str]:
        return text.replace("`", "").split()

    doc = inspect.cleandoc(format_of(t).description)
    assert words(picture(t)) == words(doc)
    assert "`" not in picture(t)
    for letters in re.findall(r"``(.+?)``  (?=\S)", doc):
        assert f"{letters}      " in picture(t)


def test_types_without_a_codec() -> None:
    assert picture("IQ2_XXS") == (
        "IQ2_XXS: 2.0625 bits per element; 66 bytes for 256. kquant knows its size, but has no codec for it."
    )
    assert picture(4) == "Q4_2 (id 4): ggml has removed this type."
    with pytest.raises(
        UnsupportedTypeError, match="IQ2_XXS: ggml defines this type, but kquant has no codec"
    ):
        parts("IQ2_XXS")


def test_meanings() -> None:
    assert [part.meaning for part in parts("Q4_K")] == [
        "quants",
        "scales",
        "mins",
        "scale",
        "scale of the mins",
    ]
    assert [part.meaning for part in parts("Q5_1")] == ["quants", "minimum", "scale"]
