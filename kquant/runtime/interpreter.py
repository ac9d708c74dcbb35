"""Plays a program with NumPy and the products of packed weights, operation by operation.

Every row is computed as if it were alone, so that results do not depend on how a prompt is cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kquant.arrays.codec import execution_of
from kquant.arrays.tensor import QuantizedTensor
from kquant.errors import ModelError, NonFiniteError, OptionError
from kquant.formats import format_of, has_format
from kquant.kernels.execute import Execution
from kquant.kernels.language.dot import BlockDot
from kquant.models.operations import (
    Add,
    Apply,
    Attend,
    Clamp,
    Embed,
    Experts,
    Gate,
    Linear,
    Multiply,
    Normalize,
    Operation,
    Part,
    Program,
    Rotate,
    Scale,
    Select,
    SoftCap,
    Temper,
    Value,
    Weight,
)
from kquant.models.rope import Rope, angles
from kquant.parallel.pool import Pool
from kquant.products.rows import row_products
from kquant.runtime import functions
from kquant.runtime.cache import Cache
from kquant.runtime.compiled import Compiled
from kquant.runtime.routing import route
from kquant.runtime.watching import Watcher
from kquant.types import TensorType

__all__ = ["Interpreter"]

_Floats: TypeAlias = Any  # an array of float32; NumPy's operators are typed for float64
_Ints = npt.NDArray[np.intp]


class Interpreter:
    """A program with its weights.

    Args:
        program: Operations in their order.
        tensors: The packed weights, by name.
        pool: Threads for products.
        execution: "numba" or "numpy"; None for the default.
        watcher: Is told of every linear layer.

    Raises `ModelError` if a tensor of the program has a type that is none of weights.
    """

    def __init__(
        self,
        program: Program,
        tensors: Mapping[str, QuantizedTensor],
        pool: Pool | None = None,
        execution: Execution | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.program, self._pool = program, pool
        self._how = execution_of(execution)
        self._compiled = Compiled(pool) if self._how == "numba" else None
        self._source, self._watcher = tensors, watcher
        self.is_closed = False
        """Whether the weights are gone."""
        for name in sorted(set(_texts(program.operations)) & set(tensors)):
            if not _can_be_weights(found := tensors[name].type):
                raise ModelError(f"{name}: expected F32, F16, BF16 or packed weights, got {found.name}")
        self._packed: dict[str, QuantizedTensor] = {}
        self._small: dict[str, _Floats] = {}
        self._last_use = _last_uses(program)
        self._do: dict[type, Callable[..., Any]] = {
            Embed: self._embed,
            Normalize: self._normalize,
            Linear: self._linear,
            Part: lambda run, o: run[o.x][:, o.start : o.start + o.out.width],
            Rotate: self._rotate,
            Attend: self._attend,
            Temper: self._temper,
            Add: lambda run, o: run[o.x] + run[o.y],
            Multiply: lambda run, o: run[o.x] * run[o.y],
            Scale: self._scale,
            Apply: lambda run, o: functions.activate(o.activation, run[o.x]),
            Gate: self._gate,
            SoftCap: lambda run, o: functions.soft_cap(run[o.x], o.cap),
            Clamp: lambda run, o: np.clip(run[o.x], np.float32(-o.limit), np.float32(o.limit)),
            Select: lambda run, o: run[o.x][run.wanted],
            Experts: self._experts,
        }

    def run(
        self,
        tokens: _Ints,
        cache: Cache,
        wanted: _Ints | slice = slice(None),
        *,
        embeddings: bool = False,
    ) -> _Floats:
        """Logits, or what the last layer makes of the tokens, after those that are in the cache.

        Args:
            tokens: Shape (n,).
            cache: Keys and values of the tokens before; those of these are added.
            wanted: Which of the tokens logits are wanted of.
            embeddings: Give the last layer's values, not logits.

        Returns:
            float32 (wanted, n_vocab), or (wanted, n_embd).

        Raises `NonFiniteError` if they, or values on the way, are NaN or infinite, `ModelError` if the model
        has no logits, and `OptionError` if it is closed.
        """
        if self.is_closed:
            raise OptionError("expected an open model, got one that is closed")
        run = _Run(tokens, cache, wanted)
        result = self.program.embedding if embeddings else self.program.logits
        if result is None:
            raise ModelError("expected a model that has logits, got one that only makes embeddings")
        with np.errstate(all="ignore"):  # what is not finite is told of at the end
            for i, operation in enumerate(self.program.operations):
                made = self._do[type(operation)](run, operation)
                if isinstance(operation, Linear):
                    for value, array in zip(operation.outs, made, strict=True):
                        run.values[value.index] = array
                else:
                    run.values[operation.out.index] = made
                if result.index in run.values:
                    break
                for index in self._last_use[i]:
                    del run.values[index]
        found = run.values[result.index]
        if not np.isfinite(found).all():
            what = "embeddings" if embeddings else "logits"
            raise NonFiniteError(f"expected finite {what}, got NaN or infinity")
        cache.length += len(tokens)
        return found

    # ------------------------------------------------------------ weights

    def _tensor(self, name: str) -> QuantizedTensor:
        found = self._packed.get(name)
        if found is None:
            found = self._packed.setdefault(name, self._source[name])
        return found

    def _matrix(self, name: str) -> QuantizedTensor:
        """A tensor of two axes: a vector is one row."""
        found = self._tensor(name)
        return found if found.ndim > 1 else QuantizedTensor(found.data[None], found.type, name)

    def _values(self, name: str) -> _Floats:
        """A small tensor, unpacked."""
        found = self._small.get(name)
        if found is None:
            found = self._small.setdefault(name, self._tensor(name).numpy())
        return found

    # ------------------------------------------------------------ operations

    def _embed(self, run: _Run, o: Embed) -> _Floats:
        n = len(run.tokens)
        if o.by == "first":
            return np.repeat(self._tensor(o.tensor)[:1].numpy(), n, axis=0)
        rows = run.tokens if o.by == "token" else run.positions
        return self._tensor(o.tensor)[rows].numpy()

    def _normalize(self, run: _Run, o: Normalize) -> _Floats:
        weight = None if o.weight is None else self._values(o.weight)
        bias = None if o.bias is None else self._values(o.bias)
        if self._compiled is not None and weight is not None:
            found = self._compiled.normalize(run[o.x], o.kind, o.eps, o.heads, weight, bias)
            if found is not None:
                return found
        size = o.x.width // o.heads
        y = functions.normalize(run[o.x].reshape(-1, o.heads, size), o.kind, o.eps)
        if weight is not None:
            y = y * weight.reshape(1, -1, size)
        if bias is not None:
            y = y + bias.reshape(1, -1, size)
        return y.reshape(-1, o.x.width)

    def _linear(self, run: _Run, o: Linear) -> list[_Floats]:
        x = np.ascontiguousarray(run[o.x])
        if self._watcher is not None:
            for weight in o.weights:
                self._watcher(weight.matrix, x, None)
        made = self._products(x, [self._matrix(weight.matrix) for weight in o.weights])
        return [self._finished(y, weight) for y, weight in zip(made, o.weights, strict=True)]

    def _finished(self, y: _Floats, weight: Weight) -> _Floats:
        bias = None if weight.bias is None else self._values(weight.bias)
        if bias is not None and weight.bias_first:
            y = y + bias
        if weight.scale is not None:
            y = y * self._values(weight.scale)[0]
        return y if bias is None or weight.bias_first else y + bias

    def _products(self, x: _Floats, weights: list[QuantizedTensor]) -> list[_Floats]:
        """Rows of x times rows of each weight."""
        found: list[_Floats | None] = [None] * len(weights)
        packed = [i for i, w in enumerate(weights) if w.type.block_size > 1]
        if packed:
            try:
                products = row_products([weights[i] for i in packed], x, self._pool, self._how)
            except NonFiniteError:
                name = weights[packed[0]].name
                raise NonFiniteError(f"{name}: expected a finite input, got NaN or infinity") from None
            for i, y in zip(packed, products, strict=True):
                found[i] = y
        for i, w in enumerate(weights):
            if found[i] is None:
                found[i] = self._number_products(x, w)
        return [y for y in found if y is not None]

    def _number_products(self, x: _Floats, w: QuantizedTensor) -> _Floats:
        """Column by column where BLAS multiplies, which sums several in another order than one."""
        if self._compiled is not None:
            found = self._compiled.products(x, w)
            if found is not None:
                return found
        values, out = w.numpy(), np.empty((len(x), w.shape[0]), np.float32)
        for i, row in enumerate(x):
            np.matmul(values, row, out=out[i])
        return out

    def _rotate(self, run: _Run, o: Rotate) -> _Floats:
        factors = None if o.rope.factors is None else self._values(o.rope.factors)
        table = run.angles.get(o.rope)
        if table is None:
            table = run.angles[o.rope] = angles(o.rope, run.positions.astype(np.int32), factors)
        size = o.x.width // o.heads
        rotated = functions.rotate(run[o.x].reshape(-1, o.heads, size), table, o.rope)
        return rotated.reshape(-1, o.x.width)

    def _gate(self, run: _Run, o: Gate) -> _Floats:
        gate, up = run[o.gate], run[o.up]
        if self._compiled is not None and o.activation == "silu":
            found = self._compiled.silu_gate(gate, up)
            if found is not None:
                return found
        return functions.gated(o.activation, gate, up)

    def _attend(self, run: _Run, o: Attend) -> _Floats:
        cache, first = run.cache, run.cache.length
        cache.put(o.layer, first, run[o.k], run[o.v])
        starts, ends = run.seen(o.window, o.is_chunked, o.is_causal)
        sinks = None if o.sinks is None else self._values(o.sinks)
        if self._compiled is not None:
            found = self._compiled.attend(run[o.q], cache, o, starts, ends, sinks)
            if found is not None:
                return found
        begin, last = int(starts.min()), int(ends.max())
        k = cache.keys(o.layer, begin, last).reshape(last - begin, o.n_head_kv, -1)
        v = cache.values(o.layer, begin, last).reshape(last - begin, o.n_head_kv, -1)
        q = run[o.q].reshape(-1, o.n_head_kv, o.n_head // o.n_head_kv, k.shape[2])
        slopes = functions.alibi_slopes(o.n_head, o.max_alibi_bias).reshape(o.n_head_kv, -1, 1)
        out = np.empty((len(q), o.out.width), np.float32)
        for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            some = slice(start - begin, end - begin)
            distances = np.abs(np.arange(start, end, dtype=np.float32) - np.float32(first + i))
            out[i] = functions.attend(
                q[i], k[some], v[some], o.scale, o.soft_cap, slopes * -distances, sinks
            ).ravel()
        return out

    def _temper(self, run: _Run, o: Temper) -> _Floats:
        steps = np.floor((run.positions + o.offset) / o.length)
        return run[o.x] * (1 + o.scale * np.log1p(steps)).astype(np.float32)[:, None]

    def _scale(self, run: _Run, o: Scale) -> _Floats:
        factor = self._values(o.factor) if isinstance(o.factor, str) else np.float32(o.factor)
        return run[o.x] / factor if o.is_reciprocal else run[o.x] * factor

    def _experts(self, run: _Run, o: Experts) -> _Floats:
        x, r = run[o.x], o.routing
        bias = None if r.selection_bias is None else self._values(r.selection_bias)
        chosen, weights = route(run[o.logits], r, bias)
        made = np.empty((*chosen.shape, o.out.width), np.float32)
        for expert in np.unique(chosen):
            rows, places = np.nonzero(chosen == expert)
            given = np.ascontiguousarray(x[rows])
            if r.weighs_input:
                given = given * weights[rows, places, None]
            made[rows, places] = self._expert(int(expert), given, o)
        if not r.weighs_input:
            made *= weights[..., None]
        out = made[:, 0]
        for i in range(1, chosen.shape[1]):
            out = out + made[:, i]
        return out

    def _expert(self, expert: int, x: _Floats, o: Experts) -> _Floats:
        inputs = [weight for weight in (o.gate, o.up) if weight is not None]
        made = self._expert_products(expert, x, inputs)
        if o.is_fused:
            n_ff = made[0].shape[1] // 2
            made = [made[0][:, :n_ff], made[0][:, n_ff:]]
        if len(made) == 2:
            hidden = functions.gated(o.activation, made[0], made[1])
        else:
            hidden = functions.activate(o.activation, made[0])
        return self._expert_products(expert, np.ascontiguousarray(hidden), [o.down])[0]

    def _expert_products(self, expert: int, x: _Floats, weights: list[Weight]) -> list[_Floats]:
        if self._watcher is not None:
            for weight in weights:
                self._watcher(weight.matrix, x, expert)
        made = self._products(x, [self._tensor(weight.matrix)[expert] for weight in weights])
        for i, weight in enumerate(weights):
            if weight.scale is not None:
                scale = self._values(weight.scale)
                made[i] = made[i] * scale[expert if len(scale) > 1 else 0]
            if weight.bias is not None:
                made[i] = made[i] + self._values(weight.bias)[expert]
        return made


class _Run:
    """What there is while a program is played once."""

    def __init__(self, tokens: _Ints, cache: Cache, wanted: _Ints | slice) -> None:
        self.tokens, self.cache, self.wanted = tokens, cache, wanted
        self.positions = np.arange(cache.length, cache.length + len(tokens))
        self.values: dict[int, _Floats] = {}
        self.angles: dict[Rope, _Floats] = {}
        self._seen: dict[tuple[int, bool, bool], tuple[_Ints, _Ints]] = {}

    def seen(self, window: int, is_chunked: bool, is_causal: bool) -> tuple[_Ints, _Ints]:
        """From which position on, and up to which one, each token sees others: int64 (n,) both."""
        found = self._seen.get((window, is_chunked, is_causal))
        if found is None:
            positions = self.positions
            ends = positions + 1 if is_causal else np.full_like(positions, positions[-1] + 1)
            starts = np.zeros_like(positions)
            if is_chunked:
                starts = positions // window * window
            elif window:
                starts = np.maximum(positions - window + 1, 0)
            found = self._seen[window, is_chunked, is_causal] = starts, ends
        return found

    def __getitem__(self, value: Value) -> _Floats:
        return self.values[value.index]


def _texts(value: object) -> Iterator[str]:
    """All strings in a structure: the names of tensors, among others."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _texts(item)
    elif is_dataclass(value):
        yield from _texts(tuple(vars(value).values()))


def _can_be_weights(tensor_type: TensorType) -> bool:
    if not has_format(tensor_type):
        return False
    return tensor_type.block_size == 1 or isinstance(format_of(tensor_type).dot, BlockDot)


def _inputs(operation: Operation) -> list[int]:
    return [
        value.index for name, value in vars(operation).items() if isinstance(value, Value) and name != "out"
    ]


def _last_uses(program: Program) -> list[list[int]]:
    """For each operation the values that none after it needs."""
    last: dict[int, int] = {}
    for i, operation in enumerate(program.operations):
        outs = operation.outs if isinstance(operation, Linear) else (operation.out,)
        for index in [*_inputs(operation), *(value.index for value in outs)]:
            last[index] = i
    kept = {program.embedding.index} | ({program.logits.index} if program.logits else set())
    found: list[list[int]] = [[] for _ in program.operations]
    for index, i in last.items():
        if index not in kept:
            found[i].append(index)
    return found
