"""Fields: the integers that `unpack` finds mean what the format's formula says, and `pack` puts them back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.formats import format_of, has_format
from kquant.types import TensorType
from support import golden, naive
from support.compare import assert_same_bytes, assert_same_floats
from support.strategies import random_blocks

ALL = ("F32", *golden.TYPES)
Fields: TypeAlias = Mapping[str, NDArray[Any]]

f32 = np.float32


def one_scale(zero: int) -> Callable[[Fields], NDArray[np.float32]]:
    def values(f: Fields) -> NDArray[np.float32]:
        numbers: NDArray[np.float32] = (f["q"].astype(f32) - f32(zero)) * f["d"].astype(f32)[..., None]
        return numbers

    return values


def scale_and_minimum(f: Fields) -> NDArray[np.float32]:
    return f["q"].astype(f32) * f["d"].astype(f32)[..., None] + f["m"].astype(f32)[..., None]


def spread(per_sub_block: NDArray[Any]) -> NDArray[np.float32]:
    """One number per sub-block, for each of its elements."""
    return np.repeat(per_sub_block.astype(f32), 256 // per_sub_block.shape[-1], axis=-1)


def affine(f: Fields) -> NDArray[np.float32]:
    d, dmin = f["d"].astype(f32)[..., None], f["dmin"].astype(f32)[..., None]
    return d * spread(f["sc"]) * f["q"].astype(f32) - dmin * spread(f["m"])


def symmetric(scale_zero: int, zero: int) -> Callable[[Fields], NDArray[np.float32]]:
    def values(f: Fields) -> NDArray[np.float32]:
        scales: NDArray[np.float32] = f["d"].astype(f32)[..., None] * (spread(f["sc"]) - f32(scale_zero))
        return scales * (f["q"].astype(f32) - f32(zero))

    return values


def entries_of(table: tuple[int, ...]) -> Callable[[Fields], NDArray[np.float32]]:
    return lambda f: f["d"].astype(f32)[..., None] * np.array(table, f32)[f["q"]]


def floats_of_four_bits(f: Fields) -> NDArray[np.float32]:
    values = np.array([naive.e2m1(q) for q in range(16)], f32)
    scale = np.ldexp(1.0, f["e"].astype(int) - 127)[..., None]
    found: NDArray[np.float32] = (values[f["q"]] * scale).astype(f32)
    return found


FORMULAS: dict[str, Callable[[Fields], NDArray[np.float32]]] = {
    "F32": lambda f: f["x"].astype(f32)[..., None],
    "F16": lambda f: f["x"].astype(f32)[..., None],
    "BF16": lambda f: (f["x"].astype(np.uint32) << np.uint32(16)).view(f32)[..., None],
    "Q4_0": one_scale(8),
    "Q5_0": one_scale(16),
    "Q8_0": one_scale(0),
    "Q8_1": one_scale(0),
    "Q4_1": scale_and_minimum,
    "Q5_1": scale_and_minimum,
    "Q2_K": affine,
    "Q4_K": affine,
    "Q5_K": affine,
    "Q3_K": symmetric(32, 4),
    "Q6_K": symmetric(0, 32),
    "Q8_K": one_scale(0),
    "IQ4_NL": entries_of(naive.IQ4_NL_LEVELS),
    "MXFP4": floats_of_four_bits,
}


@pytest.mark.parametrize("type_name", ALL)
def test_packing_what_was_unpacked_gives_the_same_bytes(type_name: str) -> None:
    t = TensorType[type_name]
    data = random_blocks(type_name, 3 * 5, seed=3).reshape(3, -1)
    assert_same_bytes(format_of(t).pack(format_of(t).unpack(data)), data, type_name)


@pytest.mark.parametrize("type_name", ALL)
@pytest.mark.parametrize("shape", [(0,), (4, 0), (1,), (7,), (2, 3, 5)], ids=str)
def test_fields_have_the_shape_of_the_blocks(type_name: str, shape: tuple[int, ...]) -> None:
    t = TensorType[type_name]
    data = random_blocks(type_name, int(np.prod(shape)), seed=4).reshape(*shape[:-1], -1)
    data = data.reshape(*shape[:-1], shape[-1] * t.type_size)
    fields = format_of(t).unpack(data)
    assert {field.shape[: len(shape)] for field in fields.values()} == {shape}
    assert_same_bytes(format_of(t).pack(fields), data, type_name)


@pytest.mark.parametrize("type_name", ALL)
def test_fields_mean_what_the_formula_says(type_name: str) -> None:
    t = TensorType[type_name]
    blocks = random_blocks(type_name, 64, seed=5)
    with np.errstate(all="ignore"):
        want = np.array([naive.DECODERS[type_name](block.tobytes()) for block in blocks], f32)
        got = FORMULAS[type_name](format_of(t).unpack(blocks)).reshape(64, t.block_size)
    assert_same_floats(got, want, type_name)


@pytest.mark.parametrize("type_name", ALL)
def test_the_layout_is_the_block_of_the_type(type_name: str) -> None:
    t = TensorType[type_name]
    assert format_of(t).type is t
    assert format_of(t).layout.itemsize == t.type_size


def test_every_room_is_known_here() -> None:
    assert {t.name for t in TensorType if has_format(t)} == set(FORMULAS)


@pytest.mark.parametrize("type_name", ["Q8_1", "Q8_K"])
def test_activations_carry_their_sums(type_name: str) -> None:
    """Q8_1 stores d times the sum of its levels, Q8_K the sums of each 16."""
    for case in golden.quantized(type_name):
        f = format_of(TensorType[type_name]).unpack(case.bytes)
        q = f["q"].astype(np.int32)
        if type_name == "Q8_K":
            assert np.array_equal(f["bsums"], q.reshape(*q.shape[:-1], 16, 16).sum(axis=-1))
        else:
            d, s = f["d"].astype(f32), f["s"].astype(f32)
            close = np.abs(s - q.sum(axis=-1) * d) <= np.abs(q).sum(axis=-1) * (1e-3 * d + 2.0**-24)
            assert np.all(close | np.isinf(s))  # large values: the sum is beyond fp16 where d is not
