"""Importance matrices: both file formats, the weights that follow, and every way a file can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kquant
from kquant.errors import ImatrixError, OptionError
from kquant.imatrix.reading import Imatrix, load_imatrix
from support.gguf_builder import FLOAT32, STRING, UINT32, GGUFBuilder
from support.runs import GOLDEN

FOLDER = GOLDEN / "gguf" / "imatrix"
GGUF_FILES = sorted([*FOLDER.glob("*.gguf"), GOLDEN / "smollm2" / "smollm2.imatrix.gguf"])
NAME = "blk.0.attn_q.weight"


# ---------------------------------------------------------------- files of llama-imatrix


@pytest.mark.parametrize("path", GGUF_FILES, ids=lambda path: path.name)
def test_weights_are_sums_by_counts_and_ones_for_what_was_never_used(path: Path) -> None:
    imatrix = load_imatrix(path)
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    names = {name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2")}
    assert set(imatrix) == names
    for name, got in imatrix.items():
        sums, counts = np.atleast_2d(tensors[f"{name}.in_sum2"]), tensors[f"{name}.counts"].reshape(-1)
        assert got.shape == sums.shape
        assert got.dtype == np.float32
        assert not got.flags.writeable
        for row, row_sums, count in zip(got, sums, counts, strict=True):
            expected = row_sums / np.float32(round(float(count))) if count else np.ones_like(row_sums)
            np.testing.assert_array_equal(row, expected, strict=True)


def test_an_expert_that_no_token_reached_has_weights_of_one() -> None:
    imatrix = load_imatrix(FOLDER / "llama-moe.gguf")
    unused = {name: int((rows == 1).all(axis=1).sum()) for name, rows in imatrix.items()}
    assert unused == {name: int("_exps" in name) for name in imatrix}


@pytest.mark.parametrize("name", ["llama-full", "llama-moe", "llama-slim"])
def test_the_older_format_says_nearly_the_same(name: str) -> None:
    new, old = load_imatrix(FOLDER / f"{name}.gguf"), load_imatrix(FOLDER / f"{name}.dat")
    assert set(new) == set(old)
    assert new.datasets == old.datasets
    for key in new:
        assert old[key].shape == (1, new[key].size)
        used = ~(new[key] == 1).all(axis=1)
        np.testing.assert_allclose(old[key].reshape(new[key].shape)[used], new[key][used], rtol=1e-6)


def test_what_a_file_says_about_itself() -> None:
    path = FOLDER / "llama-slim.gguf"
    imatrix = load_imatrix(path)
    assert imatrix.path == str(path)
    assert imatrix.datasets == ("calibration.txt",)
    assert (len(imatrix), imatrix.chunk_count) == (56, 5)
    assert repr(imatrix) == f"Imatrix(56 tensors, 5 chunks, path={str(path)!r})"


def test_the_path_is_kept_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN / "gguf")
    assert load_imatrix("./imatrix/llama-slim.dat").path == "./imatrix/llama-slim.dat"


def test_public_names() -> None:
    assert kquant.Imatrix is Imatrix
    assert kquant.load_imatrix is load_imatrix


# ---------------------------------------------------------------- in memory


def test_from_arrays() -> None:
    stored = np.arange(6, dtype=np.float64)
    imatrix = Imatrix({"a": stored, "b": stored.reshape(2, 3), "c": [1, 2]})
    assert {name: rows.shape for name, rows in imatrix.items()} == {"a": (1, 6), "b": (2, 3), "c": (1, 2)}
    assert all(rows.dtype == np.float32 for rows in imatrix.values())
    stored[:] = 9
    assert imatrix["a"].tolist() == [[0, 1, 2, 3, 4, 5]]
    assert (imatrix.path, imatrix.datasets, imatrix.chunk_count) == (None, (), 0)
    assert "missing" not in imatrix
    with pytest.raises(KeyError):
        imatrix["missing"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.zeros((2, 2, 2)),
            r"expected weights of shape \(n_per_row,\) or \(n_matrices, n_per_row\), got \(2, 2, 2\)",
        ),
        ([], r"expected weights of shape \(n_per_row,\) or \(n_matrices, n_per_row\), got \(1, 0\)"),
        ([1, np.nan, np.inf], r"expected finite weights, got 2 of 3 that are not \(nan\)"),
    ],
)
def test_what_cannot_be_weights(values: Any, message: str) -> None:
    with pytest.raises(ImatrixError, match=f"^w: {message}$"):
        Imatrix({"w": values})
    with pytest.raises(ImatrixError, match=f"^file.dat: w: {message}$"):
        Imatrix({"w": values}, path="file.dat")


def test_selection_by_parts_of_names() -> None:
    imatrix = Imatrix(
        dict.fromkeys(("blk.0.attn_q", "blk.1.attn_k", "blk.1.ffn_up"), (1.0,)),
        path="p",
        datasets=["d"],
        chunk_count=3,
    )
    assert list(imatrix.select()) == list(imatrix)
    assert list(imatrix.select(include=["ffn", "attn_q"])) == ["blk.0.attn_q", "blk.1.ffn_up"]
    assert list(imatrix.select(exclude=["blk.1.", "x"])) == ["blk.0.attn_q"]
    none = imatrix.select(include=["nothing"])
    assert (list(none), none.path, none.datasets, none.chunk_count) == ([], "p", ("d",), 3)


@pytest.mark.parametrize("name", ["llama-slim.gguf", "llama-slim.dat"])
def test_selection_while_reading(name: str) -> None:
    everything = load_imatrix(FOLDER / name)
    options: dict[str, Any]
    for options in ({"include": ["attn_q", "ffn"]}, {"exclude": ["attn_q", "ffn"]}):
        selected = load_imatrix(FOLDER / name, **options)
        assert list(selected) == list(everything.select(**options))
    with pytest.raises(OptionError, match=r"^include_weights and exclude_weights cannot be used together$"):
        load_imatrix(FOLDER / name, include=["a"], exclude=["b"])


# ---------------------------------------------------------------- .dat, byte by byte


def entry(name: bytes, n_calls: int, values: Iterable[float]) -> bytes:
    floats = list(values)
    head = struct.pack(f"<i{len(name)}sii", len(name), name, n_calls, len(floats))
    return head + struct.pack(f"<{len(floats)}f", *floats)


def dat(*entries: bytes, n_entries: int | None = None, rest: bytes = b"") -> bytes:
    return struct.pack("<i", len(entries) if n_entries is None else n_entries) + b"".join(entries) + rest


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Reads an importance matrix of these bytes."""

    def load_bytes(raw: bytes, **options: Any) -> Imatrix:
        path = tmp_path / "file.dat"
        path.write_bytes(raw)
        return load_imatrix(path, **options)

    return load_bytes


