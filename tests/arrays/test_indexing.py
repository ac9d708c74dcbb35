"""Rows are picked as NumPy picks them; elements, which share their blocks, are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from kquant import QuantizedTensor
from kquant.errors import ShapeError, UnsupportedTypeError
from support.compare import assert_same_floats

SHAPE = (4, 3, 64)
TENSOR = QuantizedTensor.from_numpy(np.random.default_rng(0).standard_normal(SHAPE, np.float32), "Q8_0")
VALUES = TENSOR.numpy()


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(npst.basic_indices(SHAPE[:-1], allow_ellipsis=False, allow_newaxis=True, max_dims=6))
def test_any_index_of_the_first_axes(index: Any) -> None:
    part = TENSOR[index]
    assert part.shape == VALUES[index].shape
    assert_same_floats(part.numpy(), VALUES[index])
    assert np.shares_memory(part.data, TENSOR.data) == (part.size > 0)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(npst.basic_indices(SHAPE, allow_newaxis=True, max_dims=6))
def test_any_index_is_right_or_refused(index: Any) -> None:
    try:
        part = TENSOR[index]
    except ShapeError:
        return
    assert part.shape == VALUES[index].shape
    assert_same_floats(part.numpy(), VALUES[index])


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        npst.arrays(np.bool_, SHAPE[:1]),
        npst.arrays(np.bool_, SHAPE[:2]),
        npst.integer_array_indices(SHAPE[:2]),
        npst.integer_array_indices(SHAPE[:1]),
    )
)
def test_masks_and_lists_of_rows(index: Any) -> None:
    assert_same_floats(TENSOR[index].numpy(), VALUES[index])


@pytest.mark.parametrize(
    "index",
    [
        np.ones((4, 3, 64), bool),
        np.ones((4, 3, 68), bool),
        (0, 0, [True] * 68),
        (..., None),
        (..., slice(0, 64)),
        (..., slice(0, 68)),
        (0, ..., 0),
        (slice(None), slice(None), slice(None, None, 1)),
        (..., np.arange(68)),
    ],
    ids=str,
)
def test_the_last_axis_is_taken_whole(index: Any) -> None:
    with pytest.raises(ShapeError, match=r"^QuantizedTensor\(Q8_0, .*: expected an index of the axes before"):
        TENSOR[index]


def test_one_row_has_no_axis_to_pick_from() -> None:
    row = TENSOR[0, 0]
    assert row.shape == (64,)
    assert row[...].shape == row[:].shape == row[()].shape == (64,)
    assert row[None].shape == (1, 64)
    for index in (0, -1, slice(None, None, -1), slice(1), [0] * 68):
        with pytest.raises(ShapeError, match="expected an index of the axes before the last"):
            row[index]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (4, "index 4 is out of bounds"),
        ((0, -4), "index -4 is out of bounds"),
        ("rows", "only integers, slices"),
        (1.0, "only integers, slices"),
        ((0, 0, 0, slice(None)), "too many indices"),
        (np.ones(3, bool), "boolean index did not match"),
    ],
)
def test_wrong_indices_are_numpys_errors(index: Any, message: str) -> None:
    with pytest.raises(IndexError, match=message):
        TENSOR[index]


def test_rows_can_be_walked_through() -> None:
    rows: list[QuantizedTensor] = list(TENSOR)  # type: ignore[call-overload]
    assert len(rows) == len(TENSOR) == 4
    assert all(row.shape == (3, 64) for row in rows)


def test_no_rows() -> None:
    none = TENSOR[:0]
    assert (none.shape, none.size, none.nbytes, len(none)) == ((0, 3, 64), 0, 0, 0)
    assert none.numpy().shape == (0, 3, 64)


def test_strided_rows() -> None:
    part = TENSOR[::-2, 1]
    assert not part.data.flags.c_contiguous
    assert_same_floats(part.numpy(), VALUES[::-2, 1])


# ---------------------------------------------------------------- as an array


@pytest.fixture
def integers() -> QuantizedTensor:
    return QuantizedTensor(np.arange(6, dtype="<i4").reshape(2, 3).view(np.uint8), "I32")


def test_an_array_of_ones_own(integers: QuantizedTensor) -> None:
    """`np.array` promises a copy, `np.asarray` none."""
    view, copy = np.asarray(integers), np.array(integers)
    assert np.shares_memory(view, integers.data)
    assert not np.shares_memory(copy, integers.data)
    assert np.array_equal(view, copy)
    assert not np.shares_memory(np.asarray(TENSOR), TENSOR.data)


def test_an_array_without_a_copy(integers: QuantizedTensor) -> None:
    for dtype in (None, np.int32, "<i4"):
        assert np.shares_memory(integers.__array__(dtype, copy=False), integers.data)
    for tensor, other in ((integers, np.int64), (TENSOR, None), (TENSOR, np.float32)):
        with pytest.raises(ValueError, match="cannot become an array without being unpacked into a new one"):
            tensor.__array__(other, copy=False)


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "i4", "c8", object])
@pytest.mark.parametrize("copy", [None, True])
def test_an_array_of_another_type(dtype: Any, copy: bool | None) -> None:
    values = TENSOR.__array__(dtype, copy=copy)
    assert values.dtype == np.dtype(dtype)
    assert np.array_equal(values, VALUES.astype(dtype))


def test_arithmetic() -> None:
    assert float(np.mean(TENSOR)) == float(VALUES.mean())
    assert np.array_equal(np.abs(TENSOR), np.abs(VALUES))


@pytest.mark.parametrize("data", [[0] * 34, b"0" * 34, None, 3, "text"], ids=repr)
def test_what_is_no_array_of_bytes(data: Any) -> None:
    with pytest.raises(ShapeError, match=r"^Q8_0: expected uint8 rows of a multiple of 34 bytes, got "):
        QuantizedTensor(data, "Q8_0")


def test_a_type_without_codec_is_indexed_all_the_same() -> None:
    t = QuantizedTensor(
        np.arange(3 * 132, dtype=np.uint16).astype(np.uint8).reshape(3, 132), "IQ2_XXS", "blk.0"
    )
    assert t[1].shape == (512,)
    assert np.array_equal(t[::-1].data, t.data[::-1])
    with pytest.raises(
        UnsupportedTypeError, match=r"^IQ2_XXS: ggml defines this type, but kquant has no codec"
    ):
        np.asarray(t)
