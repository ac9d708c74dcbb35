"""Norms, gates and attention, compiled and as they stand, against `kquant.runtime.functions`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kquant
from kquant.kernels import forward
from kquant.runtime import functions

RNG = np.random.default_rng(5)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def test_exponential() -> None:
    x = np.concatenate([np.linspace(-87, 88, 4096), [-1e4, -np.inf, 0.0, -0.0, 1e-8]]).astype(np.float32)
    found, expected = forward.exp(x[:4096]), np.exp(x[:4096].astype(np.float64))
    assert np.max(np.abs(found - expected) / expected) < 2.5e-7
    assert (forward.exp(x[4096:4098]) < 2e-38).all()
    assert forward.exp(x[4098:]).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("parts", [1, 3])
def test_norms(kind: Any, parts: int) -> None:
    x, weight, bias = normal(6, 64) + 1, normal(parts, 64), normal(parts, 64)
    expected = functions.normalize(x, kind, 1e-5)
    repeated = np.tile(weight, (6 // parts, 1)), np.tile(bias, (6 // parts, 1))
    for biases in (bias, np.zeros((0, 0), np.float32)):
        compiled, plain = np.empty_like(x), np.empty_like(x)
        forward.normalize(kind == "layer")(x, 1e-5, weight, biases, compiled)
        forward._normalize(kind == "layer")(x, 1e-5, weight, biases, plain)
        wanted = expected * repeated[0] + (repeated[1] if len(biases) else 0)
        assert np.abs(compiled - wanted).max() < 1e-5
        assert np.abs(plain - wanted).max() < 1e-5


def test_gates() -> None:
    gate, up = 4 * normal(3, 48), normal(3, 48)
    compiled, plain = np.empty_like(gate), np.empty_like(gate)
    forward.silu_gate()(gate, up, compiled)
    forward._silu_gate(gate, up, plain)
    assert np.abs(compiled - functions.gated("silu", gate, up)).max() < 4e-6
    assert np.array_equal(compiled, plain)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("n", [1, 4, 7])
def test_products_of_numbers(name: str, n: int) -> None:
    w, x = kquant.QuantizedTensor.from_numpy(normal(13, 48), name), normal(n, 48)
    rows = w.data.view(np.float32 if name == "F32" else np.uint16)
    compiled, plain, alone = (np.empty((n, 13), np.float32) for _ in range(3))
    forward.multiply(name)(rows, x, 0, 13, compiled)
    forward._multiply(name)(rows, x, 0, 13, plain)
    for i in range(n):
        for row in range(13):
            forward.multiply(name)(rows, x[i : i + 1], row, row + 1, alone[i : i + 1])
    assert np.array_equal(compiled, alone)
    assert np.array_equal(compiled, plain)
    assert np.abs(compiled - x.astype(np.float64) @ w.numpy().T).max() < 1e-5


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", ["plain", "everything"])
@pytest.mark.parametrize("n_positions", [1, 16, 37])
def test_attention(half: bool, kind: str, n_positions: int) -> None:
    heads, heads_kv, size, value_size, n = 6, 3, 32, 16, min(3, n_positions)
    q, k, v = (
        normal(n, heads * size),
        normal(n_positions, heads_kv * size),
        normal(n_positions, heads_kv * value_size),
    )
    if half:
        k, v = k.astype(np.float16), v.astype(np.float16)
    position = n_positions - n
    ends = np.arange(position, n_positions) + 1
    starts = np.zeros_like(ends) if kind == "plain" else np.maximum(ends - 20, 0)
    soft_cap, max_bias = (0.0, 0.0) if kind == "plain" else (30.0, 8.0)
    sinks = np.zeros(0, np.float32) if kind == "plain" else normal(heads)
    slopes = functions.alibi_slopes(heads, max_bias)
    stored = (k.view(np.uint16), v.view(np.uint16)) if half else (k, v)

    def call(function: Any, first: int, last: int, out: Any) -> None:
        rest = heads // heads_kv, size, value_size, 0.3, soft_cap, slopes, position, sinks, out
        function(q, *stored, starts, ends, first, last, *rest)

    compiled, plain, in_parts = (np.empty((n, heads * value_size), np.float32) for _ in range(3))
    call(forward.attend(half), 0, n * heads, compiled)
    call(forward._attend(half), 0, n * heads, plain)
    for unit in range(n * heads):
        call(forward.attend(half), unit, unit + 1, in_parts)
    assert np.array_equal(compiled, in_parts)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        seen = slice(start, end)
        distances = np.abs(np.arange(start, end, dtype=np.float32) - np.float32(position + i))
        expected = functions.attend(
            q[i].reshape(heads_kv, -1, size),
            k[seen].astype(np.float32).reshape(-1, heads_kv, size),
            v[seen].astype(np.float32).reshape(-1, heads_kv, value_size),
            0.3,
            soft_cap,
            slopes.reshape(heads_kv, -1, 1) * -distances,
            sinks if len(sinks) else None,
        ).ravel()
        assert np.abs(compiled[i] - expected).max() < 1e-5
        assert np.abs(plain[i] - expected).max() < 1e-5
