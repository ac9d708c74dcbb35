"""Graphs of a few operations, played on rows and tensors of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kquant
from kquant.models.graph import Graph
from kquant.models.hyperparameters import Hyperparameters
from kquant.models.operations import Attend, Value
from kquant.runtime.cache import Cache
from kquant.runtime.interpreter import Interpreter

METADATA: Mapping[str, Any] = {
    "general.architecture": "test",
    "test.block_count": 1,
    "test.embedding_length": 64,
    "test.context_length": 64,
    "test.attention.head_count": 4,
    "test.attention.head_count_kv": 2,
    "test.attention.layer_norm_rms_epsilon": 1e-5,
    "test.attention.layer_norm_epsilon": 1e-5,
}

Build = Callable[[Graph, Value], Value]


def graph(
    shapes: Mapping[str, tuple[int, ...]] = {}, *, width: int = 64, rows: int = 8, **metadata: Any
) -> Graph:
    """One whose embeddings are `rows` of `width` elements.  A key of the metadata has __ for a dot."""
    shapes = {"token_embd.weight": (rows, width)} | dict(shapes)
    given = {f"test.{key.replace('__', '.')}": value for key, value in metadata.items()}
    return Graph(Hyperparameters({**METADATA, **given}, rows, shapes), shapes, 64)


def play(
    build: Build,
    rows: NDArray[np.float32],
    tensors: Mapping[str, NDArray[np.float32]] = {},
    *,
    batch: int | None = None,
    **metadata: Any,
) -> NDArray[np.float32]:
    """What a graph makes of rows, float32 (n, width), that are its embeddings; so many at a time."""
    arrays = {"token_embd.weight": rows, **tensors}
    shapes = {name: array.shape for name, array in arrays.items()}
    g = graph(shapes, rows=len(rows), width=rows.shape[1], **metadata)
    program = g.program(build(g, g.embed()), None)
    packed = {
        name: kquant.QuantizedTensor(kquant.quantize(array, "F32"), kquant.TensorType.F32, name)
        for name, array in arrays.items()
    }
    player = Interpreter(program, packed, execution="numpy")
    widths = [(o.k.width, o.v.width) for o in program.operations if isinstance(o, Attend)] or [(0, 0)]
    cache = Cache(widths, len(rows), kquant.TensorType.F32, kquant.TensorType.F32, execution="numpy")
    tokens = np.arange(len(rows))
    step = batch or len(rows)
    parts = [player.run(tokens[i : i + step], cache, embeddings=True) for i in range(0, len(rows), step)]
    return np.concatenate(parts)
