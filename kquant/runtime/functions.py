"""The functions of a forward pass, on rows of float32, as NumPy computes them.

Source: https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-cpu/ops.cpp
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

from kquant.models.operations import Activation
from kquant.models.rope import Rope

__all__ = [
    "activate",
    "alibi_slopes",
    "attend",
    "erf",
    "gated",
    "normalize",
    "rotate",
    "sigmoid",
    "soft_cap",
    "softmax",
]

_Floats: TypeAlias = Any  # an array of float32; NumPy's operators are typed for float64

OAI_ALPHA, OAI_LIMIT = np.float32(1.702), np.float32(7.0)
"""gpt-oss's swish."""


def normalize(x: _Floats, kind: Literal["rms", "layer"], eps: float) -> _Floats:
    """The last axis with mean square 1; "layer" takes off the mean first."""
    if kind == "layer":
        x = x - x.mean(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
    square = (x * x).mean(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
    return x * (np.float32(1) / np.sqrt(square + np.float32(eps)))


def sigmoid(x: _Floats) -> _Floats:
    """1 / (1 + exp(-x))."""
    return np.float32(1) / (np.float32(1) + np.exp(-x))


def softmax(x: _Floats) -> _Floats:
    """Of the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)


def soft_cap(x: _Floats, cap: float) -> _Floats:
    """cap * tanh(x / cap)."""
    return np.tanh(x * np.float32(1 / cap)) * np.float32(cap)


def activate(activation: Activation, x: _Floats) -> _Floats:
    """An activation function of each element."""
    if activation == "silu":
        return x * sigmoid(x)
    if activation == "gelu":
        return _gelu(x)
    if activation == "gelu_erf":
        return np.float32(0.5) * x * (np.float32(1) + erf(x * np.float32(math.sqrt(0.5))))
    if activation == "relu":
        return np.maximum(x, np.float32(0))
    if activation == "relu_squared":
        return np.square(np.maximum(x, np.float32(0)))
    if activation == "tanh":
        return np.tanh(x)
    assert activation == "sigmoid", activation
    return sigmoid(x)


def gated(activation: Activation, gate: _Floats, up: _Floats) -> _Floats:
    """activation(gate) * up."""
    if activation == "oai":
        x = np.minimum(gate, OAI_LIMIT)
        y = np.clip(up, -OAI_LIMIT, OAI_LIMIT)
        return x * sigmoid(OAI_ALPHA * x) * (y + np.float32(1))
    return activate(activation, gate) * up


def _gelu(x: _Floats) -> _Floats:
    """Between -10 and 10 to the accuracy of F16: ggml looks it up in a table of F16 numbers."""
    half = np.clip(x, np.float32(-10), np.float32(10)).astype(np.float16).astype(np.float32)
    inner = np.float32(math.sqrt(2 / math.pi)) * half * (np.float32(1) + np.float32(0.044715) * half * half)
    y = (np.float32(0.5) * half * (np.float32(1) + np.tanh(inner))).astype(np.float16).astype(np.float32)
    return np.where(x <= -10, np.float32(0), np.where(x >= 10, x, y))


def erf(x: _Floats) -> _Floats:
    """The error function, which NumPy lacks, as accurate as float32.

    Source: W. J. Cody, "Rational Chebyshev approximation for the error function", Mathematics of Computation,
    1969; the coefficients are those of https://www.netlib.org/specfun/erf

    >>> erf(np.array([-10, 0, 0.5], np.float32)).round(4)
    array([-1.    ,  0.    ,  0.5205], dtype=float32)
    """
    exact = x.astype(np.float64)
    size = np.minimum(np.abs(exact), 4)  # beyond it float32 has nothing but 1
    square = size * size
    near = size * np.polyval(_NEAR[0], square) / np.polyval(_NEAR[1], square)
    far = 1 - np.exp(-square) * np.polyval(_FAR[0], size) / np.polyval(_FAR[1], size)
    return np.copysign(np.where(size < 0.46875, near, far), exact).astype(np.float32)


_NEAR = (
    [
        0.185777706184603153,
        3.16112374387056560,
        113.864154151050156,
        377.485237685302021,
        3209.37758913846947,
    ],
    [1.0, 23.6012909523441209, 244.024637934444173, 1282.61652607737228, 2844.23683343917062],
)
_FAR = (
    [
        2.15311535474403846e-8, 0.564188496988670089, 8.88314979438837594, 66.1191906371416295,
        298.635138197400131, 881.952221241769090, 1712.04761263407058, 2051.07837782607147,
        1230.33935479799725,
    ],
    [
        1.0, 15.7449261107098347, 117.693950891312499, 537.181101862009858, 1621.38957456669019,
        3290.79923573345963, 4362.61909014324716, 3439.36767414372164, 1230.33935480374942,
    ],
)  # fmt: skip
"""Numerator and denominator, the highest power first: of the square below 0.46875, of the size above."""


def rotate(x: _Floats, table: _Floats, rope: Rope) -> _Floats:
    """x: (n, heads, size); table: cosines and sines (2, n, n_dims / 2)."""
    cos, sin = table[0][:, None], table[1][:, None]
    n, out = rope.n_dims, x.copy()
    if rope.pairs == "adjacent":
        first, second = slice(0, n, 2), slice(1, n, 2)
    else:
        first, second = slice(0, n // 2), slice(n // 2, n)
    a, b = x[..., first], x[..., second]
    out[..., first] = a * cos - b * sin
    out[..., second] = a * sin + b * cos
    return out


@lru_cache(64)
def alibi_slopes(n_head: int, max_bias: float) -> _Floats:
    """What distances are multiplied with, for each head; zeros without a bias.

    >>> alibi_slopes(2, 8.0)
    array([0.0625    , 0.00390625], dtype=float32)
    """
    if not max_bias:
        return np.zeros(n_head, np.float32)
    whole = 1 << math.floor(math.log2(n_head))
    first, second = 2.0 ** (-max_bias / whole), 2.0 ** (-max_bias / 2 / whole)
    slopes = [first ** (i + 1) if i < whole else second ** (2 * (i - whole) + 1) for i in range(n_head)]
    return np.array(slopes, np.float32)


def attend(
    q: _Floats,
    k: _Floats,
    v: _Floats,
    scale: float,
    soft_cap_: float,
    bias: _Floats,
    sinks: _Floats | None,
) -> _Floats:
    """One token's attention.

    Args:
        q: (n_head_kv, group, size): heads in groups that share keys and values.
        k: (n, n_head_kv, size).
        v: (n, n_head_kv, value size).
        scale: What products are multiplied with.
        soft_cap_: Of the products; 0 for none.
        bias: What is added to products, (n_head_kv, group or 1, n).
        sinks: (n_head,), or None.

    Returns:
        (n_head_kv, group, value size).
    """
    products = np.matmul(q, k.transpose(1, 2, 0))
    if soft_cap_:
        products = soft_cap(products * np.float32(scale), soft_cap_)
    else:
        products = products * np.float32(scale)
    products = products + bias
    top = products.max(axis=-1, keepdims=True)
    if sinks is not None:
        sink = sinks.reshape(*q.shape[:2], 1)
        top = np.maximum(top, sink)
    e = np.exp(products - top)
    total = e.sum(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
    if sinks is not None:
        total = total + np.exp(sink - top)
    return np.matmul(e / total, v.transpose(1, 0, 2))
