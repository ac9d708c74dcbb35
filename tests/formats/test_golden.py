"""kquant against the bytes that ggml wrote, in both directions and both executions."""

from __future__ import annotations

import numpy as np
import pytest

from kquant.arrays import codec
from kquant.kernels.execute import Execution
from support import golden
from support.compare import assert_same_bytes, assert_same_floats

DECODED = [t for t in golden.TYPES if t != "Q8_1"]
"""ggml has no function that decodes Q8_1."""

both = pytest.mark.parametrize("execution", ["numba", "numpy"])


def test_the_arrays_are_the_ones_of_the_manifest() -> None:
    for type_name in golden.TYPES:
        for case in golden.quantized(type_name):
            assert golden.sha256(case.bytes) == case.sha256, str(case)


@pytest.mark.parametrize("execution", ["numba", pytest.param("numpy", marks=pytest.mark.slow)])
@pytest.mark.parametrize("type_name", golden.TYPES)
def test_quantize(type_name: str, execution: Execution) -> None:
    """All inputs that share a row length and importance weights in one call, as rows of one array."""
    for cases in together(type_name):
        x = np.concatenate([case.x for case in cases])
        # unchecked: of large values Q8_1 stores infinite sums, and others may store zeros
        packed = codec.quantize(x, type_name, cases[0].weights, execution=execution, check=False)
        ends = np.cumsum([len(case.x) for case in cases])
        for case, got in zip(cases, np.split(packed, ends[:-1]), strict=True):
            assert_same_bytes(got, case.bytes, type_name, f"{case}, {execution}")


def together(type_name: str) -> list[list[golden.Quantized]]:
    groups: dict[tuple[int, str], list[golden.Quantized]] = {}
    for case in filter(lambda case: case.is_chunk, golden.quantized(type_name)):
        groups.setdefault((case.x.shape[1], case.importance), []).append(case)
    return list(groups.values())


@both
@pytest.mark.parametrize("type_name", DECODED)
def test_dequantize_what_was_quantized(type_name: str, execution: Execution) -> None:
    hashes = golden.document("dequantized/sha256.json")["types"][type_name]
    for case in golden.quantized(type_name):
        values = codec.dequantize(case.bytes, type_name, execution=execution)
        assert values.shape == case.x.shape
        assert golden.sha256(values) == hashes[case.key], str(case)


@both
@pytest.mark.parametrize("type_name", DECODED)
def test_dequantize_random_blocks(type_name: str, execution: Execution) -> None:
    arrays = golden.arrays(f"dequantized/{type_name}.npz")
    blocks = arrays["blocks"].reshape(len(arrays["blocks"]), -1)
    values = arrays["values"].reshape(len(blocks), -1)
    got = codec.dequantize(blocks, type_name, execution=execution)
    assert_same_floats(got, values, type_name)


@both
@pytest.mark.parametrize("type_name", golden.FLOATS)
def test_every_16_bit_pattern(type_name: str, execution: Execution) -> None:
    hashes = golden.document("dequantized/sha256.json")["f16_bf16_full_tables"][type_name]
    patterns = np.arange(1 << 16, dtype="<u2")
    values = codec.dequantize(patterns.view(np.uint8), type_name, execution=execution)
    assert golden.sha256(values) == hashes["all_65536_patterns"]
    assert np.count_nonzero(np.isfinite(values)) == hashes["n_finite"]
    finite = np.isfinite(values)
    packed = codec.quantize(values[finite], type_name, execution=execution)
    assert np.array_equal(packed.view("<u2"), patterns[finite])


@both
@pytest.mark.parametrize("type_name", golden.FLOATS)
def test_float_casts(type_name: str, execution: Execution) -> None:
    casts = golden.arrays("float_casts.npz")
    x, want = casts["x_bits"].view(np.float32), casts[f"{type_name.lower()}_bits"]
    representable = np.isfinite(x) & np.isfinite(codec.dequantize(want.view(np.uint8), type_name))
    packed = codec.quantize(x[representable], type_name, execution=execution)
    assert np.array_equal(packed.view("<u2"), want[representable])
