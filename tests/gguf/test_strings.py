"""The walk over string arrays: always what following one string after the other finds."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kquant.gguf import GGUFValueType, Metadata, StringArray, strings
from kquant.gguf.spec import MAX_STRING_BYTES, ByteOrder

MARK = {"little": "<", "big": ">"}
BYTEORDERS = st.sampled_from(["little", "big"])

# short texts as in vocabularies, and what breaks the guess: zeros, nothing, long strings
TEXTS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map(str.encode)
    | st.binary(max_size=12)
    | st.integers(1, 300).map(bytes)
    | st.just(b"")
    | st.integers(200, 70_000).map(lambda n: b"x" * n),
    max_size=60,
)


def encode(items: list[bytes], byteorder: str) -> bytes:
    return b"".join(struct.pack(MARK[byteorder] + "Q", len(item)) + item for item in items)


def naive_starts(data: bytes, start: int, count: int, byteorder: str) -> list[int]:
    starts: list[int] = []
    while len(starts) < count and start + 8 <= len(data):
        (length,) = struct.unpack_from(MARK[byteorder] + "Q", data, start)
        if length > MAX_STRING_BYTES or start + 8 + length > len(data):
            break
        starts.append(start)
        start += 8 + length
    return starts


def found_starts(data: bytes, start: int, count: int, byteorder: ByteOrder) -> list[int]:
    return [int(s) for piece in strings.string_starts(data, start, count, byteorder) for s in piece]


# windows as they are, and so small that strings lie across their ends all the time
WINDOWS = pytest.mark.parametrize("window", [(1 << 17, 200), (1 << 17, 0), (64, 0), (17, 0)], ids=str)


@contextmanager
def windows_of(window: tuple[int, int]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strings, "_WINDOW", window[0])
        patch.setattr(strings, "_FEW", window[1])
        yield


@WINDOWS
@settings(max_examples=60, deadline=None)
@given(TEXTS, BYTEORDERS, st.binary(max_size=9), st.binary(max_size=20))
def test_finds_every_string(
    window: tuple[int, int], items: list[bytes], byteorder: ByteOrder, before: bytes, after: bytes
) -> None:
    data = before + encode(items, byteorder) + after
    with windows_of(window):
        starts = found_starts(data, len(before), len(items), byteorder)
    assert [data[s + 8 : s + 8 + len(item)] for s, item in zip(starts, items, strict=True)] == items


@WINDOWS
@settings(max_examples=150, deadline=None)
@given(st.data(), BYTEORDERS)
def test_follows_the_chain_whatever_the_bytes_are(
    window: tuple[int, int], data: st.DataObject, byteorder: ByteOrder
) -> None:
    """Lengths that were tampered with: 2⁶⁴ − 3 leads backwards, others into the middle of a string."""
    items = data.draw(st.lists(st.integers(0, 40).map(lambda n: b"t" * n), min_size=1, max_size=60))
    damaged = bytearray(encode(items, byteorder))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(damaged) - 8))
        bad = data.draw(
            st.integers(0, 300) | st.integers(2**64 - 40, 2**64 - 1) | st.sampled_from([2**30, 2**63])
        )
        damaged[at : at + 8] = struct.pack(MARK[byteorder] + "Q", bad)
    count = data.draw(st.integers(0, 80))
    raw = bytes(damaged)
    with windows_of(window):
        assert found_starts(raw, 0, count, byteorder) == naive_starts(raw, 0, count, byteorder)


@pytest.mark.parametrize(
    "data",
    [
        bytes(1 << 19),
        encode([b"\0" * 9] * 30_000, "little"),
        encode([b"x" * 300] * 2_000, "little"),
        encode([b"x", b""] * 30_000, "little"),
        encode([b"ab", b"\x01\0\0\0\0\0\0\0"] * 15_000, "little"),
    ],
    ids=["nothing but zeros", "zeros inside", "long", "empty", "lengths inside"],
)
def test_takes_linear_time(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte is searched more often than twice, however often the guess fails."""
    searched = 0
    proven = strings._proven

    def counting(data: bytes, position: int, window_end: int, byteorder: ByteOrder) -> object:
        nonlocal searched
        searched += window_end - position
        return proven(data, position, window_end, byteorder)

    monkeypatch.setattr(strings, "_proven", counting)
    assert found_starts(data, 0, len(data), "little") == naive_starts(data, 0, len(data), "little")
    assert searched <= 2 * len(data)


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_a_vocabulary_is_proven_not_followed(byteorder: ByteOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    """On what vocabularies look like the guess holds: next to no string is followed on its own."""
    items = [f"Ġ{i:x}".encode() * (1 + i % 5) for i in range(50_000)]
    data = bytes(24) + encode(items, byteorder)
    followed = 0
    one_by_one = strings._one_by_one

    def counting(*arguments: object) -> object:
        nonlocal followed
        result = one_by_one(*arguments)  # type: ignore[arg-type]
        followed += len(result[0])
        return result

    monkeypatch.setattr(strings, "_one_by_one", counting)
    assert len(found_starts(data, 24, len(items), byteorder)) == len(items)
    assert followed < len(items) // 500


def sequence(items: list[str] | list[bytes]) -> StringArray:
    md = Metadata()
    md.set("k", items, GGUFValueType.ARRAY, element_type=GGUFValueType.STRING)
    value = md["k"]
    assert isinstance(value, StringArray)
    return value


def test_is_a_sequence() -> None:
    words = ["<s>", "", "né", "\udcff\0\udcfe", "end"]
    s = sequence(words)
    assert len(s) == 5
    assert list(s) == [s[i] for i in range(5)] == words
    assert s[-1] == "end"
    assert s[1:4] == words[1:4]
    assert s[::-2] == words[::-2]
    assert s.raw(3) == b"\xff\0\xfe"
    assert list(s.iter_raw())[2] == "né".encode()
    assert "né" in s
    assert s.index("end") == 4
    assert s[cast(int, np.int64(2))] == "né"
    for index in (5, -6):
        with pytest.raises(IndexError):
            s[index]
    with pytest.raises(IndexError):
        sequence([])[0]


def test_equality() -> None:
    s = sequence(["a", "b"])
    assert s == ["a", "b"] == s
    assert s == ("a", "b")
    assert s == sequence([b"a", b"b"])
    assert s != sequence(["a", "c"])
    assert s != ["a"]
    assert s != "ab"
    with pytest.raises(TypeError, match="unhashable"):
        hash(s)


def test_repr() -> None:
    assert repr(sequence(["a", "b"])) == "StringArray(['a', 'b'], 2 strings)"
    assert repr(sequence(list("abcd"))) == "StringArray(['a', 'b', 'c', …], 4 strings)"
