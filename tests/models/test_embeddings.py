"""Embeddings of each token against llama.cpp's: one layer of a real MiniLM, and small random models."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

import kquant
from kquant.models.record import hyperparameters_of, record
from kquant.runtime.cache import Cache
from kquant.runtime.interpreter import Interpreter
from support.golden_models import FOLDER, squared_error

F32 = kquant.TensorType.F32


def interpreter(name: str, folder: Path) -> tuple[Interpreter, Cache]:
    """A golden model, and room for 64 tokens."""
    path = folder / f"{name}.gguf"
    path.write_bytes(lzma.decompress((FOLDER / "embeddings" / f"{name}.gguf.xz").read_bytes()))
    model = kquant.open(path)
    shapes = {key: tensor.shape for key, tensor in model.tensors.items()}
    h = hyperparameters_of(model.metadata, shapes)
    program = record(h, shapes, 64)
    assert program.logits is None
    widths = [(h.n_head_kv(i) * h.head_size, h.n_head_kv(i) * h.value_size) for i in range(h.n_layer)]
    return Interpreter(program, model.tensors), Cache(widths, 64, F32, F32)


@pytest.mark.parametrize(
    ("name", "most"),
    # llama.cpp rounds the other operand of F16 weights to F16, and that of Q8_0 to 8 bits, where rounding may
    # go either way
    [("bert", 1e-6), ("jina-bert-v2", 1e-9), ("minilm", 1e-6), ("nomic-bert", 1e-11)],
)
def test_embeddings(name: str, most: float, tmp_path: Path) -> None:
    with np.load(FOLDER / "embeddings" / f"{name}.npz") as archive:
        golden = dict(archive)
    player, cache = interpreter(name, tmp_path)
    for i in range(len(golden) // 2):
        cache.truncate(0)
        found = player.run(golden[f"tokens{i}"].astype(np.intp), cache, embeddings=True)
        assert squared_error(found, golden[f"each{i}"]) < most


def test_positions_for_a_longer_context(tmp_path: Path) -> None:
    interpreter("bert", tmp_path)
    model = kquant.open(tmp_path / "bert.gguf")
    shapes = {key: tensor.shape for key, tensor in model.tensors.items()}
    with pytest.raises(
        kquant.ModelError, match=r"position_embd\.weight: expected rows for a context of 65, got 64"
    ):
        record(hyperparameters_of(model.metadata, shapes), shapes, 65)