def test_dat_by_hand(load: Any) -> None:
    entries = (entry(b"three calls", 3, [3, 1]), entry(b"none", 0, [5]), entry(b"less", -2, [7]))
    imatrix = load(dat(*entries, rest=struct.pack("<ii4s", 12, 4, b"text")))
    assert {name: rows.tolist() for name, rows in imatrix.items()} == {
        "three calls": [[1.0, float(np.float32(1) / np.float32(3))]],
        "none": [[5.0]],
        "less": [[7.0]],
    }
    assert (imatrix.chunk_count, imatrix.datasets) == (12, ("text",))


def test_dat_without_its_end(load: Any) -> None:
    imatrix = load(dat(entry(b"w", 1, [1])))
    assert (imatrix.chunk_count, imatrix.datasets) == (0, ())
    imatrix = load(dat(entry(b"w", 1, [1]), rest=struct.pack("<i", 4)))
    assert (imatrix.chunk_count, imatrix.datasets) == (4, ())
    imatrix = load(dat(entry(b"w", 1, [1]), rest=struct.pack("<ii", 4, 0)))
    assert (imatrix.chunk_count, imatrix.datasets) == (4, ())


def test_dat_names_end_at_a_nul_keep_their_bytes_and_the_last_of_equals_counts(load: Any) -> None:
    imatrix = load(dat(entry(b"w\0x", 1, [1]), entry(b"\xff", 1, [2]), entry(b"w", 1, [3, 4])))
    assert {name: rows.tolist() for name, rows in imatrix.items()} == {"w": [[3.0, 4.0]], "\udcff": [[2.0]]}


def test_dat_with_nan_where_it_is_left_out(load: Any) -> None:
    raw = dat(entry(b"good", 1, [1]), entry(b"bad", 1, [np.nan]))
    assert list(load(raw, exclude=["bad"])) == ["good"]
    assert list(load(raw, include=["good"])) == ["good"]
    with pytest.raises(ImatrixError, match="bad: expected finite weights, got 1 of 1 that are not"):
        load(raw)


