"""Whole models: their decisions as readable text, the types that llama.cpp chooses, published sizes."""

from __future__ import annotations

import pytest

from kquant.types import TensorType
from support.models import (
    FALCON_7B,
    LLAMA_2_7B,
    LLAMA_2_70B,
    LLAMA_3_8B,
    MIXTRAL_8X7B,
    SNAPSHOTS,
    UPSTREAM,
    Model,
)
from support.runs import GOLDEN
from support.snapshots import FOLDER, render, render_types


@pytest.mark.parametrize("model", SNAPSHOTS, ids=lambda model: model.name)
def test_decisions_are_those_of_the_snapshot(model: Model) -> None:
    assert render(model) == (FOLDER / f"{model.name}.txt").read_text()


@pytest.mark.parametrize("model", UPSTREAM, ids=lambda model: model.name)
def test_types_are_those_that_llama_cpp_chooses(model: Model) -> None:
    assert render_types(model) == (GOLDEN / "policy" / f"{model.name}.txt").read_text()


@pytest.mark.parametrize(
    ("model", "n_tensors"),
    [(LLAMA_2_7B, 291), (LLAMA_3_8B, 291), (LLAMA_2_70B, 723), (FALCON_7B, 196), (MIXTRAL_8X7B, 323)],
    ids=lambda value: getattr(value, "name", value),
)
def test_lists_are_as_long_as_those_of_the_published_files(model: Model, n_tensors: int) -> None:
    assert len(model.tensors) == n_tensors


def test_llama_2_7b_q4_k_m_has_33_tensors_of_q6_k() -> None:
    decided = zip(LLAMA_2_7B.tensors, LLAMA_2_7B.decide("Q4_K_M"), strict=True)
    raised = [tensor.name for tensor, decision in decided if decision.type is TensorType.Q6_K]
    assert len(raised) == 33
    assert sum(name.endswith("attn_v.weight") for name in raised) == 16
    assert sum(name.endswith("ffn_down.weight") for name in raised) == 16
    assert "output.weight" in raised


@pytest.mark.parametrize(
    ("model", "file_type", "gib", "bits"),
    [
        # as llama.cpp prints them when it loads the published files
        (LLAMA_2_7B, "F16", 12.55, 16.00),
        (LLAMA_2_7B, "Q8_0", 6.67, 8.50),
        (LLAMA_2_7B, "Q6_K", 5.15, 6.56),
        (LLAMA_2_7B, "Q5_K_M", 4.45, 5.68),
        (LLAMA_2_7B, "Q5_K_S", 4.33, 5.52),
        (LLAMA_2_7B, "Q4_K_M", 3.80, 4.84),
        (LLAMA_2_7B, "Q4_0", 3.56, 4.54),
        (LLAMA_2_7B, "Q3_K_M", 3.07, 3.91),
        (LLAMA_2_7B, "Q3_K_S", 2.75, 3.50),
        (LLAMA_2_70B, "Q4_K_M", 38.58, 4.80),
        (MIXTRAL_8X7B, "Q4_0", 24.62, 4.53),
        (LLAMA_3_8B, "Q4_K_M", 4.58, 4.89),
        (LLAMA_3_8B, "Q5_K_M", 5.33, 5.70),
        (LLAMA_3_8B, "Q6_K", 6.14, 6.56),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_sizes_are_the_published_ones(model: Model, file_type: str, gib: float, bits: float) -> None:
    n_bytes = model.n_bytes(file_type)
    assert f"{n_bytes / 2**30:.2f}" == f"{gib:.2f}"
    assert f"{8 * n_bytes / model.n_elements:.2f}" == f"{bits:.2f}"
