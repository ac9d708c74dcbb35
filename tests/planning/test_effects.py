"""Options without effect, and plans that convert nothing, say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.cli import main
from kquant.imatrix.reading import Imatrix
from support.runs import GOLDEN
from support.small_models import heavy_tailed, packed, write_model

SLIM = GOLDEN / "gguf/models/llama-slim-f16.gguf"
WEIGHTS = Imatrix({f"blk.{i}.ffn_up.weight": np.ones(256, np.float32) for i in range(8)})
NO_IMATRIX_EFFECT = "imatrix: no effect: no tensor is converted to a type that takes importance weights"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A LoRA adapter, whose tensors are no weights by their names."""
    tensors = {f"blk.0.attn_q.weight.lora_{k}": packed(heavy_tailed(16, 256), "F16") for k in "ab"}
    return write_model(tmp_path / "lora.gguf", tensors)


@pytest.mark.parametrize(
    ("file_type", "note"),
    [
        (
            "Q8_0",
            (
                "no tensor is converted (2 of 2 kept: not a weight), though general.file_type says Q8_0, "
                "as llama-quantize has it"
            ),
        ),
        ("F16", "no tensor is converted (2 of 2 kept: not a weight)"),
        ("COPY", None),
    ],
)
def test_nothing_is_converted(file_type: str, note: str | None, lora: Path) -> None:
    assert kquant.plan(lora, file_type).notes == ((note,) if note else ())


def test_the_command_says_so(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["quantize", str(lora), str(lora.with_name("o.gguf")), "Q8_0", "--include-weights", "attn"]) == 0
    )
    out = capsys.readouterr().out
    assert "\nno tensor is converted (2 of 2 kept: not a weight), though general.file_type says Q8_0" in out
    assert "\n--include-weights: no effect without an importance matrix\n" in out
    assert kquant.inspect(lora.with_name("o.gguf")).file_type == "Q8_0"  # byte for byte as llama-quantize


def test_a_model_that_has_its_type_already() -> None:
    (note,) = kquant.plan(SLIM, "F16").notes
    assert note == "no tensor is converted (58 of 76 of that type already; 18 of 76 kept: one-dimensional)"


def test_a_model_without_tensors(tmp_path: Path) -> None:
    (note,) = kquant.plan(write_model(tmp_path / "m.gguf", {}), "Q8_0").notes
    assert note.startswith("no tensor is converted (there is none), though")


@pytest.mark.parametrize(
    ("file_type", "options", "notes"),
    [
        (
            "Q4_K_M",
            {"include_weights": ["attn"]},
            ("include_weights: no effect without an importance matrix",),
        ),
        (
            "Q4_K_M",
            {"exclude_weights": ["attn"]},
            ("exclude_weights: no effect without an importance matrix",),
        ),
        (
            "Q4_K_M",
            {"imatrix": WEIGHTS, "exclude_weights": ["ffn_upp", "ffn_up"]},
            (
                "exclude_weights: 'ffn_upp' is in the name of no tensor",
                "imatrix: no importance weights are left by include_weights or exclude_weights",
            ),
        ),
        (
            "Q4_K_M",
            {"imatrix": WEIGHTS, "include_weights": ["atn"]},
            (
                "include_weights: 'atn' is in the name of no tensor",
                "imatrix: no importance weights are left by include_weights or exclude_weights",
            ),
        ),
        ("BF16", {"imatrix": WEIGHTS}, (NO_IMATRIX_EFFECT,)),
        ("COPY", {"imatrix": WEIGHTS}, (NO_IMATRIX_EFFECT,)),
        ("BF16", {"pure": True}, ("pure: no effect on BF16",)),
        ("COPY", {"pure": True, "leave_output_tensor": True}, ("pure", "leave_output_tensor")),
        (
            "COPY",
            {"output_tensor_type": "q8_0", "token_embedding_type": "q8_0"},
            ("output_", "token_embedding_"),
        ),
        ("Q4_K_M", {"pure": True, "leave_output_tensor": True, "token_embedding_type": "q8_0"}, ()),
        ("BF16", {"output_tensor_type": "q8_0", "token_embedding_type": "q8_0"}, ()),
    ],
)
def test_options_without_effect(file_type: str, options: dict[str, Any], notes: tuple[str, ...]) -> None:
    found = kquant.plan(SLIM, file_type, **options).notes
    assert len(found) == len(notes)
    for got, expected in zip(found, notes, strict=True):
        assert got.startswith(expected)
        assert ": no effect" in got or "no tensor" in got or "are left" in got


def test_tensors_that_the_model_has_not(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": packed(heavy_tailed(4, 256), "F16")})
    options: dict[str, Any] = {
        "leave_output_tensor": True,
        "output_tensor_type": "q8_0",
        "token_embedding_type": "q8_0",
    }
    assert kquant.plan(path, "Q4_K_M", **options).notes == (
        "leave_output_tensor: no effect: the model has no output.weight",
        "output_tensor_type: no effect: the model has no output.weight",
        "token_embedding_type: no effect: the model has no token embeddings",
    )


@pytest.mark.parametrize(("pure", "has_effect"), [(False, True), (True, False)])
def test_token_embeddings_stand_in_for_the_output_tensor(
    tmp_path: Path, pure: bool, has_effect: bool
) -> None:
    path = write_model(tmp_path / "m.gguf", {"token_embd.weight": packed(heavy_tailed(4, 256), "F16")})
    made = kquant.plan(path, "Q4_K_M", output_tensor_type="q5_1", pure=pure)
    assert (made.rows[0].new_type is kquant.TensorType.Q5_1) is has_effect
    assert (made.notes == ()) is has_effect