ONE = entry(b"w", 1, [1, 2])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "expected an importance matrix, got an empty file"),
        (b"\1\0", "number of entries: expected 4 bytes, got 2 to the end of the file"),
        (dat(n_entries=0), "expected one entry or more, got 0"),
        (dat(n_entries=-1), "expected one entry or more, got -1"),
        (dat(n_entries=1), "length of the name of entry 0: expected 4 bytes, got 0 to the end of the file"),
        (
            dat(ONE, n_entries=2),
            "length of the name of entry 1: expected 4 bytes, got 0 to the end of the file",
        ),
        (dat(struct.pack("<i", 9)), "name of entry 0: expected 9 bytes, got 0 to the end of the file"),
        (dat(struct.pack("<i", -1)), "name of entry 0: expected -1 bytes, got 0 to the end of the file"),
        (dat(ONE[:5]), "number of calls of w: expected 4 bytes, got 0 to the end of the file"),
        (dat(ONE[:9]), "number of values of w: expected 4 bytes, got 0 to the end of the file"),
        (dat(entry(b"w", 1, [])), "w: expected one value or more, got 0"),
        (dat(ONE[:-1]), "values of w: expected 8 bytes, got 7 to the end of the file"),
        (
            dat(struct.pack("<i1sii", 1, b"w", 1, 0x7FFFFFFF)),
            "values of w: expected 8589934588 bytes, got 0 to the end of the file",
        ),
        (dat(ONE, rest=b"\1"), "number of chunks: expected 4 bytes, got 1 to the end of the file"),
        (
            dat(ONE, rest=struct.pack("<iih", 1, 3, 0)),
            "name of the dataset: expected 3 bytes, got 2 to the end of the file",
        ),
    ],
)
def test_dat_that_is_broken(load: Any, raw: bytes, message: str) -> None:
    with pytest.raises(ImatrixError, match=f"file.dat: {message}$"):
        load(raw)


# ---------------------------------------------------------------- GGUF, part by part


def builder(
    *,
    datasets: list[bytes] | None = None,
    chunk_count: int = 7,
    leave_out: str = "",
    byteorder: str = "little",
) -> GGUFBuilder:
    b = GGUFBuilder(byteorder=byteorder)
    if leave_out != "datasets":
        b.array(b"imatrix.datasets", STRING, [b"a", b"b"] if datasets is None else datasets)
    if leave_out != "chunk_count":
        b.kv(b"imatrix.chunk_count", UINT32, chunk_count)
    if leave_out != "chunk_size":
        b.kv(b"imatrix.chunk_size", UINT32, 512)
    return b


def add(b: GGUFBuilder, name: str, shape: tuple[int, ...], values: list[float], kind: int = 0) -> GGUFBuilder:
    """A tensor with these values, `shape` in GGUF's order."""
    offset = len(b.data)
    b.tensor(name.encode(), shape, kind)
    payload = b.pack(f"{len(values)}f", *values)
    b.data = b.data[:offset] + payload + b.data[offset + len(payload) :]
    return b


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_gguf_by_hand(load: Any, byteorder: str) -> None:
    b = builder(byteorder=byteorder)
    add(b, f"{NAME}.in_sum2", (2, 4), [1, 2, 3, 4, 5, 6, 7, 8])
    add(b, f"{NAME}.counts", (1, 4), [2, 0, 2.5, -1])  # halves round away from zero
    add(b, "something.else", (1,), [1])
    imatrix = load(b.build())
    assert imatrix[NAME][:2].tolist() == [[0.5, 1.0], [1.0, 1.0]]
    np.testing.assert_array_equal(imatrix[NAME][2], np.array([5, 6], "f4") / np.float32(3))
    assert imatrix[NAME][3].tolist() == [1.0, 1.0]
    assert (imatrix.datasets, imatrix.chunk_count) == (("a", "b"), 7)


def test_gguf_whose_datasets_are_no_texts(load: Any) -> None:
    for b in (
        GGUFBuilder().kv(b"imatrix.datasets", STRING, b"a"),
        GGUFBuilder().array(b"imatrix.datasets", UINT32, [1]),
    ):
        b.kv(b"imatrix.chunk_count", UINT32, 1).kv(b"imatrix.chunk_size", UINT32, 1)
        add(b, f"{NAME}.in_sum2", (1,), [1])
        add(b, f"{NAME}.counts", (1,), [1])
        assert load(b.build()).datasets == ()


