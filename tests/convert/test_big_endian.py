"""Files in the other byte order: the same values, the same decisions, results in their own byte order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kquant
from kquant.arrays.byteorder import swapped
from kquant.errors import InvalidDataError, UnsupportedTypeError
from kquant.formats import format_of, has_format
from kquant.gguf import read
from kquant.types import TensorType
from support import golden
from support.runs import Run, run
from support.small_models import heavy_tailed, packed, raw, write_model, write_swapped

RUNS = [
    run(name)
    for name in (
        "llama-slim-f32/Q4_K_M+imatrix",
        "llama-slim-bf16/Q3_K_M",
        "llama-moe-f16/Q2_K+imatrix",
        "llama-odd-f16/Q5_K_M",
        "llama-odd2-f32/Q5_1",
        "requant/Q8_0-to-Q6_K",
        "requant/Q4_K_M-to-BF16",
        "opt/prune-2+COPY",
    )
]
PLAIN = {"I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F64": "<f8"}
CODECS = [t for t in TensorType if has_format(t)]


def swap(source: Path, target: Path) -> Path:
    with read(source) as file:
        return write_swapped(file, target)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.id)
def test_the_result_is_the_swapped_result(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a big-endian model: what comes out, swapped back, is the file that llama-quantize wrote."""
    monkeypatch.chdir(run.directory)
    kquant.requantize(run.source, tmp_path / "little.gguf", run.words[1], **run.options())
    big = swap(run.source, tmp_path / "big.gguf")
    plan = kquant.requantize(big, tmp_path / "result.gguf", run.words[1], **run.options())
    assert plan.file_bytes == (tmp_path / "little.gguf").stat().st_size
    with read(tmp_path / "result.gguf") as file:
        assert file.byteorder == "big"
    back = swap(tmp_path / "result.gguf", tmp_path / "back.gguf")
    assert back.read_bytes() == (tmp_path / "little.gguf").read_bytes()


def test_shards(tmp_path: Path) -> None:
    case = run("split/Q8_0-keep-split")
    for shard in sorted((case.directory / "split").iterdir()):
        with kquant.gguf.read_shard(shard) as file:
            write_swapped(file, tmp_path / shard.name)
    (tmp_path / "out").mkdir()
    first = tmp_path / "llama-slim-f16-00001-of-00003.gguf"
    kquant.requantize(first, tmp_path / "out/OUT.gguf", "Q8_0", keep_split=True)
    kquant.requantize(case.source, tmp_path / "OUT.gguf", "Q8_0", keep_split=True)
    made = sorted((tmp_path / "out").iterdir())
    assert len(made) == 3
    for shard in made:
        with kquant.gguf.read_shard(shard) as file:
            back = write_swapped(file, tmp_path / "back.gguf")
        assert back.read_bytes() == (tmp_path / shard.name).read_bytes()


@pytest.mark.parametrize("type_name", [*(t.name for t in CODECS), *PLAIN])
def test_open_gives_the_same_values(type_name: str, tmp_path: Path) -> None:
    if type_name in PLAIN:
        data, t = raw(np.arange(-512, 512).astype(PLAIN[type_name]).reshape(2, 512), type_name)
    else:
        data, t = packed(heavy_tailed(3, 512), type_name)
    little = write_model(tmp_path / "little.gguf", {"w": (data, t)})
    big = write_model(tmp_path / "big.gguf", {"w": (data, t)}, byteorder="big")
    with kquant.open(little) as ours, kquant.open(big) as other:
        assert (ours.file.byteorder, other.file.byteorder) == ("little", "big")
        assert ours.metadata["llama.block_count"] == other.metadata["llama.block_count"] == 1
        assert np.array_equal(other.tensors["w"].data, data)
        assert np.array_equal(ours.tensors["w"].numpy(), other.tensors["w"].numpy())
        stored = other.file.data(other.file.tensors["w"])
        assert np.array_equal(stored, data) == (type_name in ("I8", "MXFP4"))


