"""kquant against a plain decoder and plain quantizers that share no code with it."""

from __future__ import annotations

import numpy as np
import pytest

from kquant.arrays import codec
from kquant.kernels.execute import Execution
from kquant.types import TensorType
from support import golden, naive
from support.compare import assert_same_bytes, assert_same_floats
from support.strategies import RECIPES, random_blocks

both = pytest.mark.parametrize("execution", ["numba", "numpy"])


@both
@pytest.mark.parametrize("type_name", naive.DECODERS)
def test_dequantize_arbitrary_bytes(type_name: str, execution: Execution) -> None:
    blocks = random_blocks(type_name, 96, seed=1)
    with np.errstate(all="ignore"):
        want = np.array([naive.DECODERS[type_name](block.tobytes()) for block in blocks], np.float32)
    got = codec.dequantize(blocks, type_name, execution=execution)
    assert_same_floats(got, want, type_name)


@both
@pytest.mark.parametrize("type_name", naive.ENCODERS)
def test_quantize_without_a_search(type_name: str, execution: Execution) -> None:
    t = TensorType[type_name]
    rng = np.random.default_rng(2)
    tame = [
        name for name in RECIPES if name not in ("huge", "any bits", "subnormal", "near the ends of fp16")
    ]
    x = np.stack([RECIPES[name](rng) for name in tame]).astype(np.float32)
    encode = naive.ENCODERS[type_name]
    want = [b"".join(encode(list(block)) for block in row.reshape(-1, max(t.block_size, 32))) for row in x]
    got = codec.quantize(x, type_name, execution=execution)
    assert_same_bytes(got, np.array([list(row) for row in want], np.uint8), type_name)


def test_every_type_has_a_naive_decoder() -> None:
    assert set(naive.DECODERS) == {*golden.TYPES, "F32"}
    assert set(naive.DECODERS) == {t.name for t in TensorType if codec.has_codec(t)}
