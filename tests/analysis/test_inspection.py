"""`kquant.inspect` against gguf-py's reader and against sums made by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import gguf
import pytest

import kquant
from kquant.errors import GGUFTruncatedError
from kquant.gguf import GGUFValueType, Metadata, TensorSpec, Writer, layout, read
from kquant.policy.roles import Role
from support.files import GOLDEN, MODELS, name_of
from support.small_models import heavy_tailed, packed, write_model

MIXED = GOLDEN / "outputs/llama-slim-f16.Q4_K_M.gguf"
FIRST_SHARD = GOLDEN / "split/llama-slim-f16-00001-of-00003.gguf"


@pytest.mark.parametrize("path", [*MODELS, MIXED], ids=name_of)
def test_the_numbers_are_those_of_an_independent_reader(path: Path) -> None:
    reader = gguf.GGUFReader(path)
    found = kquant.inspect(path)
    assert found.total.tensors == len(reader.tensors)
    assert found.total.elements == sum(int(t.n_elements) for t in reader.tensors)
    assert found.total.bytes == sum(int(t.n_bytes) for t in reader.tensors)
    assert found.bits_per_weight == 8 * found.total.bytes / found.total.elements
    types = Counter(t.tensor_type.name for t in reader.tensors)
    assert {t.name: share.tensors for t, share in found.types.items()} == types
    assert [entry.key for entry in found.metadata] == [k for k in reader.fields if not k.startswith("GGUF.")]
    assert sum(found.file_bytes) == path.stat().st_size


@pytest.mark.parametrize("groups", ["types", "layers", "roles"])
def test_groups_add_up(groups: str) -> None:
    found = kquant.inspect(MIXED)
    shares = getattr(found, groups).values()
    assert sum(share.tensors for share in shares) == found.total.tensors == 76
    assert sum(share.elements for share in shares) == found.total.elements
    assert sum(share.bytes for share in shares) == found.total.bytes


def test_groups() -> None:
    found = kquant.inspect(MIXED)
    assert list(found.layers) == [None, *range(8)]
    assert {t.name: n for t, n in found.layers[0].types.items()} == {"Q4_K": 5, "F32": 2, "Q6_K": 2}
    assert [t.name for t in found.types] == ["Q4_K", "Q6_K", "F32"]
    assert found.types[kquant.TensorType.Q6_K].bits_per_element == 6.5625
    assert found.roles[Role.ATTENTION_V].tensors == 8
    assert (found.architecture, found.name, found.file_type) == ("llama", "llama-slim", "Q4_K_M")


def test_shards_are_one_model() -> None:
    whole, split = kquant.inspect(MODELS_SLIM), kquant.inspect(FIRST_SHARD)
    assert len(split.paths) == len(split.file_bytes) == 3
    assert split.total == whole.total
    assert {info.name for info in split.tensors} == {info.name for info in whole.tensors}


MODELS_SLIM = GOLDEN / "models/llama-slim-f16.gguf"


def test_an_open_file_stays_open() -> None:
    with read(MIXED) as model:
        assert kquant.inspect(model) == kquant.inspect(model)
        assert model.data(model.tensors["output.weight"]).size


def test_no_data_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "huge.gguf"
    specs = [TensorSpec("output.weight", (1 << 20, 1 << 16), kquant.TensorType["Q8_0"])]
    placed = layout(Metadata(), specs)
    path.write_bytes(placed.header)
    with path.open("r+b") as file:
        file.truncate(placed.file_bytes)  # a hole of 73 GB
    found = kquant.inspect(path)
    assert found.bits_per_weight == 8.5
    assert found.total.bytes == 73014444032


def metadata_file(path: Path, **values: tuple[object, GGUFValueType]) -> Path:
    metadata = Metadata()
    for key, (value, value_type) in values.items():
        if isinstance(value, list):
            metadata.set(key, value, GGUFValueType.ARRAY, element_type=value_type)
        else:
            metadata.set(key, value, value_type)
    with Writer(path, layout(metadata, [])) as writer:
        writer.commit()
    return path


def test_arrays_are_whole(tmp_path: Path) -> None:
    path = metadata_file(
        tmp_path / "m.gguf",
        numbers=(list(range(1000)), GGUFValueType.INT32),
        words=(["a"] * 9, GGUFValueType.STRING),
        none=([], GGUFValueType.FLOAT32),
        one=(3, GGUFValueType.UINT8),
    )
    numbers, words, none, one = kquant.inspect(path).metadata
    assert (numbers.type, numbers.count, numbers.value) == ("INT32", 1000, list(range(1000)))
    assert (words.type, words.count, words.value) == ("STRING", 9, ["a"] * 9)
    assert (none.count, none.value) == (0, [])
    assert numbers.text() == "[0, 1, 2, 3, 4, 5, 6, 7, …]"
    assert words.text() == f"[{', '.join(8 * [repr('a')])}, …]"
    report = json.loads(json.dumps(kquant.inspect(path).to_dict()))["metadata"]
    assert report["numbers"] == {"type": "INT32", "count": 1000, "value": list(range(1000))}
    assert report["words"]["value"] == ["a"] * 9
    assert (one.type, one.count, one.value) == ("UINT8", None, 3)


def test_a_model_without_anything(tmp_path: Path) -> None:
    found = kquant.inspect(metadata_file(tmp_path / "m.gguf"))
    assert found.bits_per_weight == 0
    assert (found.architecture, found.name, found.file_type) == (None, None, None)
    assert not any((found.types, found.layers, found.roles))


@pytest.mark.parametrize(
    ("value", "value_type", "want"),
    [
        (15, GGUFValueType.UINT32, "Q4_K_M"),
        (24, GGUFValueType.UINT32, "IQ1_S"),
        (30, GGUFValueType.UINT32, "IQ4_XS"),
        (38, GGUFValueType.UINT32, "MXFP4_MOE"),
        (33, GGUFValueType.UINT32, "Q4_0_4_4"),
        (1024 + 15, GGUFValueType.UINT32, "Q4_K_M (guessed)"),
        (99, GGUFValueType.UINT32, "unknown (99)"),
        (2048 + 15, GGUFValueType.UINT32, "unknown (2063)"),
        ("Q9", GGUFValueType.STRING, "Q9"),
    ],
)
def test_file_types_are_named(tmp_path: Path, value: object, value_type: GGUFValueType, want: str) -> None:
    path = metadata_file(tmp_path / "m.gguf", **{"general.file_type": (value, value_type)})
    assert kquant.inspect(path).file_type == want


def test_metadata_of_an_unexpected_kind_is_no_name(tmp_path: Path) -> None:
    found = kquant.inspect(metadata_file(tmp_path / "m.gguf", **{"general.name": (3, GGUFValueType.UINT8)}))
    assert found.name is None
    assert found.metadata[0].value == 3


def test_the_report_is_json() -> None:
    report = json.loads(json.dumps(kquant.inspect(MIXED).to_dict()))
    assert report["by_layer"][1]["layer"] == 0
    assert report["by_type"]["Q4_K"]["bits_per_element"] == 4.5
    tokens = report["metadata"]["tokenizer.ggml.tokens"]
    assert len(tokens["value"]) == tokens["count"] == 288
    assert report["tensor_list"][0].keys() == {
        "name", "shape", "type", "bytes", "file", "offset", "layer", "role",
    }  # fmt: skip


def test_big_endian(tmp_path: Path) -> None:
    path = write_model(
        tmp_path / "b.gguf", {"blk.0.ffn_up.weight": packed(heavy_tailed(2, 256), "Q4_K")}, byteorder="big"
    )
    found = kquant.inspect(path)
    assert (found.byteorder, found.bits_per_weight) == ("big", 4.5)


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """The first 20 KB of a file: its header and some of its tensors."""
    path = tmp_path / "download.gguf"
    path.write_bytes(MIXED.read_bytes()[:20_000])
    return path


def test_a_download_under_way_is_shown(download: Path) -> None:
    whole, found = kquant.inspect(MIXED), kquant.inspect(download)
    assert whole.shortfall is None
    assert found.total == whole.total
    assert found.shortfall
    last = max(whole.tensors, key=lambda info: info.offset)
    assert found.shortfall.bytes == last.offset + last.nbytes - 20_000
    assert found.shortfall.n_tensors == 76
    assert found.shortfall.tensors == tuple(
        info.name for info in whole.tensors if info.offset + info.nbytes > 20_000
    )
    report = found.to_dict()
    assert report["missing_bytes"] == found.shortfall.bytes
    assert report["incomplete_tensors"] == list(found.shortfall.tensors)
    assert whole.to_dict()["missing_bytes"] == 0


def test_a_plan_needs_no_data_and_says_what_is_missing(download: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"allow_requantize": True}
    whole = kquant.plan(MIXED, "Q8_0", **options)
    made = kquant.plan(download, "Q8_0", **options)
    assert (made.rows, made.problems) == (whole.rows, whole.problems)
    missing = kquant.inspect(download).shortfall
    assert made.notes == (f"{download}: {missing}", *whole.notes)
    for work in (
        lambda: kquant.requantize(download, tmp_path / "o.gguf", "Q8_0", **options),
        lambda: kquant.requantize(read(download, header_only=True), tmp_path / "o.gguf", "Q8_0", **options),
        lambda: kquant.compare(MIXED, download),
        lambda: kquant.sweep(download),
        lambda: kquant.report(download),
        lambda: kquant.open(download),
    ):
        with pytest.raises(
            GGUFTruncatedError, match=r"got the end of the file at byte 20000; .* are missing"
        ):
            work()
    assert not (tmp_path / "o.gguf").exists()
    (problem,) = kquant.verify(download).problems
    assert problem.message.endswith(str(missing))


def test_a_header_that_is_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(MIXED.read_bytes()[:2000])
    with pytest.raises(GGUFTruncatedError, match="got the end of the file after"):
        kquant.inspect(path)


def test_shards_of_which_one_is_under_way(tmp_path: Path) -> None:
    for shard in FIRST_SHARD.parent.glob("llama-slim-f16-0000?-of-00003.gguf"):
        data = shard.read_bytes()
        (tmp_path / shard.name).write_bytes(data[:-1000] if "00002" in shard.name else data)
    found = kquant.inspect(tmp_path / FIRST_SHARD.name)
    assert found.shortfall
    assert 0 < found.shortfall.bytes <= 1000
