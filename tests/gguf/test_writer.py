"""The writer: what is read and written again is the same file; and what may be written."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kquant.errors import GGUFError, GGUFLimitError, OutputError, ShapeError, UnknownTypeError
from kquant.gguf import GGUFValueType, Metadata, TensorSpec, Writer, layout, read, read_shard
from kquant.gguf.spec import ByteOrder
from kquant.types import TensorType
from support.files import GOLDEN_FILES, copy, name_of, smollm2, write_vocabulary
from support.gguf_builder import ARRAY, CODES, STRING, UINT32, GGUFBuilder, every_kind

I8, F32, Q8_0, Q4_K = TensorType.I8, TensorType.F32, TensorType.Q8_0, TensorType.Q4_K


def assert_copies(path: Path, folder: Path) -> None:
    with read_shard(path) as file:
        copy(file, folder / "copy.gguf")
    assert (folder / "copy.gguf").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", GOLDEN_FILES, ids=name_of)
def test_golden_files_come_back(path: Path, tmp_path: Path) -> None:
    assert_copies(path, tmp_path)


@pytest.mark.demo
def test_smollm2_comes_back(tmp_path: Path) -> None:
    assert_copies(smollm2(), tmp_path)


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_a_large_vocabulary_comes_back(byteorder: ByteOrder, tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "v.gguf", byteorder)
    assert_copies(tmp_path / "v.gguf", tmp_path)


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("version", [2, 3])
def test_every_kind_comes_back(byteorder: str, version: int, tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(every_kind(byteorder, version).build())
    assert_copies(path, tmp_path)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Any well-formed file: odd keys and names, every type, raw payloads, either byte order."""
    alignment = draw(st.sampled_from([1, 2, 8, 32, 64, 1024]))
    b = GGUFBuilder(
        version=draw(st.sampled_from([2, 3])),
        byteorder=draw(st.sampled_from(["little", "big"])),
        alignment=alignment,
    )
    if alignment != 32:
        b.kv(b"general.alignment", UINT32, alignment)
    widths = {kind: len(b.pack(code, 0)) for kind, code in CODES.items()}
    keys = st.binary(min_size=1, max_size=12) | st.text(min_size=1, max_size=12).map(str.encode)
    for key in draw(st.lists(keys, max_size=8, unique=True)):
        kind = draw(st.sampled_from([*CODES, STRING]))
        count = draw(st.none() | st.integers(0, 5))
        n = 1 if count is None else count
        if kind == STRING:
            payload = b"".join(
                b.string(raw) for raw in draw(st.lists(st.binary(max_size=9), min_size=n, max_size=n))
            )
        else:
            payload = draw(st.binary(min_size=n * widths[kind], max_size=n * widths[kind]))
        types = b.pack("i", kind) if count is None else b.pack("iiQ", ARRAY, kind, count)
        b.kv_raw(b.string(key) + types + payload)
    tensor_types = st.sampled_from([t for t in TensorType if not t.removed])
    for name in draw(st.lists(st.binary(max_size=63), max_size=5, unique_by=lambda n: n.split(b"\0")[0])):
        t = draw(tensor_types)
        outer = draw(st.lists(st.integers(0, 3), max_size=3))
        b.tensor(
            name, (t.block_size * draw(st.integers(0, 2)), *outer), t.id, size=(t.block_size, t.type_size)
        )
    return b.build()


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=files())
def test_any_file_comes_back(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(data)
    assert_copies(path, tmp_path)


def test_layout_knows_every_offset() -> None:
    md = Metadata()
    md.set("general.alignment", 64, GGUFValueType.UINT32)
    specs = [TensorSpec("a", (5,), F32), TensorSpec("b", (256, 3), Q4_K), TensorSpec("c", (0,), I8)]
    plan = layout(md, specs, alignment=64)
    assert plan.data_offset % 64 == 0
    assert plan.data_offset - len(plan.header) < 64
    assert [offset - plan.data_offset for offset in plan.offsets] == [0, 64, 64 + 448]
    assert plan.nbytes == (20, 432, 0)
    assert plan.file_bytes == plan.data_offset + 512
    assert plan.tensors == tuple(specs)
    assert "header" not in repr(plan)


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_layout_is_what_the_format_says(byteorder: Any) -> None:
    b = GGUFBuilder(byteorder=byteorder, version=2)
    b.tensor(b"w", (32, 2), Q8_0.id).tensor(b"s", (), I8.id)
    plan = layout(
        Metadata(), [TensorSpec("w", (32, 2), Q8_0), TensorSpec("s", (), I8)], version=2, byteorder=byteorder
    )
    assert plan.header == b.header()


def test_a_file_without_tensors_is_padded(tmp_path: Path) -> None:
    with Writer(tmp_path / "empty.gguf", layout(Metadata(), [])) as writer:
        writer.commit()
    assert (tmp_path / "empty.gguf").read_bytes() == GGUFBuilder().build()


@pytest.mark.parametrize(
    ("specs", "options", "error", "message"),
    [
        (
            [("a", (1,), I8), ("a", (2,), I8)],
            {},
            GGUFError,
            "tensor 'a': expected unique names, got this one twice",
        ),
        ([("n" * 64, (1,), I8)], {}, GGUFError, "expected a name of at most 63 bytes, got 64"),
        ([("é" * 32, (1,), I8)], {}, GGUFError, "expected a name of at most 63 bytes, got 64"),
        ([("\ud800", (1,), I8)], {}, GGUFError, "tensor '\\ud800': expected text that UTF-8 can hold"),
        (
            [("a", (1,) * 5, I8)],
            {},
            GGUFError,
            "tensor 'a': expected at most 4 dimensions, got (1, 1, 1, 1, 1)",
        ),
        (
            [("a", (1, -1), I8)],
            {},
            GGUFError,
            "tensor 'a': expected dimensions from 0 to 9223372036854775807",
        ),
        (
            [("a", (2**63,), I8)],
            {},
            GGUFError,
            "tensor 'a': expected dimensions from 0 to 9223372036854775807",
        ),
        (
            [("a", (2**62, 4), I8)],
            {},
            GGUFLimitError,
            "tensor 'a': expected at most 9223372036854775807 elements and bytes, got the dimensions",
        ),
        ([("a", (2**62, 4, 0), I8)], {}, GGUFLimitError, "got the dimensions (4611686018427387904, 4, 0)"),
        (
            [("a", (2**62,), I8), ("b", (2**62,), I8)],
            {},
            GGUFError,
            "tensor 'b': expected to end within 9223372036854775807 bytes",
        ),
        (
            [("a", (255,), Q4_K)],
            {},
            ShapeError,
            "tensor 'a': Q4_K: expected a row length that is a multiple of 256, got 255",
        ),
        (
            [("a", (32,), TensorType.REMOVED_4)],
            {},
            UnknownTypeError,
            "tensor 'a': expected a tensor type that ggml still has, got Q4_2 (id 4), which it has removed",
        ),
        ([], {"version": 1}, GGUFError, "GGUF version: expected one of (2, 3), got 1"),
        ([], {"alignment": 64}, GGUFError, "alignment: expected 32 as in the metadata, got 64"),
    ],
)
def test_layout_refuses(
    specs: list[Any], options: dict[str, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        layout(Metadata(), [TensorSpec(*spec) for spec in specs], **options)  # type: ignore[arg-type]


def test_layout_refuses_more_than_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kquant.gguf.writer.MAX_TENSORS", 1)
    specs = [TensorSpec(name, (1,), I8) for name in "ab"]
    with pytest.raises(GGUFError, match="expected at most 65536 key/value pairs and 1 tensors, got 0 and 2"):
        layout(Metadata(), specs)


PLAN = layout(
    Metadata(), [TensorSpec("a", (64, 100), I8), TensorSpec("b", (5,), F32), TensorSpec("z", (0,), I8)]
)


def test_pieces_in_any_order_from_many_threads(tmp_path: Path) -> None:
    values = np.arange(6400, dtype=np.int64).astype(np.int8).reshape(100, 64)
    with Writer(tmp_path / "out.gguf", PLAN) as writer, ThreadPoolExecutor(8) as pool:
        rows = np.random.default_rng(0).permutation(100)
        list(pool.map(lambda row: writer.write(0, 64 * int(row), values[row]), rows))
        writer.write(1, 0, np.ones(5, np.float32))
        writer.write(2, 0, b"")
        writer.commit()
    with read(tmp_path / "out.gguf") as file:
        assert np.array_equal(file.data(file.tensors["a"]).view(np.int8), values)
        assert file.data(file.tensors["b"]).view(np.float32).tolist() == [1.0] * 5
        end = file.tensors["b"].offset + 20
    assert (tmp_path / "out.gguf").read_bytes()[end:] == bytes(12)


@pytest.mark.parametrize(
    "buffer",
    [
        b"x" * 20,
        bytearray(20),
        memoryview(bytes(20)),
        np.zeros(5, np.float32),
        np.zeros((10, 2), np.uint8)[:, :1],
        np.zeros((4, 5), np.uint8, order="F"),
        np.zeros((2, 10), np.uint8),
    ],
    ids=["bytes", "bytearray", "memoryview", "float32", "strided", "Fortran", "2-D"],
)
def test_any_buffer(buffer: Any, tmp_path: Path) -> None:
    with Writer(tmp_path / "out.gguf", PLAN) as writer:
        writer.write(1, 0, buffer)


@pytest.mark.parametrize(
    ("offset", "data", "got"),
    [(0, bytes(21), "0 to 21"), (20, b"x", "20 to 21"), (-1, b"x", "-1 to 0"), (21, b"", "21 to 21")],
)
def test_bytes_beyond_a_tensor(offset: int, data: bytes, got: str, tmp_path: Path) -> None:
    with (
        Writer(tmp_path / "out.gguf", PLAN) as writer,
        pytest.raises(ShapeError, match=rf"out\.gguf: tensor 'b': expected bytes within 0 to 20, got {got}"),
    ):
        writer.write(1, offset, data)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([], "tensor 'a': expected 6400 bytes to be written, got none at byte 0"),
        ([(0, 0, 6399), (1, 0, 20)], "tensor 'a': expected 6400 bytes to be written, got none at byte 6399"),
        ([(0, 1, 6399), (1, 0, 20)], "tensor 'a': expected 6400 bytes to be written, got none at byte 0"),
        (
            [(0, 3000, 3400), (0, 0, 2999), (1, 0, 20)],
            "tensor 'a': expected 6400 bytes to be written, got none at byte 2999",
        ),
        (
            [(0, 0, 6400), (1, 0, 10), (1, 0, 10)],
            "tensor 'b': expected 20 bytes to be written, got none at byte 10",
        ),
    ],
)
def test_commit_misses_what_was_not_written(
    pieces: list[tuple[int, int, int]], message: str, tmp_path: Path
) -> None:
    with Writer(tmp_path / "out.gguf", PLAN) as writer:
        for tensor, offset, n_bytes in pieces:
            writer.write(tensor, offset, bytes(n_bytes))
        with pytest.raises(OutputError, match=re.escape(message)):
            writer.commit()
    assert not list(tmp_path.iterdir())


def test_overlapping_pieces_are_fine(tmp_path: Path) -> None:
    with Writer(tmp_path / "out.gguf", PLAN) as writer:
        for start in (3000, 0, 2000, 6000):
            writer.write(0, start, bytes(min(4000, 6400 - start)))
        writer.write(1, 0, bytes(20))
        writer.commit()
    assert (tmp_path / "out.gguf").stat().st_size == PLAN.file_bytes