@pytest.mark.parametrize("leave_out", ["datasets", "chunk_count", "chunk_size"])
def test_gguf_without_metadata(load: Any, leave_out: str) -> None:
    message = rf"file.dat: expected the metadata of .*, got no imatrix\.{leave_out}; is it a model\?$"
    with pytest.raises(ImatrixError, match=message):
        load(builder(leave_out=leave_out).build())


def test_a_model_is_no_importance_matrix() -> None:
    message = "got no imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size; is it a model"
    with pytest.raises(ImatrixError, match=message):
        load_imatrix(GOLDEN / "gguf" / "models" / "llama-odd2-f32.gguf")


def test_gguf_with_a_chunk_count_of_another_type(load: Any) -> None:
    b = builder(leave_out="chunk_count").kv(b"imatrix.chunk_count", FLOAT32, 1)
    with pytest.raises(ImatrixError, match=r"file.dat: imatrix.chunk_count: expected UINT32, got FLOAT32$"):
        load(b.build())


def test_gguf_without_tensors(load: Any) -> None:
    with pytest.raises(ImatrixError, match=r"expected tensors NAME.in_sum2 and NAME.counts, got none$"):
        load(add(builder(), "something.else", (1,), [1]).build())


@pytest.mark.parametrize(("there", "missing"), [("in_sum2", "counts"), ("counts", "in_sum2")])
def test_gguf_with_half_a_pair(load: Any, there: str, missing: str) -> None:
    raw = add(builder(), f"{NAME}.{there}", (1,), [1]).build()
    message = f"expected a tensor {NAME}.{missing}, got none: sums and counts come in pairs$"
    options: dict[str, Any]
    for options in ({}, {"exclude": ["attn"]}):
        with pytest.raises(ImatrixError, match=message):
            load(raw, **options)


def test_gguf_of_another_type(load: Any) -> None:
    b = add(builder(), f"{NAME}.in_sum2", (1,), [1])
    b.tensor(f"{NAME}.counts".encode(), (1,), 1)
    with pytest.raises(ImatrixError, match=f"{NAME}.counts: expected F32, got F16$"):
        load(b.build())


@pytest.mark.parametrize(("n_sums", "n_counts"), [(7, 2), (1, 2)])
def test_gguf_whose_counts_do_not_fit(load: Any, n_sums: int, n_counts: int) -> None:
    b = add(builder(), f"{NAME}.in_sum2", (n_sums,), [1] * n_sums)
    add(b, f"{NAME}.counts", (1, n_counts), [1] * n_counts)
    message = f"{NAME}: expected one count for each matrix, got {n_counts} counts for {n_sums} sums$"
    with pytest.raises(ImatrixError, match=message):
        load(b.build())


@pytest.mark.parametrize("counts", [[np.nan], [np.inf]])
def test_gguf_whose_counts_are_no_numbers(load: Any, counts: list[float]) -> None:
    b = add(builder(), f"{NAME}.in_sum2", (1,), [1])
    add(b, f"{NAME}.counts", (1,), counts)
    with pytest.raises(ImatrixError, match=f"{NAME}: expected finite counts, got {counts[0]}$"):
        load(b.build())


def test_gguf_that_is_broken(load: Any) -> None:
    raw = add(builder(), f"{NAME}.in_sum2", (4,), [1] * 4).build()
    with pytest.raises(ImatrixError, match=r"^importance matrix: .*file.dat"):
        load(raw[:-30])


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    missing = tmp_path / "none.gguf"
    with pytest.raises(ImatrixError, match=r"none.gguf: cannot read the importance matrix: No such file"):
        load_imatrix(missing)
    with pytest.raises(ImatrixError, match="cannot read the importance matrix"):
        load_imatrix(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.data())
def test_damaged_files_are_errors_and_nothing_else(load: Any, data: st.DataObject) -> None:
    b = add(add(builder(), f"{NAME}.in_sum2", (2, 2), [1, 2, 3, 4]), f"{NAME}.counts", (1, 2), [1, 2])
    good = data.draw(st.sampled_from([dat(ONE, ONE, rest=struct.pack("<ii1s", 1, 1, b"x")), b.build()]))
    raw = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for at in data.draw(st.lists(st.integers(0, max(len(raw) - 1, 0)), max_size=3)):
        if raw:
            raw[at] = data.draw(st.integers(0, 255))
    with suppress(ImatrixError):
        assert all(np.isfinite(rows).all() for rows in load(bytes(raw)).values())
