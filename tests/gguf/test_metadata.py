"""Key/value pairs: order, types, every byte; and what may be set."""

from __future__ import annotations

import copy
import math
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kquant.errors import GGUFError
from kquant.gguf import GGUFValueType, Metadata, read
from support.gguf_builder import BOOL, CODES, FLOAT32, GGUFBuilder, every_kind

T = GGUFValueType
BYTEORDERS = ["little", "big"]


def from_bytes(builder: GGUFBuilder, folder: Path) -> Metadata:
    path = folder / f"{len(list(folder.iterdir()))}.gguf"
    path.write_bytes(builder.build())
    return read(path).metadata


@pytest.mark.parametrize("byteorder", BYTEORDERS)
def test_every_type_decodes(byteorder: str, tmp_path: Path) -> None:
    md = from_bytes(every_kind(byteorder), tmp_path)
    assert next(iter(md)) == md["general.architecture"].replace("llama", "general.architecture")
    for kind, code in CODES.items():
        scalar, array, empty = md[f"scalar.{kind}"], md[f"array.{kind}"], md[f"empty.{kind}"]
        assert type(scalar) is {"f": float, "d": float, "?": bool}.get(code, int)
        assert scalar == 1
        assert array.dtype == np.dtype("=" + code)
        assert array.tolist() == [0, 1, 1]
        assert empty.dtype == array.dtype
        assert empty.shape == (0,)
        assert not array.flags.writeable
        assert md.type_of(f"scalar.{kind}") == T(kind)
        assert md.type_of(f"array.{kind}") == md.type_of("strings") == T.ARRAY
        assert md.array_type_of(f"empty.{kind}") == T(kind)
    assert list(md["strings"]) == ["<s>", "", "né", "\udcff\0\udcfe"]
    assert len(md["no.strings"]) == 0
    assert md.array_type_of("no.strings") == T.STRING
    assert md["empty.string"] == ""
    assert md["key \udcff\udcc3"] == "\udc80 is not UTF-8"
    assert md.raw_str("key \udcff\udcc3") == b"\x80 is not UTF-8"


@pytest.mark.parametrize("byteorder", BYTEORDERS)
@pytest.mark.parametrize("to", BYTEORDERS)
def test_encodes_in_either_byte_order(byteorder: str, to: Any, tmp_path: Path) -> None:
    md = from_bytes(every_kind(byteorder), tmp_path)
    assert md.encode(to) == b"".join(every_kind(to).kv_parts)
    assert md == from_bytes(every_kind(to), tmp_path)


def test_keeps_bits_that_python_does_not_show(tmp_path: Path) -> None:
    """A truth value of 2 is true, a signalling NaN is NaN: both go back as they came."""
    b = GGUFBuilder()
    b.kv_raw(b.string(b"true") + b.pack("iB", BOOL, 2))
    b.kv_raw(b.string(b"nan") + b.pack("iI", FLOAT32, 0x7F800001))
    b.kv_raw(b.string(b"truths") + b.pack("iiQ3B", T.ARRAY, BOOL, 3, 0, 255, 1))
    md = from_bytes(b, tmp_path)
    assert md["true"] is True
    assert math.isnan(md["nan"])
    assert md["truths"].tolist() == [False, True, True]
    assert md["truths"].view(np.uint8).tolist() == [0, 1, 1]
    assert md.encode("little") == b"".join(b.kv_parts)
    assert md.copy().encode("big")[-3:] == bytes([0, 255, 1])


def test_travels_to_other_processes(tmp_path: Path) -> None:
    """A plan holds metadata: it must reach the workers of any executor, without the memory map."""
    md = from_bytes(every_kind("big"), tmp_path)
    for other in (pickle.loads(pickle.dumps(md)), copy.deepcopy(md)):
        assert other == md
        assert list(other["strings"]) == list(md["strings"])
    assert pickle.loads(pickle.dumps(md["strings"])) == md["strings"]