@pytest.mark.parametrize("tensor_type", CODECS, ids=lambda t: t.name)
def test_every_byte_comes_back(tensor_type: TensorType) -> None:
    """Whatever the bytes mean, also NaNs of every kind: their order is reversed, nothing is converted."""
    n = 1 << 17 if tensor_type.block_size == 1 else 64
    data = np.random.default_rng(3).integers(0, 256, (3, n * tensor_type.type_size), np.uint8)
    there = swapped(data, tensor_type)
    assert there.shape == data.shape
    assert np.array_equal(swapped(there, tensor_type), data)
    by_field = data.reshape(-1, tensor_type.type_size).copy()
    for name, at, dtype in format_of(tensor_type).fields:
        width = dtype.base.itemsize
        span = by_field[:, at : at + dtype.itemsize]
        span[...] = span.reshape(len(span), -1, width)[..., ::-1].reshape(span.shape)
        assert width in (1, 2, 4), name
    assert np.array_equal(there.reshape(by_field.shape), by_field)


def test_a_layout_that_is_worked_out_by_hand() -> None:
    """Q5_1: two halves, the 32 high bits as a word, then bytes."""
    block = np.arange(24, dtype=np.uint8)
    assert swapped(block, TensorType.Q5_1).tolist() == [1, 0, 3, 2, 7, 6, 5, 4, *range(8, 24)]
    halves = np.array([1, 2, 0xFFFF], "<u2").view(np.uint8)
    assert swapped(halves, TensorType.F16).tolist() == [0, 1, 0, 2, 255, 255]


def test_a_type_whose_fields_are_unknown() -> None:
    with pytest.raises(
        UnsupportedTypeError,
        match=r"^IQ2_XXS: cannot change the byte order: kquant does not know the fields of this type$",
    ):
        swapped(np.zeros(66, np.uint8), TensorType.IQ2_XXS)


def test_the_source_is_checked_in_its_own_byte_order(tmp_path: Path) -> None:
    """0x7C00 is infinity, 0x007C is not."""
    name = "blk.0.ffn_up.weight"
    x = np.zeros((4, 256), "<u2")
    x[3, 200] = 0x007C
    sound = write_model(tmp_path / "sound.gguf", {name: raw(x, "F16")}, byteorder="big")
    kquant.requantize(sound, tmp_path / "out.gguf", "Q8_0")
    (tmp_path / "out.gguf").unlink()
    x[3, 200] = 0x7C00
    infinite = write_model(tmp_path / "infinite.gguf", {name: raw(x, "F16")}, byteorder="big")
    for to in ("Q8_0", "COPY"):
        with pytest.raises(InvalidDataError, match=r"NaN or infinity for x in row 3, block 200$"):
            kquant.requantize(infinite, tmp_path / "out.gguf", to)
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(
    ("type_name", "bad"),
    [
        ("IQ2_XXS", (0, (0x7C, 0x00))),
        ("IQ4_XS", (0, (0xFC, 0x01))),
        ("TQ1_0", (52, (0x7E, 0x00))),
        ("IQ1_M", (52, (0xC0, 0x00, 0x70, 0x00))),
        ("F64", (0, (0x7F, 0xF0))),
    ],
)
def test_what_kquant_has_no_codec_for_is_copied(
    type_name: str, bad: tuple[int, tuple[int, ...]], tmp_path: Path
) -> None:
    """Its fields need not be known for that; its scales are checked where they are."""
    t = TensorType[type_name]
    data = np.full((2, 4 * t.type_size), 0x11, np.uint8)
    at, pattern = bad
    for suspicious in (False, True):
        if suspicious:
            start = 3 * t.type_size + at
            data[1, start : start + len(pattern)] = pattern
        source = write_model(tmp_path / "in.gguf", {"w": (data, t)}, byteorder="big", swap=False)
        if suspicious:
            with pytest.raises(InvalidDataError, match=rf"{type_name}: .* in row 1, block 3$"):
                kquant.requantize(source, tmp_path / "out.gguf", "COPY")
        else:
            kquant.requantize(source, tmp_path / "out.gguf", "COPY")
            with kquant.open(tmp_path / "out.gguf") as model:
                assert np.array_equal(model.file.data(model.file.tensors["w"]), data)


def test_golden_models_have_all_the_types_that_are_read_here() -> None:
    assert {t.name for t in CODECS} == {"F32", *golden.TYPES}
