"""Whatever the model: each tensor of the result is what the codec makes of it, in whatever slabs."""

from __future__ import annotations

from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import kquant
from kquant.arrays import codec
from kquant.imatrix.reading import Imatrix
from kquant.types import TensorType
from support.small_models import heavy_tailed, write_model

NAMES = (
    *(
        "token_embd.weight",
        "output.weight",
        "output_norm.weight",
        "blk.0.attn_norm.weight",
        "blk.0.attn_q.bias",
    ),
    *(
        "blk.0.attn_v.weight",
        "blk.0.ffn_down.weight",
        "blk.0.ffn_gate_exps.weight",
        "blk.0.ffn_gate_inp.weight",
    ),
)
SOURCES = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
FILE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1")


class Tensor(NamedTuple):
    type: TensorType
    shape: tuple[int, ...]
    is_important: bool


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    tensor_type = TensorType[draw(st.sampled_from(SOURCES))]
    n_per_row = tensor_type.block_size * draw(st.integers(1, 5)) * draw(st.sampled_from([1, 32]))
    outer = draw(st.lists(st.integers(1, 4), max_size=3))
    return Tensor(tensor_type, (*outer, n_per_row), draw(st.booleans()))


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), tensors(), max_size=5),
    st.sampled_from(FILE_TYPES),
    st.fixed_dictionaries(
        {}, optional={"slab_elements": st.sampled_from([1, 33, 100, 1000]), "pure": st.booleans()}
    ),
    st.sampled_from(["little", "big"]),
    st.integers(1, 3),
)
def test_any_model(
    model: dict[str, Tensor], file_type: str, options: dict[str, Any], byteorder: Any, threads: int
) -> None:
    data = {
        name: (codec.quantize(heavy_tailed(*t.shape, seed=i), t.type), t.type)
        for i, (name, t) in enumerate(model.items())
    }
    important = {name: t.shape for name, t in model.items() if t.is_important and len(t.shape) <= 3}
    weights = {
        name: np.random.default_rng(7).random((prod(shape[:-2]), shape[-1])).astype(np.float32)
        for name, shape in important.items()
    }
    with TemporaryDirectory() as folder:
        source = write_model(Path(folder, "in.gguf"), data, byteorder=byteorder)
        plan = kquant.requantize(
            source,
            Path(folder, "out.gguf"),
            file_type,
            allow_requantize=True,
            threads=threads,
            imatrix=Imatrix(weights) if weights else None,
            **options,
        )
        with kquant.open(Path(folder, "out.gguf")) as result:
            assert result.file.byteorder == byteorder
            assert list(result.tensors) == [row.name for row in plan.rows]
            for row in plan.rows:
                got = result.tensors[row.name]
                assert (got.type, got.shape) == (row.new_type, row.shape)
                packed, tensor_type = data[row.name]
                want = packed
                if row.converts:
                    want = expected(packed, tensor_type, row.new_type, row.imatrix and weights[row.imatrix])
                assert np.array_equal(got.data.reshape(-1), want.reshape(-1)), row


def expected(packed: Any, old: TensorType, new: TensorType, weights: Any) -> Any:
    """A tensor at once; with weights, each of its matrices with its own."""
    x = codec.dequantize(packed, old)
    if weights is None:
        return codec.quantize(x, new)
    matrices = x.reshape(len(weights), -1, x.shape[-1])
    return np.stack([codec.quantize(m, new, w) for m, w in zip(matrices, weights, strict=True)])
