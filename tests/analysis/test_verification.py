"""`kquant.verify`: sound files, every kind of damage, hashes against hashlib and a manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.analysis.manifest import Manifest
from kquant.analysis.slabs import Slab, in_order
from kquant.errors import GGUFTruncatedError, ManifestError, OptionError, OutputError
from kquant.gguf import read
from support.files import GOLDEN, GOLDEN_FILES, name_of
from support.small_models import heavy_tailed, packed, raw, write_model

MIXED = GOLDEN / "outputs/llama-slim-f16.Q4_K_M.gguf"
FIRST_SHARD = GOLDEN / "split/llama-slim-f16-00001-of-00003.gguf"
WHOLE = [path for path in GOLDEN_FILES if "-of-" not in path.name]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(MIXED, tmp_path / "model.gguf"))


def damage(path: Path, name: str, offset: int, data: bytes) -> None:
    """Overwrites some bytes of a tensor."""
    with read(path) as model:
        at = model.tensors[name].offset + offset
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.mark.parametrize("path", [*WHOLE, FIRST_SHARD], ids=name_of)
def test_golden_files_are_sound(path: Path) -> None:
    found = kquant.verify(path)
    assert found.ok
    assert not found.notes
    assert found.manifest is None
    with read(path) as file:
        assert found.paths == file.paths
        assert found.bytes == sum(info.nbytes for info in file.tensors.values())
        assert found.blocks == sum(
            len(file.data(info).reshape(-1, info.type.type_size)) for info in file.tensors.values()
        )


@pytest.mark.parametrize("threads", [1, 3])
def test_where_the_bad_blocks_are(model: Path, threads: int) -> None:
    nan, infinity = b"\xff\x7f", b"\x00\x7c"
    damage(model, "token_embd.weight", 144 * (5 * 1 + 0), nan)  # row 5, d
    damage(model, "token_embd.weight", 144 * 7, nan)  # not the first
    damage(model, "blk.3.ffn_gate.weight", 144 * 2 + 2, infinity)  # dmin
    damage(model, "output_norm.weight", 4 * 17, b"\x00\x00\x80\xff")
    found = kquant.verify(model, threads=threads)
    assert not found.ok
    finite = "expected finite numbers, got NaN or infinity for"
    assert [(p.file, p.tensor, p.message) for p in found.problems] == [
        (str(model), name, f"{model}: tensor '{name}': {message}")
        for name, message in [
            ("output_norm.weight", f"F32: {finite} x in row 0, block 17"),
            ("token_embd.weight", f"Q4_K: {finite} d in row 5, block 0"),
            ("blk.3.ffn_gate.weight", f"Q4_K: {finite} dmin in row 2, block 0"),
        ]
    ]


def test_a_bad_block_far_behind_the_first_slab(tmp_path: Path) -> None:
    x = np.ones((3, 1 << 18), np.float16)
    x[2, 12345] = np.nan
    path = write_model(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": raw(x, "F16")})
    (problem,) = kquant.verify(path).problems
    assert problem.message.endswith("for x in row 2, block 12345")


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_byte_orders(tmp_path: Path, byteorder: Any) -> None:
    data, t = packed(heavy_tailed(2, 256), "Q4_K")
    data[1, 0:2] = 0x00, 0x7C
    path = write_model(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": (data, t)}, byteorder=byteorder)
    (problem,) = kquant.verify(path).problems
    assert problem.message.endswith("for d in row 1, block 0")


@pytest.mark.parametrize("size", [0, 3, 100, 40_000, -1])
def test_cut_off_files(model: Path, size: int) -> None:
    content = model.read_bytes()
    model.write_bytes(content[:size])
    found = kquant.verify(model)
    assert not found.ok
    (problem,) = found.problems
    assert problem.tensor is None
    assert problem.message.startswith(f"{model}: ")
    assert found.to_dict()["problems"] == [
        {"file": str(model), "tensor": None, "message": problem.message},
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kquant.verify(tmp_path / "no.gguf")


def test_bytes_behind_the_end(model: Path) -> None:
    with model.open("ab") as file:
        file.write(bytes(100))
    found = kquant.verify(model)
    assert found.ok
    assert found.notes == (f"{model}: 100 bytes behind the last tensor belong to nothing",)


@pytest.mark.parametrize("path", [MIXED, FIRST_SHARD, GOLDEN / "models/llama-odd-f16.gguf"], ids=name_of)
def test_hashes_are_those_of_hashlib(path: Path) -> None:
    manifest = kquant.verify(path, hashes=True, threads=2).manifest
    assert manifest
    with read(path) as file:
        for record, source in zip(manifest.files, file.paths, strict=True):
            content = source.read_bytes()
            assert (record.name, record.bytes) == (source.name, len(content))
            assert record.sha256 == hashlib.sha256(content).hexdigest()
        assert [record.name for record in manifest.tensors] == list(file.tensors)
        for tensor in manifest.tensors:
            info = file.tensors[tensor.name]
            assert (tensor.type, tensor.shape, tensor.bytes) == (info.type.name, info.shape, info.nbytes)
            assert tensor.sha256 == hashlib.sha256(file.data(info).tobytes()).hexdigest()


def test_a_manifest_goes_through_a_file(model: Path, tmp_path: Path) -> None:
    made = kquant.verify(model, hashes=True).manifest
    assert made
    made.write(tmp_path / "manifest.json")
    assert Manifest.read(tmp_path / "manifest.json") == made
    found = kquant.verify(model, manifest=tmp_path / "manifest.json")
    assert found.ok
    assert found.manifest == made
    renamed = model.rename(tmp_path / "renamed.gguf")
    assert kquant.verify(renamed, manifest=made).ok


def test_one_changed_byte(model: Path) -> None:
    wanted = kquant.verify(model, hashes=True).manifest
    assert wanted
    damage(model, "blk.2.attn_q.weight", 100, b"!")
    found = kquant.verify(model, manifest=wanted)
    assert [problem.tensor for problem in found.problems] == [None, "blk.2.attn_q.weight"]
    old = {record.name: record.sha256 for record in wanted.tensors}
    assert found.problems[1].message.startswith(
        f"{model}: tensor 'blk.2.attn_q.weight': expected SHA-256 {old['blk.2.attn_q.weight']} "
        "as in the manifest, got "
    )


def test_a_change_between_the_tensors_is_the_file_s(model: Path) -> None:
    wanted = kquant.verify(model, hashes=True).manifest
    content = model.read_bytes()
    model.write_bytes(content.replace(b"llama-slim", b"llama-slam", 1))
    (problem,) = kquant.verify(model, manifest=wanted).problems
    assert problem.tensor is None
    assert "expected SHA-256" in problem.message


def test_what_a_manifest_can_find() -> None:
    made = kquant.verify(MIXED, hashes=True).manifest
    assert made
    a, b, c, d, *rest = made.tensors
    changed = Manifest(
        (replace(made.files[0], bytes=7), *made.files),
        (
            replace(a, type="Q8_0"),
            replace(b, shape=(1, *b.shape)),
            replace(c, bytes=3),
            replace(d, name="extra.weight"),
            *rest,
        ),
    )
    messages = [problem.message for problem in kquant.verify(MIXED, manifest=changed).problems]
    assert messages == [
        f"{MIXED}: expected 2 files as in the manifest, got 1",
        f"{MIXED}: expected size 7 as in the manifest, got {MIXED.stat().st_size}",
        f"{MIXED}: tensor {a.name!r}: expected type Q8_0 as in the manifest, got {a.type}",
        f"{MIXED}: tensor {b.name!r}: expected shape {(1, *b.shape)} as in the manifest, got {b.shape}",
        f"{MIXED}: tensor {c.name!r}: expected size 3 as in the manifest, got {c.bytes}",
        f"{MIXED}: tensor 'extra.weight': expected as in the manifest, got no such tensor",
        f"{MIXED}: tensor {d.name!r}: expected none of this name in the manifest",
    ]


FILE = {"name": "m.gguf", "bytes": 3, "sha256": "00"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "expected a manifest in JSON, got something else: "),
        (b"{", "expected a manifest in JSON, got something else: "),
        (b"[" * 100_000, "expected a manifest in JSON, got something else: "),
        (b"[]", 'expected a manifest with "kquant_manifest": 1'),
        (b'{"kquant_manifest": 2}', 'expected a manifest with "kquant_manifest": 1'),
        ({}, "expected a list under 'files', got NoneType"),
        ({"files": [FILE], "tensors": 3}, "expected a list under 'tensors', got int"),
        ({"files": [3], "tensors": []}, r"files\[0\]: expected name, bytes, sha256, got 3"),
        ({"files": [FILE, {}], "tensors": []}, r"files\[1\]: expected name, bytes, sha256, got {}"),
        (
            {"files": [FILE | {"bytes": "3"}], "tensors": []},
            r"files\[0\]: expected name, bytes, sha256, got ",
        ),
        ({"files": [], "tensors": [FILE]}, r"tensors\[0\]: expected name, type, shape, bytes, sha256"),
    ],
)
def test_files_that_are_no_manifest(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "manifest.json"
    if isinstance(content, dict):
        content = json.dumps({"kquant_manifest": 1} | content).encode()
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        kquant.verify(MIXED, manifest=path)


def test_a_manifest_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        Manifest((), ()).write(tmp_path / "no" / "manifest.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("hashes", "total"), [(False, 295872), (True, MIXED.stat().st_size)])
def test_progress_ends_at_the_total(hashes: bool, total: int) -> None:
    calls: list[tuple[int, int]] = []
    kquant.verify(MIXED, hashes=hashes, progress=lambda *call: calls.append(call))
    assert calls[0] == (0, total)
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


def test_threads_must_be_some() -> None:
    with pytest.raises(OptionError, match="threads: expected at least 1, got 0"):
        kquant.verify(MIXED, threads=0)


def test_a_file_that_shrinks_meanwhile(model: Path) -> None:
    with read(model) as file:
        info = file.tensors["output.weight"]
        slab = Slab(model, "little", info, 0, info.n_elements)
        model.write_bytes(model.read_bytes()[: info.offset + 10])
        with pytest.raises(GGUFTruncatedError, match="got 10: the file has shrunk since its header"):
            slab.read()


def test_results_come_in_order_and_jobs_are_made_when_they_are_needed() -> None:
    made: list[int] = []

    def jobs() -> Any:
        for i in range(1000):
            made.append(i)
            yield i

    results = in_order(lambda i: i * i, jobs(), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(made) < 20
    results.close()
    assert len(made) < 20


def test_errors_of_workers_arrive() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda i: 1 // i, [1, 0, 2], threads=2))
