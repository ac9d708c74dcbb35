"""From metadata and shapes to a program."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kquant import ModelError
from kquant.models.architectures import ARCHITECTURES
from kquant.models.operations import Select
from kquant.models.record import hyperparameters_of, record

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.embedding_length": 64,
    "llama.context_length": 128,
    "llama.attention.head_count": 4,
    "llama.feed_forward_length": 96,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
SHAPES: dict[str, tuple[int, ...]] = {
    "token_embd.weight": (100, 64),
    "output_norm.weight": (64,),
    "blk.0.attn_norm.weight": (64,),
    "blk.0.attn_q.weight": (64, 64),
    "blk.0.attn_k.weight": (64, 64),
    "blk.0.attn_v.weight": (64, 64),
    "blk.0.attn_output.weight": (64, 64),
    "blk.0.ffn_norm.weight": (64,),
    "blk.0.ffn_gate.weight": (96, 64),
    "blk.0.ffn_up.weight": (96, 64),
    "blk.0.ffn_down.weight": (64, 96),
}


def test_the_vocabulary_is_counted_by_its_embeddings() -> None:
    h = hyperparameters_of(METADATA, SHAPES)
    program = record(h, SHAPES, 64)
    assert h.n_vocab == 100
    assert program.logits is not None
    assert (program.embedding.width, program.logits.width) == (64, 100)
    assert sum(isinstance(operation, Select) for operation in program.operations) == 1


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"token_embd.weight"}))
def test_a_tensor_that_is_missing_or_cut_is_named(name: str) -> None:
    h = hyperparameters_of(METADATA, SHAPES)
    with pytest.raises(ModelError, match=re.escape(f"expected a tensor {name} of shape")):
        record(h, {k: v for k, v in SHAPES.items() if k != name}, 64)
    with pytest.raises(ModelError, match=re.escape(f"{name}: expected shape")):
        record(h, SHAPES | {name: tuple(n - 1 for n in SHAPES[name])}, 64)


def test_embeddings_that_are_missing_or_no_matrix() -> None:
    with pytest.raises(ModelError, match=re.escape("of shape (n_vocab, n_embd), got a file without it")):
        hyperparameters_of(METADATA, {})
    with pytest.raises(ModelError, match=re.escape("of shape (n_vocab, n_embd), got (64,)")):
        hyperparameters_of(METADATA, {"token_embd.weight": (64,)})


def test_an_architecture_that_is_not_there_is_named_beside_those_that_are() -> None:
    with pytest.raises(ModelError) as raised:
        hyperparameters_of({"general.architecture": "mamba"}, {})
    message = str(raised.value)
    assert message.endswith("got 'mamba'")
    assert all(name in message for name in ARCHITECTURES)
    assert "\n" not in message


def test_a_file_without_an_architecture() -> None:
    with pytest.raises(ModelError, match="expected the name of an architecture, got none"):
        hyperparameters_of({}, SHAPES)


def test_architectures_are_in_alphabetical_order() -> None:
    assert list(ARCHITECTURES) == sorted(ARCHITECTURES)
