"""The values of llama-quantize's options, and what is refused."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path
from typing import Any

import pytest

import kquant
from kquant.errors import OptionError, UnknownTypeError, UnsupportedTypeError
from kquant.planning.options import (
    Override,
    PlanOptions,
    compile_patterns,
    file_type_of,
    in_any_case,
    parse_override,
    parse_prune_layers,
    parse_tensor_type,
    read_tensor_types,
    target_type,
)
from kquant.types import FileType, TensorType
from support.runs import GOLDEN

SLIM = GOLDEN / "gguf" / "models" / "llama-slim-f16.gguf"


def test_plan_takes_the_options_of_its_type() -> None:
    parameters = inspect.signature(kquant.plan).parameters.values()
    assert {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} == set(PlanOptions.__annotations__)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a.b=int:7", "a.b", 7),
        ("a=int:-7", "a", 7),  # stored without sign, as upstream
        ("a=int:+7", "a", 7),
        ("a=int:4294967295", "a", 4294967295),
        ("a=float:0.5", "a", 0.5),
        ("a=float:-1e3", "a", -1000.0),
        ("a=bool:true", "a", True),
        ("a=bool:false", "a", False),
        ("a=str:", "a", ""),
        ("a=str:x=y:z", "a", "x=y:z"),
        ("a=str:" + 127 * "x", "a", 127 * "x"),
        (127 * "k" + "=int:1", 127 * "k", 1),
    ],
)
def test_override(text: str, key: str, value: Any) -> None:
    got = parse_override(text)
    assert got == Override(key, value)
    assert type(got.value) is type(value)


def test_override_with_what_c_takes_for_a_number() -> None:
    assert parse_override("a=float:inf").value == math.inf
    assert math.isnan(float(parse_override("a=float:nan").value))


FORMS = "expected key=int:, key=float:, key=bool: or key=str:, got"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"{FORMS} ''"),
        ("key", f"{FORMS} 'key'"),
        ("key=7", f"{FORMS} 'key=7'"),
        ("key=INT:7", f"{FORMS} 'key=INT:7'"),
        ("key=long:7", f"{FORMS} 'key=long:7'"),
        ("=int:7", f"{FORMS} '=int:7'"),
        (128 * "k" + "=int:1", "expected a key of at most 127 bytes, got 'kkk"),
        (64 * "é" + "=int:1", "expected a key of at most 127 bytes, got 'ééé"),
        ("key=int:", "key: expected an integer of at most 32 bits, got ''"),
        ("key=int:7x", "key: expected an integer of at most 32 bits, got '7x'"),
        ("key=int:1_000", "key: expected an integer of at most 32 bits, got '1_000'"),
        ("key=int:4294967296", "key: expected an integer of at most 32 bits, got '4294967296'"),
        ("key=float:", "key: expected a number, got ''"),
        ("key=float:half", "key: expected a number, got 'half'"),
        ("key=float:1_000", "key: expected a number, got '1_000'"),
        ("key=bool:yes", "key: expected true or false, got 'yes'"),
        ("key=bool:True", "key: expected true or false, got 'True'"),
        ("key=str:" + 128 * "x", "key: expected at most 127 bytes, got 'xxx"),
        ("key=str:" + 64 * "é", "key: expected at most 127 bytes, got 'ééé"),
    ],
)
def test_override_that_is_none(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=f"^override_kv: {re.escape(message)}"):
        parse_override(text)


@pytest.mark.parametrize(
    ("text", "pattern", "type_name"),
    [
        ("attn_v=q8_0", "attn_v", "Q8_0"),
        ("ATTN_K=Q5_0", "ATTN_K", "Q5_0"),
        (r"blk\.[0-3]\.ffn_down=q5_K", r"blk\.[0-3]\.ffn_down", "Q5_K"),
        ("É=f16", "É", "F16"),
    ],
)
def test_tensor_type(text: str, pattern: str, type_name: str) -> None:
    assert parse_tensor_type(text) == (pattern, TensorType[type_name])


@pytest.mark.parametrize("text", ["", "attn_v", "=q8_0", "attn_v="])
def test_tensor_type_that_is_none(text: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"tensor_types: expected pattern=type, got {text!r}")):
        parse_tensor_type(text)


@pytest.mark.parametrize("text", ["attn_v=q9", "a=b=q8_0"])
def test_tensor_type_of_no_type(text: str) -> None:
    with pytest.raises(UnknownTypeError, match=r"^unknown tensor type"):
        parse_tensor_type(text)


def test_file_of_tensor_types(tmp_path: Path) -> None:
    assert read_tensor_types(GOLDEN / "gguf" / "tensor_types.txt") == [
        ("attn_q", TensorType.Q5_K),
        ("attn_k", TensorType.Q5_K),
        ("ffn_down", TensorType.IQ4_NL),
        ("token_embd", TensorType.Q4_1),
    ]
    path = tmp_path / "types.txt"
    path.write_text("attn_q=q5_k attn_v")
    with pytest.raises(OptionError, match="expected pattern=type, got 'attn_v'"):
        read_tensor_types(path)
    path.write_bytes(b"\xff=q5_k")
    with pytest.raises(OptionError, match=r"types.txt: cannot read tensor types: .*utf-8"):
        read_tensor_types(path)
    with pytest.raises(OptionError, match=r"none.txt: cannot read tensor types: .*No such file"):
        read_tensor_types(tmp_path / "none.txt")


def test_patterns_from_texts_and_pairs() -> None:
    compiled = compile_patterns(["ATTN_V=q8_0", (r"\D+$", "q6_k"), ("x", TensorType.F16)])
    assert [(pattern.pattern, type) for pattern, type in compiled] == [
        ("ATTN_V", TensorType.Q8_0),
        (r"\D+$", TensorType.Q6_K),
        ("x", TensorType.F16),
    ]
    digits = compile_patterns([(r"\d", "f16")])[0][0]
    assert digits.search("7")
    assert not digits.search("\u0663")  # an Arabic three


def test_patterns_match_as_written_and_failing_that_in_any_case() -> None:
    names = ["blk.0.attn_v.weight", "txt.adaLN.weight", "TXT.ADALN.weight"]
    patterns = in_any_case(compile_patterns(["ATTN_V=q8_0", "adaLN=q8_0", "adaln=q8_0", "none=q8_0"]), names)
    assert [pattern.pattern for pattern, _ in patterns] == ["ATTN_V", "adaLN", "adaln", "none"]
    found = [[name for name in names if pattern.search(name)] for pattern, _ in patterns]
    assert found == [names[:1], names[1:2], names[1:], []]


@pytest.mark.parametrize("item", [7, ("a",), ("a", "q8_0", "x"), (7, "q8_0")])
def test_what_is_no_pattern(item: Any) -> None:
    with pytest.raises(OptionError, match=r"^tensor_types: expected .*, got "):
        compile_patterns([item])


ONE = {
    "include_weights": "ffn",
    "exclude_weights": "ffn",
    "tensor_types": "attn_v=q8_0",
    "override_kv": "general.name=str:x",
    "prune_layers": "1,3",
}


@pytest.mark.parametrize(("option", "value"), ONE.items())
def test_a_single_string_is_a_list_of_one(option: str, value: str) -> None:
    imatrix = GOLDEN / "gguf" / "imatrix" / "llama-slim.gguf"
    many: Any = [1, 3] if option == "prune_layers" else [value]
    ways: list[dict[str, Any]] = [{option: value}, {option: many}]
    one, listed = (kquant.plan(SLIM, "Q4_K_M", imatrix=imatrix, **options) for options in ways)
    assert one.to_dict() == listed.to_dict()
    assert one.to_dict() != kquant.plan(SLIM, "Q4_K_M", imatrix=imatrix).to_dict() or option == "override_kv"
    assert one.outputs[0].metadata == listed.outputs[0].metadata


@pytest.mark.parametrize("option", ONE)
@pytest.mark.parametrize("value", [None, b"1", [None], [1.5], [b"x"], 2.5, ["x", 1.5]])
def test_what_is_no_value_of_an_option(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"^{option}: expected .*, got "):
        kquant.plan(SLIM, "Q4_K_M", **{option: value})


def test_one_type_and_one_file_type_of_a_sweep() -> None:
    one = kquant.sweep(SLIM, types="Q4_K", file_types="Q8_0", rows=1)
    assert one.types == (TensorType.Q4_K,)
    assert [mixture.file_type for mixture in one.mixtures] == [FileType.Q8_0]
    assert kquant.sweep(SLIM, types=TensorType.Q4_K, file_types=FileType.Q8_0, rows=1).types == one.types


@pytest.mark.parametrize("pattern", ["(", "*", "[a", "a{2,1}", "a{99999999999}", "(" * 5000])
def test_pattern_that_is_no_regular_expression(pattern: str) -> None:
    with pytest.raises(OptionError, match=r"^tensor_types: expected a regular expression, got '"):
        compile_patterns([(pattern, "f16")])


@pytest.mark.parametrize("pattern", ["[[:digit:]]", "x[[.a.]]", "[[=a=]]"])
def test_pattern_with_a_posix_class(pattern: str) -> None:
    with pytest.raises(
        OptionError, match=r"^tensor_types: expected a range such as \[0-9\], got a POSIX class in"
    ):
        compile_patterns([(pattern, "f16")])


def test_layers_to_prune() -> None:
    assert parse_prune_layers("7,0, 0") == (0, 7)
    for text in ("", "1,", "1,-2", "one", "1;2", "1.5", "9" * 5000):
        with pytest.raises(OptionError, match=re.escape(f"separated by commas, got {text!r}")):
            parse_prune_layers(text)


@pytest.mark.parametrize("value", ["Q4_K_M", "q4_k_m", "q4_k", "15", 15, FileType.Q4_K_M])
def test_file_type(value: str | int | FileType) -> None:
    assert file_type_of(value) is FileType.Q4_K_M


def test_file_types_by_number() -> None:
    for file_type in FileType:
        if file_type is not FileType.COPY:
            assert file_type_of(str(file_type.id)) is file_type
    assert file_type_of("0") is FileType.F32
    assert file_type_of("copy") is FileType.COPY


@pytest.mark.parametrize("value", ["Q9_Z", "", "-1", -1, "99", "9" * 5000, "MOSTLY_IQ2_XXS"])
def test_file_type_that_is_none(value: str | int) -> None:
    with pytest.raises(
        UnknownTypeError, match=re.escape(f"unknown file type {str(value)!r}; known: F32, F16,")
    ):
        file_type_of(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("IQ2_XXS", "kquant cannot make IQ2_XXS files yet; it makes F32, F16, "),
        ("iq4_xs", "kquant cannot make IQ4_XS files yet"),
        ("39", "kquant cannot make NVFP4 files yet"),
        (4, "llama.cpp has removed the file type Q4_1_SOME_F16"),
        ("q4_0_4_4", "llama.cpp has removed the file type Q4_0_4_4"),
    ],
)
def test_file_type_that_kquant_cannot_make(value: str | int, message: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=f"^{re.escape(message)}"):
        file_type_of(value)


def test_target_type() -> None:
    assert target_type("q4_K") is TensorType.Q4_K
    assert target_type(TensorType.IQ4_XS) is TensorType.IQ4_XS
    with pytest.raises(UnknownTypeError, match="unknown tensor type 'q9'"):
        target_type("q9")
    with pytest.raises(
        OptionError, match="expected a tensor type that can be stored, got Q4_2 \\(id 4\\), which ggml has"
    ):
        target_type("removed_4")
