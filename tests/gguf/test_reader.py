"""The reader: against gguf-py's, on files of either byte order and any alignment, and its promises."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from kquant.errors import GGUFError
from kquant.gguf import GGUFFile, TensorInfo, read, read_shard
from kquant.types import TensorType
from support.files import GOLDEN_FILES, MODELS, N_MERGES, N_TOKENS, name_of, smollm2, write_vocabulary
from support.gguf_builder import F16, F32, I8, Q4_K, Q8_0, UINT32, GGUFBuilder, every_kind


def assert_same_as_gguf_py(path: Path) -> None:
    """Every value, type, shape, offset and byte that gguf-py's reader shows."""
    theirs = gguf.GGUFReader(path)
    with read_shard(path) as ours:
        fields = {name: f for name, f in theirs.fields.items() if not name.startswith("GGUF.")}
        assert list(ours.metadata) == list(fields)
        for name, f in fields.items():
            assert ours.metadata.type_of(name) == f.types[0]
            value, contents = ours.metadata[name], f.contents()
            if f.types[0] == gguf.GGUFValueType.ARRAY:
                assert len(value) == len(contents)
                if contents:  # gguf-py forgets the element type of an empty array
                    assert ours.metadata.array_type_of(name) == f.types[1]
                    assert list(value) == contents
            else:
                assert value == contents
        assert ours.alignment == theirs.alignment
        assert ours.data_offsets == (theirs.data_offset,)
        assert ours.byteorder == ("big" if theirs.endianess == gguf.GGUFEndian.BIG else "little")
        assert list(ours.tensors) == [t.name for t in theirs.tensors]
        for info, t in zip(ours.tensors.values(), theirs.tensors, strict=True):
            assert info.type.id == t.tensor_type
            assert info.type.name == t.tensor_type.name
            assert info.ggml_shape == tuple(t.shape.tolist())
            assert (info.n_elements, info.nbytes, info.offset) == (t.n_elements, t.n_bytes, t.data_offset)
            assert ours.data(info).tobytes() == t.data.tobytes()


@pytest.mark.parametrize("path", GOLDEN_FILES, ids=name_of)
def test_golden_files_as_gguf_py_reads_them(path: Path) -> None:
    assert_same_as_gguf_py(path)


@pytest.mark.slow
@pytest.mark.demo
def test_smollm2_as_gguf_py_reads_it() -> None:
    assert_same_as_gguf_py(smollm2())


