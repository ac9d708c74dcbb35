"""The tables of types against gguf-py's, which follow llama.cpp's headers."""

from __future__ import annotations

import gguf
import pytest

from kquant.types import FileType, TensorType, file_type_name


@pytest.mark.parametrize("theirs", gguf.LlamaFileType, ids=lambda t: t.name)
def test_file_types_have_the_names_of_llama_h(theirs: gguf.LlamaFileType) -> None:
    if theirs is not gguf.LlamaFileType.GUESSED:
        name = theirs.name.removeprefix("MOSTLY_").removeprefix("ALL_")
        assert file_type_name(theirs.value) == name
        assert file_type_name(theirs.value | gguf.LlamaFileType.GUESSED) == f"{name} (guessed)"


@pytest.mark.parametrize("theirs", gguf.GGMLQuantizationType, ids=lambda t: t.name)
def test_tensor_types_have_the_names_and_sizes_of_ggml_h(theirs: gguf.GGMLQuantizationType) -> None:
    ours = TensorType.of(theirs.value)
    assert ours.full_name == ours.name == theirs.name
    if ours is not TensorType.Q8_1:  # gguf-py has d and s of Q8_1 in float32; ggml has them in float16
        assert (ours.block_size, ours.type_size) == gguf.GGML_QUANT_SIZES[theirs]


def test_every_file_type_that_kquant_makes_is_named() -> None:
    assert [file_type_name(t.id) for t in FileType if t is not FileType.COPY] == [
        t.name for t in FileType if t is not FileType.COPY
    ]


def test_removed_tensor_types_have_a_name() -> None:
    removed = [t.full_name for t in TensorType if t.removed]
    assert removed[:3] == ["Q4_2 (id 4)", "Q4_3 (id 5)", "Q4_0_4_4 (id 31)"]
    assert len(removed) == 8
