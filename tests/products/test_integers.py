"""The integer sums inside a block, computed element by element in plain Python, are those that `dot` adds up.

With all scales that are floats set to 1, a dot product of one block is an integer, and exact in float32
below 2**24; its parts are made small enough for that.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.formats import format_of
from kquant.kernels.execute import Execution
from kquant.products.dots import vec_dot, vec_dot_type
from kquant.types import TensorType
from support.naive import IQ4_NL_LEVELS, e2m1

TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4")
OFFSET = {"Q3_K": 4, "Q6_K": 32, "Q4_0": 8, "Q5_0": 16}
"""What is subtracted from the levels as they are stored."""
LEVELS = {"IQ4_NL": IQ4_NL_LEVELS, "MXFP4": [int(2 * e2m1(q)) for q in range(16)]}
"""What the stored numbers stand for, where it is not a difference; MXFP4's are doubled."""


def one_block(name: str, seed: int, largest: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Random codes, or the largest that there are, with float scales of 1, as packed blocks."""
    rng = np.random.default_rng(seed)
    tensor_type, partner = TensorType[name], vec_dot_type(name)
    codes = np.full(tensor_type.type_size, 255) if largest else rng.integers(0, 256, tensor_type.type_size)
    fields = format_of(tensor_type).unpack(codes[None].astype(np.uint8))
    weights = {key: np.array(value) for key, value in fields.items()}
    for key, values in weights.items():
        if values.dtype.kind == "f":
            values[...] = 1
        elif key == "e":
            values[...] = 128
        elif largest and values.dtype == np.int8:
            values[...] = -128
    q = np.full(partner.block_size, -128) if largest else rng.integers(-128, 128, partner.block_size)
    activations = {"d": np.ones(1), "q": q[None].astype(np.int8)}
    if partner is TensorType.Q8_K:
        activations["bsums"] = q.reshape(1, 16, 16).sum(axis=2).astype(np.int16)
    elif partner is TensorType.Q8_1:
        activations["s"] = np.array([q.sum()], np.float16)
    return format_of(tensor_type).pack(weights), format_of(partner).pack(activations)


def slow_sum(name: str, w: NDArray[np.uint8], a: NDArray[np.uint8]) -> int:
    """Element by element, in integers without bounds; minima times the sums that a block of Q8_K says."""
    tensor_type, partner = TensorType[name], vec_dot_type(name)
    weights, activations = format_of(tensor_type).unpack(w), format_of(partner).unpack(a)
    q = [LEVELS[name][int(v)] if name in LEVELS else int(v) for v in weights["q"].reshape(-1)]
    y = [int(v) for v in activations["q"].reshape(-1)]
    sc = (
        [int(v) - (32 if name == "Q3_K" else 0) for v in weights["sc"].reshape(-1)]
        if "sc" in weights
        else [1]
    )
    minima = [int(v) for v in weights["m"].reshape(-1)] if "dmin" in weights else [0]
    total = 0
    for i in range(tensor_type.block_size):
        per_scale, per_minimum = tensor_type.block_size // len(sc), tensor_type.block_size // len(minima)
        total += sc[i // per_scale] * (q[i] - OFFSET.get(name, 0)) * y[i]
        if "bsums" not in activations:
            total -= minima[i // per_minimum] * y[i]
        elif i % 16 == 0:
            total -= minima[i // per_minimum] * int(activations["bsums"].reshape(-1)[i // 16])
    return total + (int(activations["s"].item()) if "s" in activations else 0)


@pytest.mark.parametrize("execution", ["numba", "numpy"])
@pytest.mark.parametrize("name", TYPES)
def test_sums_are_those_of_plain_python(name: str, execution: Execution) -> None:
    for seed in range(40):
        w, a = one_block(name, seed, largest=False)
        wanted = slow_sum(name, w, a)
        got = vec_dot(w, name, a, vec_dot_type(name), execution=execution)[0]
        assert abs(got - wanted) <= np.spacing(np.float32(2**22)), (seed, got, wanted)


@pytest.mark.parametrize("execution", ["numba", "numpy"])
@pytest.mark.parametrize("name", TYPES)
def test_largest_magnitudes_do_not_overflow(name: str, execution: Execution) -> None:
    w, a = one_block(name, 0, largest=True)
    wanted = slow_sum(name, w, a)
    assert vec_dot(w, name, a, vec_dot_type(name), execution=execution)[0] == np.float32(wanted)


@pytest.mark.parametrize("execution", ["numba", "numpy"])
@pytest.mark.parametrize("name", TYPES)
def test_largest_magnitudes_do_not_overflow_in_tiles(name: str, execution: Execution) -> None:
    w, a = (block.reshape(1, -1) for block in one_block(name, 0, largest=True))
    rows, columns = np.repeat(w, 17, axis=0)[:, None], np.repeat(a, 21, axis=0)
    got = vec_dot(rows, name, columns, vec_dot_type(name), execution=execution)
    assert got.shape == (17, 21)
    assert (got == np.float32(slow_sum(name, w, a))).all()


@pytest.mark.parametrize("execution", ["numba", "numpy"])
@pytest.mark.parametrize("bsum", [-32768, -8193, -8192, 0, 8191, 8192, 32767])
@pytest.mark.parametrize("name", TYPES[:5])
def test_sums_of_activations_that_are_not_theirs(name: str, bsum: int, execution: Execution) -> None:
    """A block of Q8_K may say anything of its sums, and is believed where ggml's generic code uses them."""
    for seed in range(5):
        w, a = one_block(name, seed, largest=False)
        fields = dict(format_of(TensorType.Q8_K).unpack(a)) | {"bsums": np.full((1, 16), bsum, np.int16)}
        false = format_of(TensorType.Q8_K).pack(fields)
        wanted = slow_sum(name, w, false)
        for n_columns in (1, 3):
            columns = np.repeat(false.reshape(1, -1), n_columns, axis=0)
            found = vec_dot(w, name, columns, "Q8_K", execution=execution)
            assert (abs(found.astype(float) - wanted) <= np.spacing(np.float32(abs(wanted)) + 2**23)).all()