def test_set_appends_and_replaces() -> None:
    md = Metadata()
    md.set("a", 1, T.UINT32)
    md.set("b", "text", T.STRING)
    md.set("a", 2.5, T.FLOAT32)
    assert list(md.items()) == [("b", "text"), ("a", 2.5)]
    md.remove("b")
    md.remove("never there")
    assert list(md) == ["a"]
    assert len(md) == 1
    assert "a" in md
    assert "b" not in md
    with pytest.raises(KeyError):
        md["b"]


def test_copy_is_independent() -> None:
    md = Metadata()
    md.set("a", 1, T.UINT32)
    other = md.copy()
    assert other == md
    other.set("a", 2, T.UINT32)
    other.set("b", 3, T.UINT32)
    assert (md["a"], len(md)) == (1, 1)
    assert other != md
    assert md != {"a": 1}
    with pytest.raises(TypeError, match="unhashable"):
        hash(md)


def test_equal_means_same_types_and_order() -> None:
    a, b, c = Metadata(), Metadata(), Metadata()
    a.set("x", 1, T.UINT32)
    b.set("x", 1, T.INT32)
    assert a != b
    b.set("x", 1, T.UINT32)
    assert a == b
    for md, order in ((a, "yz"), (c, "zy")):
        for key in order:
            md.set(key, True, T.BOOL)
    c.set("x", 1, T.UINT32)
    assert a != c


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (255, T.UINT8),
        (-128, T.INT8),
        (65535, T.UINT16),
        (-32768, T.INT16),
        (2**32 - 1, T.UINT32),
        (-(2**31), T.INT32),
        (1.5, T.FLOAT32),
        (False, T.BOOL),
        ("né", T.STRING),
        ("", T.STRING),
        (2**64 - 1, T.UINT64),
        (-(2**63), T.INT64),
        (1e300, T.FLOAT64),
        (np.int64(7), T.UINT8),
    ],
)
def test_set_and_get(value: Any, kind: GGUFValueType) -> None:
    md = Metadata()
    md.set("one", value, kind)
    md.set("many", [value, value], T.ARRAY, element_type=kind)
    md.set("none", [], T.ARRAY, element_type=kind)
    assert md["one"] == value
    assert list(md["many"]) == [value, value]
    assert len(md["none"]) == 0
    assert (md.type_of("one"), md.type_of("many"), md.array_type_of("none")) == (kind, T.ARRAY, kind)


def test_set_takes_arrays_and_bytes() -> None:
    md = Metadata()
    md.set("a", np.arange(3, dtype=np.int64), T.ARRAY, element_type=T.UINT16)
    assert md["a"].dtype == np.uint16
    md.set("s", [b"\xff", "x"], T.ARRAY, element_type=T.STRING)
    assert md["s"].raw(0) == b"\xff"
    md.set("b", b"\xfe", T.STRING)
    assert md["b"] == "\udcfe"
    assert md.raw_str("b") == b"\xfe"


def test_a_key_has_one_spelling() -> None:
    """Two surrogates may be the bytes of one letter: they are the same key."""
    md = Metadata()
    md.set("é", 1, T.UINT8)
    md.set("\udcc3\udca9", 2, T.UINT8)
    assert dict(md) == {"é": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("k", 256, T.UINT8), "metadata key 'k': expected UINT8, got 256"),
        (("k", -1, T.UINT64), "metadata key 'k': expected UINT64, got -1"),
        (("k", 1.5, T.INT32), "metadata key 'k': expected INT32, got 1.5"),
        (("k", 1e300, T.FLOAT32), "metadata key 'k': expected FLOAT32, got 1e+300"),
        (("k", "1", T.UINT8), "metadata key 'k': expected UINT8, got '1'"),
        (("k", 1, T.STRING), "metadata key 'k': expected a string, got 1"),
        (("k", "\ud800", T.STRING), "metadata key 'k': expected text that UTF-8 can hold, got '\\ud800'"),
        (("", 1, T.UINT8), "metadata key '': expected 1 to 65535 bytes, got 0"),
        (("k" * 65536, 1, T.UINT8), f"metadata key '{'k' * 40}': expected 1 to 65535 bytes, got 65536"),
        (("\ud800", 1, T.UINT8), "metadata key '\\ud800': expected text that UTF-8 can hold"),
        (("k", [1], T.ARRAY), "expected a value type, or ARRAY with an element type that is not ARRAY"),
        (("general.alignment", 48, T.UINT32), "'general.alignment': expected a power of two, got 48"),
        (("general.alignment", 0, T.UINT32), "'general.alignment': expected a power of two, got 0"),
        (("general.alignment", 32, T.UINT64), "'general.alignment': expected UINT32, got UINT64"),
        (
            ("general.alignment\0", 32, T.UINT32),
            "'general.alignment\\x00': expected 'general.alignment' without a NUL",
        ),
    ],
)
def test_set_refuses(arguments: tuple[Any, ...], message: str) -> None:
    md = Metadata()
    md.set("k", 7, T.UINT8)
    with pytest.raises(GGUFError, match=re.escape(message)):
        md.set(*arguments)
    assert dict(md) == {"k": 7}


