"""The operations of a forward pass that are compiled, where their shapes allow it."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from kquant.arrays.tensor import QuantizedTensor
from kquant.kernels import forward
from kquant.kernels.forward import LANES
from kquant.models.operations import Attend
from kquant.parallel.pool import Pool, default_pool
from kquant.runtime.cache import Cache
from kquant.runtime.functions import alibi_slopes

__all__ = ["Compiled"]

SECONDS_PER_PRODUCT = 5e-11
"""Of two elements, and adding it."""
NONE = np.zeros(0, np.float32)
NO_BIAS = np.zeros((0, 0), np.float32)

_Floats: TypeAlias = Any


class Compiled:
    """Each method returns None if the shapes are not those that kernels are compiled for."""

    def __init__(self, pool: Pool | None) -> None:
        self._pool = pool

    def normalize(
        self, x: _Floats, kind: str, eps: float, heads: int, weight: _Floats, bias: _Floats | None
    ) -> _Floats | None:
        """Rows (n, width) of `heads` parts each; weight and bias (1 or heads, width / heads)."""
        size = x.shape[1] // heads
        if size % LANES:
            return None
        parts = np.ascontiguousarray(x).reshape(-1, size)
        out = np.empty(parts.shape, np.float32)
        weights = weight.reshape(-1, size)
        biases = NO_BIAS if bias is None else bias.reshape(-1, size)
        forward.normalize(kind == "layer")(parts, eps, weights, biases, out)
        return out.reshape(x.shape)

    def silu_gate(self, gate: _Floats, up: _Floats) -> _Floats | None:
        """silu(gate) * up."""
        if gate.shape[1] % LANES:
            return None
        out = np.empty(gate.shape, np.float32)
        forward.silu_gate()(np.ascontiguousarray(gate), np.ascontiguousarray(up), out)
        return out

    def products(self, x: _Floats, w: QuantizedTensor) -> _Floats | None:
        """Rows of x times rows of a weight (m, width) of numbers, each with each as if it were alone."""
        if x.shape[1] % LANES or w.type.name not in forward.NUMBERS:
            return None
        rows = w.data.view("<f4" if w.type.name == "F32" else "<u2")
        kernel, out = forward.multiply(w.type.name), np.empty((len(x), len(rows)), np.float32)
        seconds = rows.size * len(x) * SECONDS_PER_PRODUCT
        step = max(4, len(rows) // 64 // 4 * 4)
        (self._pool or default_pool()).run(
            lambda first, last: kernel(rows, x, first, last, out),
            len(rows),
            step,
            most=len(rows),
            seconds=seconds,
        )
        return out

    def attend(
        self, q: _Floats, cache: Cache, o: Attend, starts: Any, ends: Any, sinks: _Floats | None
    ) -> _Floats | None:
        """All heads of all tokens; starts and ends, int64 (n,): the positions that each token sees."""
        size, value_size = o.q.width // o.n_head, o.out.width // o.n_head
        if size % LANES or value_size % LANES:
            return None
        begin, last, position = int(starts.min()), int(ends.max()), cache.length
        names = [t.name for t in cache.types]
        if names in (["F16", "F16"], ["F32", "F32"]):
            half = names[0] == "F16"
            k, v = (rows.view("<u2" if half else "<f4") for rows in cache.stored(o.layer, last))
            begin = 0
        else:
            half, k, v = False, cache.keys(o.layer, begin, last), cache.values(o.layer, begin, last)
        kernel, n = forward.attend(half), len(q)
        out = np.empty((n, o.out.width), np.float32)
        slopes = alibi_slopes(o.n_head, o.max_alibi_bias)
        rest = (
            o.n_head // o.n_head_kv, size, value_size, o.scale, o.soft_cap, slopes, position - begin,
            NONE if sinks is None else sinks, out,
        )  # fmt: skip
        given = np.ascontiguousarray(q), k, v, starts - begin, ends - begin

        def slab(first: int, end: int) -> None:
            kernel(*given, first, end, *rest)

        units = n * o.n_head
        seconds = float((ends - starts).sum()) * o.n_head * (size + value_size) * SECONDS_PER_PRODUCT
        (self._pool or default_pool()).run(slab, units, 1, most=units, seconds=seconds)
        return out
