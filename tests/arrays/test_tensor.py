"""`QuantizedTensor`: packed rows that know their type and shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kquant
from kquant import QuantizedTensor
from kquant.errors import NonFiniteError, ShapeError, UnknownTypeError, UnsupportedTypeError
from kquant.types import TensorType
from support import golden
from support.compare import assert_same_bytes, assert_same_floats


def tensor(type_name: str = "Q8_0", *shape: int) -> QuantizedTensor:
    x = np.random.default_rng(0).standard_normal(shape or (4, 3, 512), np.float32)
    return QuantizedTensor.from_numpy(x, type_name)


@pytest.mark.parametrize("type_name", ["F32", *golden.TYPES])
def test_there_and_back(type_name: str) -> None:
    x = golden.inputs()["weight"]
    t = QuantizedTensor.from_numpy(x, type_name)
    packed = kquant.quantize(x, type_name)
    assert_same_bytes(t.data, packed, type_name)
    assert_same_floats(t.numpy(), kquant.dequantize(packed, type_name))
    assert (t.type, t.shape, t.ndim, t.size, t.nbytes) == (
        TensorType[type_name],
        x.shape,
        2,
        x.size,
        packed.nbytes,
    )
    assert len(t) == len(x)


def test_importance_weights_and_threads_are_passed_on() -> None:
    x = golden.inputs()["weight"]
    weights = golden.importance("heavy", x.shape[1])
    assert weights is not None
    t = QuantizedTensor.from_numpy(x, "Q4_K", weights, threads=1)
    assert_same_bytes(t.data, kquant.quantize(x, "Q4_K", weights), "Q4_K")


def test_numpy_reads_it_as_an_array() -> None:
    t = tensor()
    assert_same_floats(np.asarray(t), t.numpy())
    assert np.asarray(t, dtype=np.float64).dtype == np.float64
    assert float(np.abs(t - t.numpy()).max()) == 0
    with pytest.raises(ValueError, match="cannot become an array without being unpacked"):
        t.__array__(copy=False)


@pytest.mark.parametrize(
    "index", [0, -1, slice(1, 3), slice(None, None, -2), (1, 2), (..., slice(None)), [3, 0], (slice(None), 1)]
)
def test_rows_by_index(index: Any) -> None:
    t = tensor()
    part = t[index]
    assert isinstance(part, QuantizedTensor)
    assert part.type is t.type
    assert_same_floats(part.numpy(), t.numpy()[index])


def test_slices_share_memory() -> None:
    t = tensor()
    assert np.shares_memory(t[1:3].data, t.data)


def test_memory_maps_stay_maps(tmp_path: Path) -> None:
    np.save(tmp_path / "packed.npy", tensor().data)
    t = QuantizedTensor(np.load(tmp_path / "packed.npy", mmap_mode="r"), "Q8_0")
    assert isinstance(t.data, np.memmap)
    assert np.shares_memory(t[2].data, t.data)
    assert_same_floats(t[2].numpy(), tensor()[2].numpy())


@pytest.mark.parametrize(
    "index", [(0, 0, 0), (0, 0, slice(32)), (..., slice(34)), (..., slice(None, None, -1)), (..., [0] * 544)]
)
def test_elements_cannot_be_picked_out_of_their_blocks(index: Any) -> None:
    with pytest.raises(ShapeError, match="expected an index of the axes before the last"):
        tensor()[index]


def test_no_such_row() -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        tensor()[4]


@pytest.mark.parametrize(
    ("type_name", "dtype"), [("I8", "i1"), ("I16", "<i2"), ("I32", "<i4"), ("F64", "<f8")]
)
def test_plain_numbers_are_views(type_name: str, dtype: str) -> None:
    values = np.arange(12, dtype=dtype).reshape(3, 4)
    t = QuantizedTensor(values.view(np.uint8), type_name)
    assert t.shape == (3, 4)
    assert np.array_equal(t.numpy(), values)
    assert np.shares_memory(t.numpy(), values)


def test_a_type_without_codec_keeps_its_bytes() -> None:
    t = QuantizedTensor(np.zeros((2, 66), np.uint8), "IQ2_XXS")
    assert t.shape == (2, 256)
    with pytest.raises(UnsupportedTypeError, match=r"^IQ2_XXS: .*no codec"):
        t.numpy()


def test_repr() -> None:
    data = np.zeros((2, 34), np.uint8)
    assert repr(QuantizedTensor(data, "Q8_0")) == "QuantizedTensor(Q8_0, shape=(2, 32), 68 bytes)"
    named = QuantizedTensor(data, "Q8_0", "blk.0.attn_q.weight")
    assert repr(named) == "QuantizedTensor('blk.0.attn_q.weight', Q8_0, shape=(2, 32), 68 bytes)"
    assert named[0].name == named.name


def test_errors() -> None:
    with pytest.raises(
        ShapeError, match=r"^Q8_0 w: expected uint8 rows .* 34 bytes, got uint8 of shape \(2, 33\)$"
    ):
        QuantizedTensor(np.zeros((2, 33), np.uint8), "Q8_0", "w")
    with pytest.raises(ShapeError, match=r"got float32 of shape \(2, 34\)$"):
        QuantizedTensor(np.zeros((2, 34), np.float32), "Q8_0")
    with pytest.raises(UnknownTypeError, match="'Q9_0'"):
        QuantizedTensor(np.zeros((2, 34), np.uint8), "Q9_0")
    with pytest.raises(UnsupportedTypeError, match=r"^Q4_2 \(id 4\): ggml has removed this type$"):
        QuantizedTensor(np.zeros((2, 34), np.uint8), "REMOVED_4")
    with pytest.raises(NonFiniteError, match="nan"):
        QuantizedTensor.from_numpy(np.full((1, 32), np.nan), "Q8_0")
