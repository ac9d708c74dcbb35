"""ggml's own reader as the judge: what it refuses, kquant refuses; what kquant reads, it reads alike."""

from __future__ import annotations

import ctypes
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kquant.errors import GGUFError
from kquant.gguf import GGUFFile, read
from support.gguf_builder import BOOL, F16, F32, Q4_K, STRING, UINT8, UINT32, GGUFBuilder, every_kind

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


class GGML:
    """`gguf_init_from_buffer` and the functions that ask what it has read."""

    def __init__(self) -> None:
        self.lib: Any = import_module("ggml.ggml").lib
        pointer, number, text = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p
        for name, result, *arguments in (
            ("gguf_init_from_buffer", pointer, text, ctypes.c_size_t, _Parameters),
            ("gguf_free", None, pointer),
            ("gguf_get_data_offset", ctypes.c_size_t, pointer),
            ("gguf_get_n_kv", number, pointer),
            ("gguf_get_key", text, pointer, number),
            ("gguf_get_kv_type", ctypes.c_int, pointer, number),
            ("gguf_get_arr_n", ctypes.c_size_t, pointer, number),
            ("gguf_get_n_tensors", number, pointer),
            ("gguf_get_tensor_name", text, pointer, number),
            ("gguf_get_tensor_type", ctypes.c_int, pointer, number),
            ("gguf_get_tensor_offset", ctypes.c_size_t, pointer, number),
            ("gguf_get_tensor_size", ctypes.c_size_t, pointer, number),
        ):
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, arguments

    def summary(self, data: bytes) -> object:
        """All that ggml can be asked about a file without its data; None if it refuses it."""
        lib = self.lib
        context = lib.gguf_init_from_buffer(data, len(data), _Parameters(no_alloc=True, ctx=None))
        if not context:
            return None
        keys = []
        for i in range(lib.gguf_get_n_kv(context)):
            kind = lib.gguf_get_kv_type(context, i)
            count = lib.gguf_get_arr_n(context, i) if kind == 9 else None
            keys.append((lib.gguf_get_key(context, i), kind, count))
        start = lib.gguf_get_data_offset(context)
        tensors = [
            (
                lib.gguf_get_tensor_name(context, i),
                lib.gguf_get_tensor_type(context, i),
                start + lib.gguf_get_tensor_offset(context, i),
                lib.gguf_get_tensor_size(context, i),
            )
            for i in range(lib.gguf_get_n_tensors(context))
        ]
        lib.gguf_free(context)
        return keys, tensors


class _Parameters(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def summary(file: GGUFFile) -> object:
    """The same as kquant has it; C ends names at a NUL."""
    md = file.metadata
    keys = [
        (c_string(key), int(md.type_of(key)), len(md[key]) if md.type_of(key) == 9 else None) for key in md
    ]
    tensors = [
        (c_string(info.name), info.type.id, info.offset, info.nbytes) for info in file.tensors.values()
    ]
    return keys, tensors


def c_string(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape").split(b"\0")[0]


@pytest.fixture(scope="module")
def ggml() -> GGML:
    return GGML()


def seeds() -> list[bytes]:
    small = GGUFBuilder().kv(b"general.alignment", UINT32, 32).kv(b"k", STRING, b"v").kv(b"b", BOOL, 1)
    small.array(b"a", UINT8, [1, 2, 3]).array(b"s", STRING, [b"one", b"", b"three"])
    small.tensor(b"t", (2, 2), F16).tensor(b"q", (256, 2), Q4_K).tensor(b"l", (3,), F32)
    return [every_kind().build(), every_kind(version=2).build(), small.build()]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A file with small changes that a reader may miss: a byte, or a field that becomes a bad number."""
    data = bytearray(draw(st.sampled_from(seeds())))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data) - 8))
        number = draw(st.integers(-2, 40) | st.sampled_from([2**30, 2**31, 2**32, 2**62, 2**63 - 1]))
        size, code = draw(st.sampled_from([(1, "B"), (4, "I"), (8, "Q")]))
        data[at : at + size] = struct.pack("<" + code, number % 256**size)
    return bytes(data)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=mutated())
def test_what_ggml_refuses_is_refused(data: bytes, ggml: GGML, tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(data)
    try:
        with read(path) as file:
            # ggml reads its own byte order only, and before 2026 it divided by dimensions of 0
            if file.byteorder == "little" and not any(0 in info.shape for info in file.tensors.values()):
                assert summary(file) == ggml.summary(data)
    except GGUFError:
        pass


def test_ggml_reads_every_golden_file_alike(ggml: GGML) -> None:
    for path in sorted(Path(__file__).parents[1].glob("golden/gguf/models/*.gguf")):
        with read(path) as file:
            assert summary(file) == ggml.summary(path.read_bytes())
