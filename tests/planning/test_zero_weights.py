"""Tensors and experts that become zeros because all their importance weights are: the plan says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.formats import format_of, has_format
from kquant.imatrix.reading import Imatrix
from kquant.planning.plan_types import Zeroed
from kquant.planning.zero_weights import ERASED, zeroed_by
from kquant.types import TensorType
from support.small_models import heavy_tailed, packed, write_model

EXPERTS, PLAIN = "blk.0.ffn_down_exps.weight", "blk.0.attn_v.weight"
WEIGHTED = [t for t in TensorType if has_format(t) and format_of(t).weighted is not None]


@pytest.mark.parametrize("tensor_type", WEIGHTED)
def test_which_columns_a_search_erases(tensor_type: TensorType) -> None:
    """`ERASED` against the search itself: a run of so many weights of zero, and one that is shorter."""
    n = tensor_type.block_size
    size = ERASED.get(tensor_type, n + 1)
    x = heavy_tailed(8, n) + np.float32(1)
    for run in (size // 2, size):
        weights = np.ones(n, np.float32)
        weights[:run] = 0
        y = kquant.dequantize(kquant.quantize(x, tensor_type, weights), tensor_type)
        assert (not y[:, :run].any()) == (run == ERASED.get(tensor_type)), run


def test_counts() -> None:
    weights = np.ones((3, 512), np.float32)
    assert zeroed_by(weights, TensorType.Q4_K) == ()
    weights[1], weights[2, 100:400] = 0, 0
    assert zeroed_by(weights, TensorType.Q4_K) == (Zeroed(1, 512),)
    assert zeroed_by(weights, TensorType.Q6_K) == (Zeroed(1, 512), Zeroed(2, 288))
    assert zeroed_by(weights, TensorType.Q4_0) == (Zeroed(1, 512), Zeroed(2, 256))
    for t in ("Q8_0", "Q4_1", "F16"):
        assert zeroed_by(weights, TensorType[t]) == ()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tensors = {
        EXPERTS: packed(heavy_tailed(4, 64, 256), "F16"),
        PLAIN: packed(heavy_tailed(64, 512, seed=1), "F16"),
    }
    return write_model(tmp_path / "moe.gguf", tensors)


def weights(zero: list[tuple[int, slice]]) -> dict[str, Any]:
    experts, plain = np.ones((4, 256), np.float32), np.ones(512, np.float32)
    for matrix, columns in zero:
        (plain[None] if matrix < 0 else experts)[max(matrix, 0), columns] = 0
    return {EXPERTS: experts.reshape(-1), PLAIN: plain}


ALL = slice(None)
CASES: list[tuple[list[tuple[int, slice]], list[str]]] = [
    ([], []),
    ([(1, ALL)], [f"imatrix: all weights of {EXPERTS}, expert 1, are zero: it becomes zeros"]),
    (
        [(3, ALL), (0, ALL)],
        [f"imatrix: all weights of {EXPERTS}, experts 0 and 3, are zero: they become zeros"],
    ),
    ([(-1, ALL)], [f"imatrix: all weights of {PLAIN} are zero: it becomes zeros"]),
    (
        [(-1, slice(256, None)), (2, slice(0, 40))],
        [
            f"imatrix: the weights of 256 of 512 columns of {PLAIN} are zero: these columns become zeros",
            (
                f"imatrix: the weights of 32 of 256 columns of {EXPERTS}, expert 2, are zero: these columns "
                "become zeros"
            ),
        ],
    ),
    (
        [(0, slice(0, 16)), (2, slice(0, 16))],
        [
            (
                f"imatrix: the weights of 16 of 256 columns of {EXPERTS}, experts 0 and 2, are zero: these "
                "columns of each become zeros"
            ),
        ],
    ),
]


@pytest.mark.parametrize(("zero", "notes"), CASES, ids=range(len(CASES)))
def test_notes(model: Path, tmp_path: Path, zero: list[tuple[int, slice]], notes: list[str]) -> None:
    imatrix = Imatrix(weights(zero))
    plan = kquant.requantize(model, tmp_path / "out.gguf", "Q6_K", imatrix=imatrix, pure=True)
    assert sorted(plan.notes) == sorted(notes)
    assert plan.to_dict()["notes"] == list(plan.notes)
    told = {row.name: [found._asdict() for found in row.zeroed] for row in plan.rows}
    assert {row["name"]: row["zeroed"] for row in plan.to_dict()["tensors"]} == told
    with kquant.open(tmp_path / "out.gguf") as result:
        for row in plan.rows:
            values = result.tensors[row.name].numpy().reshape(-1, 64, row.shape[-1])
            erased = {i: int((~m.any(axis=0)).sum()) for i, m in enumerate(values)}
            assert {z.matrix: z.columns for z in row.zeroed} == {i: n for i, n in erased.items() if n}


def test_nothing_is_said_of_weights_that_are_not_used(model: Path) -> None:
    imatrix = Imatrix(weights([(1, ALL), (-1, ALL)]))
    for file_type in ("Q8_0", "COPY"):
        assert not any("zero" in note for note in kquant.plan(model, file_type, imatrix=imatrix).notes)


def test_many_experts_are_counted() -> None:
    import types

    from kquant.planning.zero_weights import zero_notes

    row: Any = types.SimpleNamespace(
        name="w", shape=(20, 4, 256), zeroed=tuple(Zeroed(i, 256) for i in range(12))
    )
    assert list(zero_notes([row])) == [
        "imatrix: all weights of w, experts 0, 1, 2, 3, 4, 5, 6, 7 and 4 more, are zero: they become zeros"
    ]