def test_set_refuses_nested_arrays() -> None:
    md = Metadata()
    for kind, element in ((T.ARRAY, T.ARRAY), (T.UINT8, T.UINT8)):
        with pytest.raises(GGUFError, match="expected a value type, or ARRAY with an element type"):
            md.set("k", [], kind, element_type=element)
    with pytest.raises(GGUFError, match=r"expected UINT8, got \[1, 300\]"):
        md.set("k", [1, 300], T.ARRAY, element_type=T.UINT8)
    assert not md


def test_questions_of_the_wrong_type() -> None:
    md = Metadata()
    md.set("n", 1, T.UINT8)
    md.set("s", ["a"], T.ARRAY, element_type=T.STRING)
    with pytest.raises(GGUFError, match="metadata key 'n': expected an array, got UINT8"):
        md.array_type_of("n")
    with pytest.raises(GGUFError, match="metadata key 'n': expected STRING, got UINT8"):
        md.raw_str("n")
    with pytest.raises(GGUFError, match="metadata key 's': expected STRING, got ARRAY"):
        md.raw_str("s")
    with pytest.raises(KeyError):
        md.type_of("x")


def test_alignment() -> None:
    md = Metadata()
    assert md.alignment == 32
    md.set("general.alignment", 64, T.UINT32)
    assert md.alignment == 64


def test_repr() -> None:
    md = Metadata()
    for key in "abcd":
        md.set(key, 1, T.UINT8)
    assert repr(md) == "Metadata('a', 'b', 'c', …: 4 keys)"


def test_arrays_lie_anywhere(tmp_path: Path) -> None:
    """Values in a file are not aligned; arrays work all the same."""
    for shift in range(8):
        b = (
            GGUFBuilder()
            .kv(b"k" * (shift + 1), 0, 1)
            .array(b"d", 12, [0.5, -2.0])
            .array(b"q", 10, [2**64 - 1])
        )
        md = from_bytes(b, tmp_path)
        assert (md["d"] * 2).tolist() == [1.0, -4.0]
        assert md["q"].sum() == 2**64 - 1
        assert struct.pack("<2d", *md["d"]) == md["d"].tobytes()


def test_pick_keeps_bits_and_place() -> None:
    md = Metadata()
    floats = np.array([1.5, np.nan, -0.0], np.float32)
    md.set("a", floats, GGUFValueType.ARRAY, element_type=GGUFValueType.FLOAT32)
    md.set("b", 1, GGUFValueType.UINT8)
    md.pick("a", [2, 1])
    assert list(md) == ["a", "b"]
    assert md["a"].tobytes() == floats[[2, 1]].tobytes()
    md.pick("a", [])
    assert md["a"].size == 0
    md.set("s", ["x"], GGUFValueType.ARRAY, element_type=GGUFValueType.STRING)
    with pytest.raises(GGUFError, match="metadata key 's': expected an array of numbers"):
        md.pick("s", [0])
    with pytest.raises(GGUFError, match="metadata key 'b': expected an array, got UINT8"):
        md.pick("b", [0])
