"""Files that must be refused: what llama.cpp's tests/test-gguf.cpp enumerates, and more."""

from __future__ import annotations

import os
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kquant.errors import GGUFError, GGUFLimitError, GGUFTruncatedError
from kquant.gguf import GGUFFile, read
from support.gguf_builder import (
    ARRAY,
    F16,
    F32,
    I8,
    I64,
    INT32,
    Q4_K,
    STRING,
    TYPE_COUNT,
    UINT8,
    UINT16,
    UINT32,
    GGUFBuilder,
    every_kind,
)

B = GGUFBuilder
LONG_NAME = b"my_tensor_with_a_very_long_name_which_is_longer_than_ggml_allows_it"
BIG = 2**63 - 64


def two_tensors(**options: Any) -> GGUFBuilder:
    return B(**options).tensor(b"a", (5,), F32).tensor(b"b", (256, 2), Q4_K)


# upstream's name of the case (or ours, in lower case) -> the bytes, the error, what its message says
CASES: dict[str, tuple[bytes, type[GGUFError], str]] = {
    "HEADER_BAD_MAGIC": (B(magic=b"FUGG").build(), GGUFError, "byte 0: magic: expected b'GGUF', got b'FUGG'"),
    "HEADER_BAD_VERSION_0": (B(version=0).build(), GGUFError, "byte 4: version: expected 2 or 3, got 0"),
    "HEADER_BAD_VERSION_1": (
        B(version=1).build(),
        GGUFError,
        "expected a GGUF file, got version 1 of GGUF, of ",
    ),
    "HEADER_BAD_VERSION_FUTURE": (B(version=4).build(), GGUFError, "version: expected 2 or 3, got 4"),
    "HEADER_BAD_N_TENSORS": (
        B().build(n_tensors=-1),
        GGUFLimitError,
        "byte 8: number of tensors: expected 0 to 262144, got -1",
    ),
    "HEADER_BAD_N_KV": (
        B().build(n_kv=-1),
        GGUFLimitError,
        "byte 16: number of key/value pairs: expected 0 to 65536, got -1",
    ),
    "KV_BAD_KEY_SIZE": (
        B().kv_raw(b"\xff" * 8 + b"my_key" + bytes(8)).build(),
        GGUFLimitError,
        "byte 24: key 0: expected at most 65535 bytes, got 18446744073709551615",
    ),
    "KV_EMPTY_KEY": (
        B().kv(b"", UINT32, 1).build(),
        GGUFError,
        "byte 24: key 0: expected at least one byte, got none",
    ),
    "KV_BAD_TYPE": (
        B().kv_raw(B().string(b"my_key") + struct.pack("<i", 13) + bytes(8)).build(),
        GGUFError,
        "byte 38: key 'my_key': expected a value type from 0 to 12, got 13",
    ),
    "KV_DUPLICATE_KEY": (
        B().kv(b"my_key", UINT8, 1).kv(b"my_key", UINT8, 2).build(),
        GGUFError,
        "byte 43: key 'my_key': expected unique keys, got this one twice",
    ),
    "KV_BAD_ALIGN": (
        B().kv(b"general.alignment", UINT32, 13).build(),
        GGUFError,
        "byte 49: metadata key 'general.alignment': expected a power of two, got 13",
    ),
    "KV_WRONG_TYPE_ALIGN": (
        B().kv(b"general.alignment", INT32, 32).build(),
        GGUFError,
        "metadata key 'general.alignment': expected UINT32, got INT32",
    ),
    "TENSORS_BAD_NAME_SIZE": (
        B().tensor(LONG_NAME, (5,), F32).build(),
        GGUFLimitError,
        f"byte 24: name of tensor 0: expected at most 63 bytes, got {len(LONG_NAME)}",
    ),
    "TENSORS_BAD_N_DIMS": (
        B().tensor(b"a", (1, 1, 1, 1, 1), F32).build(),
        GGUFLimitError,
        "byte 24: tensor 'a': expected at most 4 dimensions, got 5",
    ),
    "TENSORS_BAD_SHAPE": (
        B().tensor(b"a", (-1, -1), F32).build(),
        GGUFError,
        "tensor 'a': expected dimensions of 0 or more, got (-1, -1)",
    ),
    "TENSORS_NE_TOO_BIG": (
        B().tensor(b"a", (4 * (2**31 - 1), 4 * (2**31 - 1)), F32).build(),
        GGUFLimitError,
        "elements and bytes, got the dimensions (8589934588, 8589934588) of F32",
    ),
    "TENSORS_NBYTES_TOO_BIG": (
        B().tensor(b"a", (1534000000, 1534000000), I64).build(),
        GGUFLimitError,
        "elements and bytes, got the dimensions (1534000000, 1534000000) of I64",
    ),
    "TENSORS_NBYTES_PAD_WRAP": (
        B().tensor(b"a", (4, 2**30 - 1, 2**30 + 1), F32).build(),
        GGUFLimitError,
        "elements and bytes, got the dimensions (4, 1073741823, 1073741825) of F32",
    ),
    "TENSORS_BAD_TYPE": (
        B().tensor(b"a", (5,), TYPE_COUNT).build(),
        GGUFError,
        "byte 24: tensor 'a': unknown tensor type id 43; ggml defines 0 to 42",
    ),
    "TENSORS_BAD_OFFSET": (
        B().tensor(b"a", (5,), F32, offset=2**64 - 1).build(),
        GGUFError,
        "tensor 'a': expected offset 0, got 18446744073709551615",
    ),
    "TENSORS_DUPLICATE_NAME": (
        B().tensor(b"a", (5,), F32).tensor(b"a", (6,), F32).build(),
        GGUFError,
        "byte 57: tensor 'a': expected unique names, got this one twice",
    ),
    "names that are one in C": (
        B().tensor(b"a", (5,), F32).tensor(b"a\0b", (6,), F32).build(),
        GGUFError,
        "byte 57: tensor 'a\\x00b': expected unique names, got a second one that is 'a' to the NUL in it",
    ),
    "key after another": (
        B().kv(b"my_key", UINT8, 1).kv(b"", UINT8, 2).build(),
        GGUFError,
        "key 1, after 'my_key': expected at least one byte, got none",
    ),
    "name after another": (
        B().tensor(b"a", (5,), F32).tensor(LONG_NAME, (5,), F32).build(),
        GGUFLimitError,
        f"name of tensor 1, after 'a': expected at most 63 bytes, got {len(LONG_NAME)}",
    ),
    "TENSORS_BAD_ALIGN": (
        two_tensors(alignment=13).kv(b"general.alignment", UINT32, 13).build(),
        GGUFError,
        "expected a power of two, got 13",
    ),
    "TENSORS_INCONSISTENT_ALIGN": (
        two_tensors(alignment=1).build(),
        GGUFError,
        "tensor 'b': expected offset 32, got 20",
    ),
    "DATA_NOT_ENOUGH_DATA": (
        B().tensor(b"a", (32,), I8).build()[:-1],
        GGUFTruncatedError,
        "tensor 'a': expected 32 bytes from byte 64, got the end of the file at byte 95",
    ),
    "DATA_BAD_ALIGN": (
        two_tensors(alignment=1).kv(b"general.alignment", UINT32, 13).build(),
        GGUFError,
        "expected a power of two, got 13",
    ),
    "DATA_INCONSISTENT_ALIGN": (
        two_tensors(alignment=64).build(),
        GGUFError,
        "tensor 'b': expected offset 32, got 64",
    ),
    "DATA_MEM_SIZE_OVERFLOW": (
        B().tensor(b"a", (BIG,), I8).tensor(b"b", (BIG,), I8, offset=BIG).build() + bytes(32),
        GGUFLimitError,
        f"to end within the 9223372036854775807 bytes that a file can have, got {BIG} bytes from byte 96",
    ),
    # what upstream refuses, too, but has no case for
    "empty file": (
        b"",
        GGUFTruncatedError,
        "expected a GGUF file, got an empty file",
    ),
    "big endian version 1": (B(version=1, byteorder="big").build(), GGUFError, "got version 1 of GGUF"),
    "nested array": (
        B().kv_raw(B().string(b"k") + struct.pack("<iiQ", ARRAY, ARRAY, 1) + bytes(64)).build(),
        GGUFLimitError,
        "byte 33: key 'k': expected an array of values, got one of arrays",
    ),
    "unknown element type": (
        B().kv_raw(B().string(b"k") + struct.pack("<iiQ", ARRAY, -1, 1) + bytes(64)).build(),
        GGUFError,
        "key 'k': expected a value type from 0 to 12, got -1",
    ),
    "array too long": (
        B().kv_raw(B().string(b"k") + struct.pack("<iiQ", ARRAY, UINT8, 2**30 + 1) + bytes(64)).build(),
        GGUFLimitError,
        "key 'k': expected at most 1073741824 elements, got 1073741825",
    ),
    "array longer than the file": (
        B().kv_raw(B().string(b"k") + struct.pack("<iiQ", ARRAY, UINT16, 2**30) + bytes(15)).build(),
        GGUFTruncatedError,
        "byte 49: key 'k': expected 2147483648 bytes, got the end of the file after 15",
    ),
    "strings longer than the file": (
        B().kv_raw(B().string(b"k") + struct.pack("<iiQ", ARRAY, STRING, 2**30) + bytes(15)).build(),
        GGUFTruncatedError,
        "expected at least 8589934592 bytes for 1073741824 of them, got the end of the file after 15",
    ),
    "string of an array beyond the file": (
        B()
        .kv_raw(
            B().string(b"k")
            + struct.pack("<iiQ", ARRAY, STRING, 2)
            + B().string(b"ok")
            + struct.pack("<Q", 70)
        )
        .build(),
        GGUFTruncatedError,
        "byte 67: key 'k': string 1: expected 70 bytes, got the end of the file after 29",
    ),
    "string of an array too long": (
        B()
        .kv_raw(
            B().string(b"k")
            + struct.pack("<iiQ", ARRAY, STRING, 2)
            + B().string(b"ok")
            + struct.pack("<Q", 2**30 + 1)
        )
        .build(),
        GGUFLimitError,
        "byte 59: key 'k': string 1: expected at most 1073741824 bytes, got 1073741825",
    ),
    "string too long": (
        B().kv_raw(B().string(b"k") + struct.pack("<iQ", STRING, 2**30 + 1)).build(),
        GGUFLimitError,
        "key 'k': expected at most 1073741824 bytes, got 1073741825",
    ),
    "alignment as an array": (
        B().array(b"general.alignment", UINT32, [32]).build(),
        GGUFError,
        "expected UINT32, got ARRAY",
    ),
    "alignment of 0": (
        B().kv(b"general.alignment", UINT32, 0).build(),
        GGUFError,
        "expected a power of two, got 0",
    ),
    "alignment behind a NUL": (
        B().kv(b"general.alignment\0", UINT32, 13).build(),
        GGUFError,
        "byte 24: key 'general.alignment\\x00': expected 'general.alignment' without a NUL",
    ),
    "alignment beyond the file": (
        B().kv(b"general.alignment", UINT32, 2**31).tensor(b"a", (0,), I8).build(),
        GGUFTruncatedError,
        "expected tensor data from byte 2147483648, got the end of the file at byte",
    ),
    "removed tensor type": (
        B().tensor(b"a", (32,), 4).build(),
        GGUFError,
        "tensor 'a': expected a tensor type that ggml still has, got Q4_2 (id 4), which it has removed",
    ),
    "negative tensor type": (B().tensor(b"a", (32,), -1).build(), GGUFError, "unknown tensor type id -1"),
    "row not a multiple of the block size": (
        B().tensor(b"a", (255, 2), Q4_K).build(),
        GGUFError,
        "tensor 'a': Q4_K: expected a row length that is a multiple of 256, got 255",
    ),
    "block type without dimensions": (
        B().tensor(b"a", (), Q4_K).build(),
        GGUFError,
        "expected a row length that is a multiple of 256, got 1",
    ),
    "overflow hidden by a zero": (
        B().tensor(b"a", (2**62, 2**62, 0), F16).build(),
        GGUFLimitError,
        "expected at most 9223372036854775807 elements and bytes",
    ),
    "offset before the end of the previous tensor": (
        B().tensor(b"a", (5,), F32).tensor(b"b", (5,), F32, offset=0).build(),
        GGUFError,
        "tensor 'b': expected offset 32, got 0",
    ),
    "offset with a gap": (
        B().tensor(b"a", (5,), F32).tensor(b"b", (5,), F32, offset=64).build() + bytes(64),
        GGUFError,
        "tensor 'b': expected offset 32, got 64",
    ),
    "more pairs than bytes": (
        B().build(n_kv=65536),
        GGUFTruncatedError,
        "pairs: expected at least 917504 bytes for 65536 of them, got the end of the file after 8",
    ),
    "more tensors than bytes": (
        B().build(n_tensors=262144),
        GGUFTruncatedError,
        "tensors: expected at least 6291456 bytes for 262144 of them, got the end of the file after 16",
    ),
    "no padding before zero bytes of data": (
        B().tensor(b"a", (0,), I8).header(),
        GGUFTruncatedError,
        "expected tensor data from byte 64, got the end of the file at byte 57",
    ),
}


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[bytes], GGUFFile]:
    def open_bytes(data: bytes) -> GGUFFile:
        path = tmp_path / "file.gguf"
        path.write_bytes(data)
        return read(path)

    return open_bytes


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, opened: Callable[[bytes], GGUFFile], tmp_path: Path) -> None:
    data, error, message = CASES[case]
    with pytest.raises(GGUFError, match=re.escape(message)) as caught:
        opened(data)
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{tmp_path / 'file.gguf'}: ")