@pytest.mark.parametrize("endian", list(gguf.GGUFEndian), ids=str)
@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
def test_what_gguf_py_writes(endian: gguf.GGUFEndian, alignment: int | None, tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=endian)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_block_count(2)
    writer.add_float64("llama.f64", 0.1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "né", "c"])
    writer.add_array("llama.ints", [1, -2, 3])
    writer.add_array("llama.floats", [0.5, 1.5])
    writer.add_tensor("w", np.arange(6, dtype=np.float32).reshape(3, 2))
    writer.add_tensor("b", np.arange(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert_same_as_gguf_py(path)
    with read(path) as file:
        order = "<" if endian == gguf.GGUFEndian.LITTLE else ">"
        w = file.data(file.tensors["w"]).view(order + "f4")
        assert w.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_versions_and_byte_orders(version: int, byteorder: str, tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(every_kind(byteorder, version).build())
    with read(path) as file:
        assert (file.version, file.byteorder, file.alignment) == (version, byteorder, 32)
        assert file.file_bytes == (path.stat().st_size,)
        assert file.metadata == file.shard_metadata[0]
        assert list(file.tensors) == ["blk.0.weight", "tensor \udcff", "", "ones"]
        assert [info.shape for info in file.tensors.values()] == [(3, 32), (5,), (), (1, 1, 2, 3)]


@pytest.mark.parametrize("alignment", [1, 2, 16, 128, 65536])
def test_any_alignment(alignment: int, tmp_path: Path) -> None:
    b = GGUFBuilder(alignment=alignment).kv(b"general.alignment", UINT32, alignment)
    b.tensor(b"a", (5,), I8).tensor(b"b", (7,), F16).tensor(b"c", (256, 2), Q4_K)
    path = tmp_path / "file.gguf"
    path.write_bytes(b.build())
    with read(path) as file:
        assert file.alignment == alignment
        (start,) = file.data_offsets
        for info in file.tensors.values():
            assert info.offset % alignment == start % alignment == 0
            assert file.data(info).tobytes() == b.data[info.offset - start :][: info.nbytes]


@pytest.mark.parametrize(
    ("dims", "kind", "shape", "rows", "per_row", "data_shape"),
    [
        ((64,), Q8_0, (64,), 1, 64, (68,)),
        ((64, 3), Q8_0, (3, 64), 3, 64, (3, 68)),
        ((64, 3, 2), Q8_0, (2, 3, 64), 6, 64, (2, 3, 68)),
        ((2, 1, 1, 1), F32, (1, 1, 1, 2), 1, 2, (1, 1, 1, 8)),
        ((), F32, (), 1, 1, (4,)),
        ((0,), Q8_0, (0,), 1, 0, (0,)),
        ((32, 0, 3), Q8_0, (3, 0, 32), 0, 32, (3, 0, 34)),
    ],
)
def test_shapes(
    dims: tuple[int, ...],
    kind: int,
    shape: tuple[int, ...],
    rows: int,
    per_row: int,
    data_shape: tuple[int, ...],
    tmp_path: Path,
) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(GGUFBuilder().tensor(b"t", dims, kind).build())
    with read(path) as file:
        info = file.tensors["t"]
        assert (info.shape, info.ggml_shape, info.n_rows, info.n_per_row) == (shape, dims, rows, per_row)
        assert info.n_elements == rows * per_row
        assert info.row_bytes == data_shape[-1]
        data = file.data(info)
        assert (data.shape, data.dtype) == (data_shape, np.dtype(np.uint8))
        assert not data.flags.writeable
        assert data.size == info.nbytes


def test_data_is_mapped_and_read_only() -> None:
    with read(MODELS[0]) as file:
        data = file.data(next(iter(file.tensors.values())))
        assert data.base is not None
        with pytest.raises(ValueError, match="read-only"):
            data[0] = 0
        with pytest.raises(TypeError, match="does not support item assignment"):
            file.tensors["x"] = None  # type: ignore[index]


def test_close_leaves_what_was_handed_out(tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(every_kind().build())
    file = read(path)
    info = file.tensors["blk.0.weight"]
    data = file.data(info)
    before = data.tobytes()
    file.close()
    file.close()
    path.unlink()
    assert data.tobytes() == before
    assert file.metadata["strings"][0] == "<s>"
    with pytest.raises(
        GGUFError, match=r"file\.gguf: tensor 'blk\.0\.weight': expected an open file, got a closed"
    ):
        file.data(info)


def test_repr(tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(every_kind().build())
    assert repr(read(path)) == f"GGUFFile({str(path)!r}, 1 files, 4 tensors)"


def test_info_is_a_value() -> None:
    info = TensorInfo("w", (2, 256), TensorType.Q4_K, 32, 288)
    assert info == TensorInfo("w", (2, 256), TensorType.Q4_K, 32, 288, shard=0)
    assert hash(info) == hash(TensorInfo("w", (2, 256), TensorType.Q4_K, 32, 288))
    with pytest.raises(AttributeError):
        info.name = "v"  # type: ignore[misc]


@pytest.fixture(scope="module", params=["little", "big"])
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "llama3.gguf"
    write_vocabulary(path, request.param)
    return path


@pytest.mark.slow
def test_a_large_vocabulary_takes_no_memory(vocabulary: Path) -> None:
    """Eight megabytes of header; Python allocates two at most while it looks, and keeps next to nothing."""
    read(vocabulary).close()
    tracemalloc.start()
    try:
        file = read(vocabulary)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert file.file_bytes[0] > 8e6
    assert peak < 2e6
    assert kept < 50e3
    check_vocabulary(file)


def check_vocabulary(file: GGUFFile) -> None:
    md = file.metadata
    tokens, merges = md["tokenizer.ggml.tokens"], md["tokenizer.ggml.merges"]
    assert (len(tokens), len(merges)) == (N_TOKENS, N_MERGES)
    assert tokens[-1] == f"Ġ{N_TOKENS - 1:x}"
    assert merges[200_000] == f"Ġ{200_000:x} {200_000 * 7919 % N_MERGES:x}"
    assert sum(len(raw) for raw in merges.iter_raw()) > 3e6
    assert md["tokenizer.ggml.token_type"].sum() == N_TOKENS
    assert md["tokenizer.ggml.bos_token_id"] == 128_000


def test_a_file_of_140_gb(tmp_path: Path) -> None:
    """Nothing of the data is touched until it is asked for, and then no more than that."""
    path = tmp_path / "sparse.gguf"
    header = GGUFBuilder().tensor(b"w", (2**20, 2**16), F16).tensor(b"b", (3,), F16, offset=2**37).build()
    path.write_bytes(header)
    os.truncate(path, 2**37 + 4096)
    with read(path) as file:
        assert file.tensors["w"].nbytes == 2**37
        w = file.data(file.tensors["w"])
        assert w.shape == (2**16, 2**21)
        assert not w[2**16 - 1, -4096:].any()


def test_importing_the_package_compiles_nothing() -> None:
    code = "import sys, kquant.gguf; assert not {'numba', 'llvmlite', 'kquant.kernels'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
