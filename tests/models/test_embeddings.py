"""Embeddings of each token against llama.cpp's: a layer of a real MiniLM, and small random models."""

from __future__ import annotations

import lzma
import re
from pathlib import Path

import numpy as np
import pytest

import kquant
from kquant.models.record import hyperparameters_of, record
from kquant.runtime.cache import Cache
from kquant.runtime.interpreter import Interpreter
from support.drawn_models import EMBEDDERS, model_path, recorded
from support.golden_models import FOLDER, squared_error

F32 = kquant.TensorType.F32


def interpreter(path: Path, context: int) -> tuple[Interpreter, Cache]:
    """A model, and room for so many tokens."""
    model = kquant.open(path)
    shapes = {key: tensor.shape for key, tensor in model.tensors.items()}
    h = hyperparameters_of(model.metadata, shapes)
    program = record(h, shapes, context)
    assert program.logits is None
    widths = [(h.n_head_kv(i) * h.head_size, h.n_head_kv(i) * h.value_size) for i in range(h.n_layer)]
    return Interpreter(program, model.tensors), Cache(widths, context, F32, F32)


@pytest.mark.parametrize("name", EMBEDDERS)
def test_every_kind(name: str) -> None:
    golden = recorded(name)
    player, cache = interpreter(model_path(name), 64)
    found = player.run(golden["tokens"].astype(np.intp), cache, embeddings=True)
    assert squared_error(found, golden["embeddings"]) <= 1e-8


def test_a_real_model(tmp_path: Path) -> None:
    path = tmp_path / "minilm.gguf"
    path.write_bytes(lzma.decompress((FOLDER / "embeddings" / "minilm.gguf.xz").read_bytes()))
    with np.load(FOLDER / "embeddings" / "minilm.npz") as archive:
        golden = dict(archive)
    player, cache = interpreter(path, 64)
    for i in range(3):
        cache.truncate(0)
        found = player.run(golden[f"tokens{i}"].astype(np.intp), cache, embeddings=True)
        # where a product's other operand is rounded to 8 bits, it may go either way
        assert squared_error(found, golden[f"each{i}"]) <= 1e-6


def test_a_context_beyond_the_positions() -> None:
    message = "position_embd.weight: expected rows for a context of 257, got 256"
    with pytest.raises(kquant.ModelError, match=re.escape(message)):
        interpreter(model_path("embeddings/bert"), 257)
