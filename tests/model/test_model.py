"""`kquant.open`: metadata and tensors of a file, or of all shards of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kquant
from kquant.errors import GGUFError, GGUFTruncatedError, UnsupportedTypeError
from kquant.types import TensorType
from support.compare import assert_same_floats
from support.files import GOLDEN, MODELS, name_of
from support.gguf_builder import every_kind
from support.small_models import heavy_tailed, packed, write_model

models = pytest.mark.parametrize("path", [*MODELS, *GOLDEN.glob("outputs/*.gguf")], ids=name_of)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tensors = {
        f"blk.0.{name}.weight": packed(heavy_tailed(3, 4, 256), t)
        for name, t in (("b", "Q4_K"), ("a", "F16"))
    }
    return write_model(tmp_path / "model.gguf", tensors)


@models
def test_every_tensor_of_the_golden_models(path: Path) -> None:
    with kquant.open(path) as model:
        for name, tensor in model.tensors.items():
            info = model.file.tensors[name]
            assert (tensor.name, tensor.type, tensor.shape, tensor.nbytes) == (
                name,
                info.type,
                info.shape,
                info.nbytes,
            )
            assert_same_floats(tensor.numpy(), kquant.dequantize(model.file.data(info), info.type))


def test_tensors_are_a_mapping(path: Path) -> None:
    with kquant.open(path) as model:
        tensors = model.tensors
        assert list(tensors) == list(tensors.keys()) == ["blk.0.b.weight", "blk.0.a.weight"]
        assert len(tensors) == 2
        assert "blk.0.a.weight" in tensors
        assert "blk.0.c.weight" not in tensors
        assert tensors.get("blk.0.c.weight") is None
        with pytest.raises(KeyError, match=r"blk\.0\.c\.weight"):
            tensors["blk.0.c.weight"]
        assert [t.type for t in tensors.values()] == [TensorType.Q4_K, TensorType.F16]
        with pytest.raises(TypeError, match="item assignment"):
            tensors["blk.0.a.weight"] = tensors["blk.0.b.weight"]  # type: ignore[index]
        assert repr(tensors) == f"<2 tensors of {path}>"
        assert repr(model) == f"Model({str(path)!r}, 2 tensors)"


def test_the_data_is_the_file(path: Path) -> None:
    """Nothing is copied until values are asked for, and nothing can be changed."""
    with kquant.open(path) as model:
        data = model.tensors["blk.0.a.weight"].data
        assert np.shares_memory(data, model.tensors["blk.0.a.weight"][1:].data)
        assert not data.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            data[0, 0, 0] = 1
        values = model.tensors["blk.0.a.weight"].numpy()
        assert values.flags.writeable


def test_a_tensor_outlives_the_model(path: Path) -> None:
    model = kquant.open(path)
    tensor = model.tensors["blk.0.a.weight"]
    before = tensor.numpy()
    model.close()
    model.close()
    assert_same_floats(tensor.numpy(), before)
    assert list(model.tensors) == ["blk.0.b.weight", "blk.0.a.weight"]
    assert model.metadata["general.architecture"] == "llama"
    with pytest.raises(GGUFError, match=r"'blk\.0\.a\.weight': expected an open file, got a closed one"):
        model.tensors["blk.0.a.weight"]


def test_the_end_of_the_with_closes(path: Path) -> None:
    with kquant.open(str(path)) as model:
        pass
    with pytest.raises(GGUFError, match="closed"):
        model.tensors["blk.0.a.weight"]


def test_shards_are_one_model() -> None:
    with (
        kquant.open(GOLDEN / "split/llama-slim-f16-00001-of-00003.gguf") as shards,
        kquant.open(GOLDEN / "models/llama-slim-f16.gguf") as whole,
    ):
        assert len(shards.file.paths) == 3
        assert set(shards.tensors) == set(whole.tensors)
        for name, tensor in whole.tensors.items():
            assert np.array_equal(tensor.data, shards.tensors[name].data)
        assert shards.metadata["general.name"] == whole.metadata["general.name"]


def test_a_file_that_cannot_be(tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kquant.open(tmp_path / "missing.gguf")
    with pytest.raises(GGUFError, match="expected a regular file"):
        kquant.open(tmp_path)
    (tmp_path / "short.gguf").write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(
        GGUFTruncatedError, match=r"short\.gguf: tensor 'blk\.0\.a\.weight': expected 6144 bytes"
    ):
        kquant.open(tmp_path / "short.gguf")


def test_odd_shapes(tmp_path: Path) -> None:
    """No axis, many axes; names that are no text."""
    path = tmp_path / "odd.gguf"
    path.write_bytes(every_kind().build())
    with kquant.open(path) as model:
        assert {name: (t.shape, t.numpy().shape) for name, t in model.tensors.items()} == {
            "blk.0.weight": ((3, 32), (3, 32)),
            "tensor \udcff": ((5,), (5,)),
            "": ((1,), (1,)),
            "ones": ((1, 1, 2, 3), (1, 1, 2, 3)),
        }


def test_a_type_without_codec(tmp_path: Path) -> None:
    data = np.zeros((2, 66), np.uint8)
    path = write_model(tmp_path / "iq.gguf", {"w": (data, TensorType.IQ2_XXS)})
    with kquant.open(path) as model:
        assert model.tensors["w"].shape == (2, 256)
        assert np.array_equal(model.tensors["w"].data, data)
        with pytest.raises(UnsupportedTypeError, match=r"^IQ2_XXS: .*no codec"):
            model.tensors["w"].numpy()
    path = write_model(tmp_path / "big.gguf", {"w": (data, TensorType.IQ2_XXS)}, byteorder="big", swap=False)
    with (
        kquant.open(path) as model,
        pytest.raises(
            UnsupportedTypeError, match=r"^IQ2_XXS: cannot change the byte order: kquant does not know"
        ),
    ):
        model.tensors["w"]