# the cases of upstream that must open, and their like
ACCEPTED: dict[str, bytes] = {
    "HEADER_EMPTY": B().build(),
    "KV_RANDOM_KV": every_kind().build(),
    "TENSORS_ZERO_DIM": B().tensor(b"a", (256, 0), Q4_K).tensor(b"b", (3, 0), F32).build() + bytes(32),
    "TENSORS_SUCCESS": two_tensors().build(),
    "TENSORS_CUSTOM_ALIGN": two_tensors(alignment=1).kv(b"general.alignment", UINT32, 1).build(),
    "DATA_CUSTOM_ALIGN": two_tensors(alignment=256).kv(b"general.alignment", UINT32, 256).build(),
    "bytes after the data": two_tensors().build() + b"more",
    "no tensors, no padding": B().kv(b"k", UINT8, 1).header(),
    "no padding after the last tensor": two_tensors().build()[: 160 + 288],
    "NUL in keys and names": B().kv(b"a\0b", UINT8, 1).tensor(b"\0", (1,), F32).build(),
    "key of the longest length": B().kv(b"k" * 65535, UINT8, 1).build(),
    "name of the longest length": B().tensor(b"n" * 63, (1,), F32).build(),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str, opened: Callable[[bytes], GGUFFile]) -> None:
    data = ACCEPTED[case]
    with opened(data) as file:
        for info in file.tensors.values():
            assert file.data(info).tobytes() == data[info.offset : info.offset + info.nbytes]


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_truncated_anywhere(byteorder: str, tmp_path: Path) -> None:
    """A file truncated at any length is a clear error, unless only padding at the end is missing."""
    data = every_kind(byteorder).build()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data)
    end_of_last_tensor = len(data) - 8
    for length in reversed(range(len(data))):
        os.truncate(path, length)
        missed = ""
        try:
            read(path).close()
        except GGUFTruncatedError as error:
            missed = str(error)
        if length < end_of_last_tensor:
            assert missed.startswith(f"{path}: ")
            assert ("got the end of the file" if length else "got an empty file") in missed
        else:
            assert not missed


