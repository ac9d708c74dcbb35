"""Models over several files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from kquant.errors import GGUFError
from kquant.gguf import GGUFValueType, Metadata, expand_shards, read, read_shard, split_path, split_prefix
from support.files import GOLDEN, SHARDS
from support.gguf_builder import I8, INT32, UINT16, UINT32, GGUFBuilder

FIRST = SHARDS[0]


def test_shards_are_one_model() -> None:
    """The split of llama-slim-f16 has its tensors, and its metadata but for the keys of the split."""
    with read(FIRST) as split, read(GOLDEN / "models" / "llama-slim-f16.gguf") as whole:
        assert split.paths == tuple(SHARDS)
        assert split.file_bytes == tuple(path.stat().st_size for path in SHARDS)
        assert set(split.tensors) == set(whole.tensors)
        for name, info in split.tensors.items():
            other = whole.tensors[name]
            assert (info.shape, info.type) == (other.shape, other.type)
            assert split.data(info).tobytes() == whole.data(other).tobytes()
            assert info.offset >= split.data_offsets[info.shard]
        assert [i.shard for i in split.tensors.values()] == [0] * 26 + [1] * 26 + [2] * 24
        metadata = split.metadata.copy()
        for key in ("split.no", "split.count", "split.tensors.count"):
            metadata.remove(key)
        assert metadata == whole.metadata
        assert [md["split.no"] for md in split.shard_metadata] == [0, 1, 2]


def test_one_shard_alone() -> None:
    with read_shard(SHARDS[1]) as file:
        assert file.paths == (SHARDS[1],)
        assert len(file.tensors) == 26


def test_expand_shards(tmp_path: Path) -> None:
    assert expand_shards(FIRST) == tuple(SHARDS)
    whole = GOLDEN / "models" / "llama-slim-f16.gguf"
    assert expand_shards(str(whole)) == (whole,)
    alone = tmp_path / FIRST.name
    shutil.copy(FIRST, alone)
    assert [path.parent for path in expand_shards(alone)] == [tmp_path] * 3


@pytest.mark.parametrize(
    ("name", "index", "count", "prefix"),
    [
        ("a-00001-of-00003.gguf", 0, 3, "a"),
        ("a-00003-of-00003.gguf", 2, 3, "a"),
        ("a-b-00001-of-00002-00001-of-00002.gguf", 0, 2, "a-b-00001-of-00002"),
        ("a-00001-of-00003.gguf", 1, 3, None),
        ("a-00001-of-00003.gguf", 0, 2, None),
        ("a-1-of-3.gguf", 0, 3, None),
        ("-00001-of-00003.gguf", 0, 3, None),
        ("a-65535-of-65535.gguf", 65534, 65535, "a"),
    ],
)
def test_names(name: str, index: int, count: int, prefix: str | None) -> None:
    assert split_prefix(name, index, count) == prefix
    if prefix is not None:
        assert split_path(prefix, index, count) == name


def shard(
    number: int = 0, count: int = 2, *, total: int = 2, name: bytes = b"", **options: Any
) -> GGUFBuilder:
    b = GGUFBuilder(**options).kv(b"split.no", UINT16, number).kv(b"split.count", UINT16, count)
    b.kv(b"split.tensors.count", INT32, total)
    return b.tensor(name or b"t%d" % number, (4,), I8)


def without(key: bytes, number: int = 0) -> GGUFBuilder:
    b = shard(number)
    b.kv_parts = [part for part in b.kv_parts if key not in part]
    return b


REFUSED: dict[str, tuple[GGUFBuilder | None, GGUFBuilder | None, str]] = {
    "missing shard": (shard(), None, "m-00002-of-00002.gguf: expected shard 2 of 2, got no such file"),
    "not the first": (
        shard(1),
        shard(1),
        "got number 2 (split.no = 1); open the file whose name ends in '-00001-of-00002.gguf'",
    ),
    "other number": (shard(), shard(0), "m-00002-of-00002.gguf: expected split.no = 1, got 0"),
    "other name": (
        shard(count=3),
        shard(1),
        "ends in '-00001-of-00003.gguf', because split.count = 3, got 'm-00001-of-00002.gguf'",
    ),
    "no number in the first": (
        without(b"split.no"),
        shard(1),
        "expected the key 'split.no' in a shard, got none",
    ),
    "no number in the second": (
        shard(),
        without(b"split.no", 1),
        "m-00002-of-00002.gguf: expected the key 'split.no'",
    ),
    "no tensor count": (
        without(b"split.tensors.count"),
        shard(1),
        "expected the key 'split.tensors.count' in a shard, got none",
    ),
    "wrong tensor count": (
        shard(total=3),
        shard(1),
        "m-00001-of-00002.gguf: expected 3 tensors in all shards (split.tensors.count), got 2",
    ),
    "wrong type": (
        without(b"split.count").kv(b"split.count", UINT32, 2),
        shard(1),
        "m-00001-of-00002.gguf: key 'split.count': expected UINT16, got UINT32",
    ),
    "tensor twice": (
        shard(),
        shard(1, name=b"t0"),
        "m-00002-of-00002.gguf: tensor 't0': expected unique names, got one that",
    ),
    "mixed byte orders": (
        shard(),
        shard(1, byteorder="big"),
        "m-00002-of-00002.gguf: expected little endian as",
    ),
    "malformed": (shard(), GGUFBuilder(magic=b"GGML"), "m-00002-of-00002.gguf: byte 0: magic"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    first, second, message = REFUSED[case]
    for index, builder in enumerate((first, second)):
        if builder:
            (tmp_path / split_path("m", index, 2)).write_bytes(builder.build())
    with pytest.raises(GGUFError, match=re.escape(message)):
        read(tmp_path / "m-00001-of-00002.gguf")


def test_two_good_shards(tmp_path: Path) -> None:
    for index in range(2):
        (tmp_path / split_path("m", index, 2)).write_bytes(shard(index).build())
    with read(tmp_path / "m-00001-of-00002.gguf") as file:
        assert list(file.tensors) == ["t0", "t1"]
        assert [file.data(info).tobytes() for info in file.tensors.values()] == [bytes(range(4))] * 2


@pytest.mark.parametrize("count", [0, 1])
def test_a_count_below_two_means_one_file(count: int, tmp_path: Path) -> None:
    path = tmp_path / "any name"
    path.write_bytes(shard(7, count).build())
    with read(path) as file:
        assert file.paths == (path,)


def test_many_shards_are_not_opened_before_they_are_named(tmp_path: Path) -> None:
    path = tmp_path / split_path("m", 0, 65535)
    path.write_bytes(shard(0, 65535).build())
    with pytest.raises(GGUFError, match="expected shard 2 of 65535, got no such file"):
        read(path)


def test_split_keys_are_metadata_like_others() -> None:
    md = Metadata()
    md.set("split.no", 3, GGUFValueType.UINT16)
    assert md["split.no"] == 3
