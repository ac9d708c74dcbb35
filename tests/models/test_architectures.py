"""Every architecture against llama.cpp's logits, with F32 weights and an F32 cache."""

from __future__ import annotations

import contextlib
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.errors import ModelError
from kquant.kernels.execute import Execution
from kquant.models.architectures import ARCHITECTURES
from kquant.models.operations import Normalize
from kquant.models.record import hyperparameters_of, record
from support.drawn_models import NAMES, model_path, recorded
from support.golden_models import squared_error

MOST = 1e-8
CONTEXT = 256
DEEP = ("baichuan-13b", "baichuan-7b", "command-r-plus", "exaone4-32b", "gemma3-27b")
"""Models that are known by their layers: 32, 40, 64, 64, 62."""
MARKED = [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in NAMES]


@pytest.mark.parametrize("execution", ["numba", pytest.param("numpy", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MARKED)
def test_logits_and_greedy_tokens(name: str, execution: Execution) -> None:
    golden = recorded(name)
    with kquant.LanguageModel(
        model_path(name), context=CONTEXT, cache_type_k="F32", cache_type_v="F32", execution=execution
    ) as llm:
        session = llm.session()
        logits = session.read(golden["tokens"], every=True)
        assert squared_error(logits, golden["logits"]) <= MOST
        found = [int(logits[-1].argmax())]
        while len(found) < len(golden["greedy"]):
            found.append(int(session.read(found[-1:]).argmax()))
        assert found == golden["greedy"].tolist()
        for n, last in ((1, 10), (7, len(logits))):
            session = llm.session()
            cut = [session.read(golden["tokens"][i : i + n], every=True) for i in range(0, last, n)]
            assert np.array_equal(np.concatenate(cut), logits[:last])


def opened(name: str) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The metadata of a golden model, and the shapes of its tensors."""
    with kquant.open(model_path(name)) as model:
        return dict(model.metadata), {key: tensor.shape for key, tensor in model.tensors.items()}


def tensors_of(part: Any, shapes: dict[str, tuple[int, ...]]) -> set[str]:
    """The tensors that a program, or an operation, names."""
    if isinstance(part, str):
        return {part} & set(shapes)
    if isinstance(part, tuple):
        return set().union(*(tensors_of(item, shapes) for item in part))
    if is_dataclass(part):
        return tensors_of(tuple(getattr(part, field.name) for field in fields(part)), shapes)
    return set()


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_checked(name: str) -> None:
    metadata, shapes = opened(name)
    h = hyperparameters_of(metadata, shapes)
    used = tensors_of(record(h, shapes, CONTEXT), shapes)
    assert len(used) > 8
    for tensor in used - {"token_embd.weight"}:
        if tensor.startswith("blk.") and not tensor.startswith("blk.1."):
            continue
        with pytest.raises(ModelError, match=tensor):
            record(h, {**shapes, tensor: (*shapes[tensor], 2)}, CONTEXT)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_not_asked_for(name: str) -> None:
    metadata, shapes = opened(name)
    h = hyperparameters_of(metadata, shapes)
    for tensor in tensors_of(record(h, shapes, CONTEXT), shapes) - {"token_embd.weight"}:
        if tensor.startswith("blk.") and not tensor.startswith("blk.1."):
            continue
        left = {key: shape for key, shape in shapes.items() if key != tensor}
        with contextlib.suppress(ModelError):  # those that a model may lack
            assert tensor not in tensors_of(record(h, left, CONTEXT), shapes)


def test_every_architecture_was_compared() -> None:
    compared = {opened(name)[0]["general.architecture"] for name in NAMES}
    embed = {"bert", "jina-bert-v2", "nomic-bert"}
    assert compared == set(ARCHITECTURES) - embed


def test_an_unknown_architecture() -> None:
    metadata, shapes = opened("llama-dense")
    with pytest.raises(ModelError, match=r"^expected an architecture among arcee, .*, xverse, got 'mamba'$"):
        hyperparameters_of(metadata | {"general.architecture": "mamba"}, shapes)


def test_norms_of_queries_and_keys_in_mpt() -> None:
    """llama.cpp cannot run these."""
    metadata, shapes = opened("mpt-awq")
    names = [f"blk.{layer}.attn_{which}_norm.weight" for layer in range(2) for which in "qk"]
    widths = dict.fromkeys(names, shapes["output_norm.weight"])
    h = hyperparameters_of(metadata, shapes)
    norms = [
        sum(isinstance(operation, Normalize) for operation in record(h, given, CONTEXT).operations)
        for given in (shapes, shapes | widths)
    ]
    assert norms == [5, 9]


def test_llama_4_without_chunks() -> None:
    """llama.cpp ends when it computes such a model."""
    metadata, shapes = opened("llama4")
    h = hyperparameters_of(metadata | {"llama4.attention.sliding_window": 0}, shapes)
    with pytest.raises(ModelError, match="sliding_window: expected chunks of tokens, got 0"):
        record(h, shapes, CONTEXT)


def test_norms_of_queries_and_keys_in_llama_4() -> None:
    """Maverick, known by its experts, has none; Scout has them in the three layers of four that rotate."""
    metadata, shapes = opened("llama4")
    norms = []
    for n_expert in (4, 128):
        stacked = {
            key: (n_expert, *shape[1:]) for key, shape in shapes.items() if key.endswith("exps.weight")
        }
        routers = {key: (n_expert, 64) for key in shapes if key.endswith("ffn_gate_inp.weight")}
        given = shapes | stacked | routers
        h = hyperparameters_of(metadata | {"llama4.expert_count": n_expert}, given)
        norms.append(sum(isinstance(o, Normalize) for o in record(h, given, CONTEXT).operations))
    assert norms == [9 + 2 * 3, 9]