def test_header_only_takes_what_lacks_its_data(tmp_path: Path) -> None:
    builder = two_tensors()
    path = tmp_path / "header.gguf"
    path.write_bytes(builder.header())
    with read(path, header_only=True) as file:
        assert [info.nbytes for info in file.tensors.values()] == [20, 288]
        with pytest.raises(
            GGUFTruncatedError, match=r"tensor 'b': expected 288 bytes from byte 160, got the end"
        ):
            file.data(file.tensors["b"])
    path.write_bytes(builder.header()[:-1])
    with pytest.raises(GGUFTruncatedError, match=r"tensor 'b': expected 28 bytes, got the end"):
        read(path, header_only=True)


def test_not_a_regular_file(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="expected a path without a NUL, got 'a"):
        read("a\0b")
    with pytest.raises(GGUFError, match="expected a regular file"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing.gguf")


SMALL = every_kind().build()
HEADER_BYTES = len(every_kind().header())


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A small file with some bytes replaced, by noise or by dangerous numbers, shortened or extended."""
    data = bytearray(SMALL)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, HEADER_BYTES - 1))
        hurtful = st.sampled_from([-1, 0, 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**30, 2**16, len(SMALL)])
        new = draw(
            st.binary(min_size=1, max_size=4)
            | hurtful.map(lambda n: (n % 2**64).to_bytes(8, "little"))
            | hurtful.map(lambda n: (n % 2**32).to_bytes(4, "little"))
        )
        data[at : at + len(new)] = new
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated())
@example(SMALL)
def test_mutated_files_open_or_raise(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mutated.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with read(path) as file:
            touch_everything(file)
    except GGUFError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 << 20


def touch_everything(file: GGUFFile) -> None:
    for value in file.metadata.values():
        if hasattr(value, "iter_raw"):
            list(value)
    file.metadata.encode("big")
    for info in file.tensors.values():
        assert file.data(info).nbytes == info.nbytes
        assert info.n_rows * info.row_bytes == info.nbytes


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200).map(lambda tail: b"GGUF" + tail) | st.binary(max_size=200))
def test_noise(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "noise.gguf"
    path.write_bytes(data)
    with pytest.raises(GGUFError, match="noise"):
        read(path)


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        ("pairs", B().build(n_kv=65536)),
        ("tensors", B().build(n_tensors=262144)),
        ("elements", CASES["array longer than the file"][0]),
        ("strings", CASES["strings longer than the file"][0]),
        ("a string", B().kv_raw(B().string(b"k") + struct.pack("<iQ", STRING, 2**30)).build()),
        ("a tensor", B().tensor(b"a", (2**61,), I8).build()),
        ("alignment", CASES["alignment beyond the file"][0]),
    ],
)
def test_nothing_is_allocated_for_what_is_not_there(declared: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "huge.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(GGUFError, match="huge"):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20, declared
