"""The metadata of the result, key by key."""

from __future__ import annotations

import pytest

from kquant.errors import GGUFError
from kquant.gguf import GGUFValueType, Metadata
from kquant.imatrix.reading import Imatrix
from kquant.planning.options import Override
from kquant.planning.outputs import copied_file_type, first_metadata, split_metadata
from kquant.types import TensorType
from support.runs import describe


def source() -> Metadata:
    metadata = Metadata()
    metadata.set("general.file_type", 1, GGUFValueType.UINT32)
    metadata.set("split.count", 3, GGUFValueType.UINT16)
    metadata.set("general.name", b"odd \xff name", GGUFValueType.STRING)
    metadata.set("split.no", 0, GGUFValueType.UINT16)
    metadata.set("split.tensors.count", 9, GGUFValueType.INT32)
    metadata.set("empty", [], GGUFValueType.ARRAY, element_type=GGUFValueType.UINT8)
    metadata.set("general.quantization_version", 1, GGUFValueType.UINT32)
    return metadata


KEPT = [["general.name", "STRING", "odd \udcff name"]]


def without_empty(metadata: Metadata) -> list[list[object]]:
    return [pair for pair in describe(metadata) if pair[0] != "empty"]


def test_what_is_set_moves_to_the_end_and_split_goes() -> None:
    before = source()
    got = first_metadata(before, 15, [], None)
    assert list(got)[:2] == ["general.name", "empty"]
    assert without_empty(got) == [
        *KEPT,
        ["general.quantization_version", "UINT32", 2],
        ["general.file_type", "UINT32", 15],
    ]
    assert before == source()


def test_overrides_come_in_their_order_the_last_of_equals_counts() -> None:
    overrides = [
        Override("general.name", "new"),
        Override("a.float", 0.1),
        Override("a.bool", True),
        Override("a.int", 7),
        Override("general.name", "newer"),
        Override("general.file_type", 99),
    ]
    assert without_empty(first_metadata(source(), 15, overrides, None)) == [
        ["general.quantization_version", "UINT32", 2],
        ["a.float", "FLOAT32", 0.10000000149011612],
        ["a.bool", "BOOL", True],
        ["a.int", "UINT32", 7],
        ["general.name", "STRING", "newer"],
        ["general.file_type", "UINT32", 99],
    ]


def test_an_alignment_that_cannot_be_is_an_error() -> None:
    for value in (3, 0, 32.0, "32"):
        with pytest.raises(GGUFError, match=r"general\.alignment"):
            first_metadata(source(), 15, [Override("general.alignment", value)], None)


def test_the_importance_matrix_is_noted() -> None:
    weights = {"a": [1.0], "b": [2.0]}
    imatrix = Imatrix(weights, path="some/file.gguf", datasets=["one", "two"], chunk_count=3)
    assert without_empty(first_metadata(source(), 15, [Override("x", 1)], imatrix))[3:] == [
        ["x", "UINT32", 1],
        ["quantize.imatrix.file", "STRING", "some/file.gguf"],
        ["quantize.imatrix.dataset", "STRING", "one"],
        ["quantize.imatrix.entries_count", "UINT32", 2],
        ["quantize.imatrix.chunks_count", "UINT32", 3],
    ]
    assert without_empty(first_metadata(source(), 15, [], Imatrix(weights)))[3:] == [
        ["quantize.imatrix.entries_count", "UINT32", 2]
    ]


def test_texts_are_cut_after_127_bytes_be_it_within_a_letter() -> None:
    imatrix = Imatrix({"a": [1.0]}, path=64 * "é", datasets=[200 * "x"])
    got = first_metadata(source(), 15, [], imatrix)
    assert got.raw_str("quantize.imatrix.file") == (64 * "é").encode()[:127]
    assert got.raw_str("quantize.imatrix.dataset") == 127 * b"x"


def test_one_file_has_no_split_keys() -> None:
    metadata = Metadata()
    assert split_metadata(metadata, 1, 9) == [metadata]
    assert list(metadata) == []


def test_each_of_several_files_says_which_it_is() -> None:
    first = Metadata()
    first.set("x", 1, GGUFValueType.UINT8)
    got = [describe(metadata) for metadata in split_metadata(first, 2, 9)]
    assert got == [
        [
            ["x", "UINT8", 1],
            ["split.no", "UINT16", 0],
            ["split.count", "UINT16", 2],
            ["split.tensors.count", "INT32", 9],
        ],
        [["split.no", "UINT16", 1], ["split.count", "UINT16", 2], ["split.tensors.count", "INT32", 9]],
    ]


F16, F32, Q4_K, IQ1_S, I32 = (TensorType[name] for name in ("F16", "F32", "Q4_K", "IQ1_S", "I32"))


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([F16, F32, F16], 1 | 1024),
        ([F32, F16], 0 | 1024),
        ([F16, F32], 1 | 1024),  # the first to get there
        ([F32, F16, F16, F32], 1 | 1024),
        ([F16, F32, F32, F16], 0 | 1024),
        ([Q4_K], 15 | 1024),
        ([IQ1_S], 24 | 1024),
        ([I32], 0 | 1024),
        ([], 0 | 1024),
    ],
)
def test_file_type_of_a_copy_is_guessed_where_it_is_not_stated(
    types: list[TensorType], expected: int
) -> None:
    assert copied_file_type(Metadata(), {}, types) == expected
    assert copied_file_type(Metadata(), {"general.file_type": "text"}, types) == expected
    assert copied_file_type(Metadata(), {"general.file_type": 7}, types) == 7
    assert copied_file_type(source(), {}, types) == 1
    assert copied_file_type(source(), {"general.file_type": 7}, types) == 7


def test_file_type_of_a_copy_must_be_a_number() -> None:
    metadata = Metadata()
    metadata.set("general.file_type", "Q4_0", GGUFValueType.STRING)
    with pytest.raises(GGUFError, match=r"^general\.file_type: expected an integer, got 'Q4_0'$"):
        copied_file_type(metadata, {}, [])
