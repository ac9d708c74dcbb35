"""kquant against a live ggml, on super-blocks that hypothesis draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kquant.arrays import codec
from kquant.errors import InvalidDataError
from kquant.kernels.execute import Execution
from kquant.types import TensorType
from support import golden, naive, oracle
from support.compare import assert_same_bytes, assert_same_floats
from support.strategies import Batch, N, batches, random_blocks

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

DECODED = [t for t in golden.TYPES if t != "Q8_1"]
WEIGHTED = golden.K_QUANTS + golden.LEGACY + golden.IQ

# ggml validates no Q8_1, and rounds F64 to float32 before it looks; a type newer than the installed
# ggml-python is beyond it
VALIDATED = [t.name for t in TensorType if oracle.knows(t) and t.name not in ("F64", "Q8_1")]

numba = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
numpy = settings(numba, max_examples=8)


@pytest.fixture(scope="module", autouse=True)
def _usable_oracle() -> None:
    if oracle.reason:
        pytest.skip(oracle.reason)
    if oracle.contracts():
        pytest.skip(
            "this build of ggml-python fuses multiplications and additions, so its bytes are not the "
            "reference; reinstall it with CFLAGS=CXXFLAGS=-ffp-contract=off"
        )


def check(batch: Batch, type_name: str, execution: Execution, width: int | None = None) -> None:
    """Every row (the first `width` elements of it) of which ggml makes something valid: the same bytes."""
    x, weights = batch.x[:, :width], batch.weights if batch.weights is None else batch.weights[:width]
    check_rows(x, weights, type_name, execution, str(batch))


def check_rows(
    x: NDArray[np.float32],
    weights: NDArray[np.float32] | None,
    type_name: str,
    execution: Execution,
    what: str,
) -> None:
    x = x[oracle.is_defined(x, type_name, weights)]
    want = oracle.quantize(x, type_name, weights)
    size = TensorType[type_name].type_size
    valid = [
        all(naive.is_valid(block.tobytes(), type_name) for block in row.reshape(-1, size)) for row in want
    ]
    got = codec.quantize(x[valid], type_name, weights, execution=execution, check=False)
    assert_same_bytes(got, want[valid], type_name, f"{execution}, {what}")


@pytest.mark.parametrize("type_name", golden.TYPES)
@given(batch=batches(weighted=False))
@numba
def test_quantize(type_name: str, batch: Batch) -> None:
    check(batch, type_name, "numba")


@pytest.mark.parametrize("type_name", WEIGHTED)
@given(batch=batches(weighted=True))
@numba
def test_quantize_with_importance(type_name: str, batch: Batch) -> None:
    check(batch, type_name, "numba")


@pytest.mark.parametrize("execution", ["numba", "numpy"])
@pytest.mark.parametrize("type_name", WEIGHTED)
def test_quantize_across_all_magnitudes(type_name: str, execution: Execution) -> None:
    """Every scale of values with every scale of weights: sums that vanish, and sums that overflow."""
    rng = np.random.default_rng(5)
    weights = np.abs(rng.standard_normal(N)) * 10.0 ** np.arange(-36, 37, 6)[:, None]
    x = rng.standard_normal((24, N)) * 10.0 ** np.linspace(-30, 36, 24)[:, None]
    x[1::2] *= np.repeat(10.0 ** rng.uniform(-12, 0, (12, 16)), 16, axis=1)
    for row in weights.astype(np.float32):
        check_rows(x.astype(np.float32), row, type_name, execution, f"weights like {row[0]}")


@pytest.mark.parametrize("type_name", golden.LEGACY + golden.IQ)
@given(batch=batches(weighted=True), blocks=st.integers(1, 8))
@numba
def test_quantize_short_rows_with_importance(type_name: str, batch: Batch, blocks: int) -> None:
    """Most of these types weigh with the mean square of the whole row, too; IQ4_NL with that of the block."""
    check(batch, type_name, "numba", width=32 * blocks)
    check(batch, type_name, "numpy", width=32 * blocks)


@pytest.mark.parametrize("type_name", golden.TYPES)
@given(batch=batches(weighted=False, n_rows=128))
@numpy
def test_quantize_under_numpy(type_name: str, batch: Batch) -> None:
    check(batch, type_name, "numpy")


@pytest.mark.parametrize("type_name", WEIGHTED)
@given(batch=batches(weighted=True, n_rows=128))
@numpy
def test_quantize_with_importance_under_numpy(type_name: str, batch: Batch) -> None:
    check(batch, type_name, "numpy")


@pytest.mark.parametrize("execution", ["numba", "numpy"])
@pytest.mark.parametrize("type_name", DECODED)
@given(seed=st.integers(0, 2**32 - 1))
@settings(numba, max_examples=10)
def test_dequantize_arbitrary_bytes(type_name: str, execution: Execution, seed: int) -> None:
    blocks = random_blocks(type_name, 512, seed)
    want = oracle.dequantize(blocks, type_name)
    got = codec.dequantize(blocks, type_name, execution=execution)
    assert_same_floats(got, want, f"{type_name}, seed {seed}")


@pytest.mark.parametrize("type_name", VALIDATED)
@given(seed=st.integers(0, 2**32 - 1))
@settings(numba, max_examples=12)
def test_validate(type_name: str, seed: int) -> None:
    """For types without a codec too.  Every other block is full of infinities and numbers close to them."""
    blocks = random_blocks(type_name, 48, seed)
    extremes = np.array([0x00, 0x70, 0x7B, 0x7C, 0x7E, 0x7F, 0x80, 0xC0, 0xF0, 0xFC, 0xFF], np.uint8)
    blocks[::2] = np.random.default_rng(seed).choice(extremes, blocks[::2].shape)
    for block in blocks:
        verdict = oracle.validate(block[None], type_name)
        assert accepts(block, type_name) == verdict, block.tobytes().hex()
        if type_name in naive.DECODERS:
            assert naive.is_valid(block.tobytes(), type_name) == verdict, block.tobytes().hex()


def accepts(block: NDArray[Any], type_name: str) -> bool:
    try:
        codec.validate(block, type_name)
    except InvalidDataError:
        return False
    return True
