"""What the graph of an architecture may say: each method records an operation and returns its value.

An architecture is a function of a `Graph`; see `kquant.models.architectures`.  Shapes of tensors are checked
while it is recorded, before any work starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from kquant.errors import ModelError
from kquant.models.hyperparameters import Hyperparameters
from kquant.models.operations import (
    Activation,
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
    Routing,
    Scale,
    Select,
    SoftCap,
    Temper,
    Value,
    Weight,
)
from kquant.models.rope import Rope

__all__ = ["Graph"]


class Graph:
    """Records operations on rows of float32, one row a token.

    Args:
        hyperparameters: Of the model.
        shapes: Of the tensors of the file, by name, the last axis the one whose elements lie side by side.
        context: Tokens for which the model will be used.
    """

    def __init__(
        self, hyperparameters: Hyperparameters, shapes: Mapping[str, tuple[int, ...]], context: int
    ) -> None:
        self.h = hyperparameters
        self.context = context
        self._shapes = shapes
        self._operations: list[Operation] = []
        self._n_values = 0

    # ------------------------------------------------------------ inputs

    def embed(self, name: str = "token_embd") -> Value:
        """The rows of a tensor (n_vocab, width) for the tokens."""
        shape = self._shape(f"{name}.weight", (self.h.n_vocab, None))
        return self._record(Embed(f"{name}.weight", "token", self._value(shape[1])))

    def embed_positions(self, name: str = "position_embd") -> Value:
        """The rows of a tensor (n_positions, n_embd) for the positions."""
        rows, width = self._shape(f"{name}.weight", (None, self.h.n_embd))
        if rows < self.context:
            raise ModelError(f"{name}.weight: expected rows for a context of {self.context}, got {rows}")
        return self._record(Embed(f"{name}.weight", "position", self._value(width)))

    def embed_first(self, name: str) -> Value:
        """The first row of a tensor (..., n_embd), for every token."""
        _, width = self._shape(f"{name}.weight", (None, self.h.n_embd))
        return self._record(Embed(f"{name}.weight", "first", self._value(width)))

    # ------------------------------------------------------------ layers

    def rms_norm(self, x: Value, name: str | None, *, heads: int = 1, eps: float | None = None) -> Value:
        """x / sqrt(mean(x²) + eps) times NAME.weight; each of `heads` parts of a row by itself."""
        return self._norm(x, "rms", name, heads, self.h.rms_epsilon if eps is None else eps)

    def layer_norm(self, x: Value, name: str | None, *, heads: int = 1, eps: float | None = None) -> Value:
        """(x - mean(x)) / sqrt(variance(x) + eps) times NAME.weight plus NAME.bias, if there is one."""
        return self._norm(x, "layer", name, heads, self.h.layer_epsilon if eps is None else eps)

    def _norm(
        self, x: Value, kind: Literal["rms", "layer"], name: str | None, heads: int, eps: float
    ) -> Value:
        weight = bias = None
        if name is not None:
            weight = f"{name}.weight"
            sizes = {x.width, x.width // heads}
            shape = self._shapes.get(weight, ())
            if shape == (heads, x.width // heads):  # a row for each head
                shape = (x.width,)
            if len(shape) != 1 or shape[0] not in sizes:
                self._shape(weight, (min(sizes),))
            bias = self._optional(f"{name}.bias", shape)
        return self._record(Normalize(x, kind, weight, bias, eps, heads, self._value(x.width)))

    def linear(
        self, x: Value, name: str, n_out: int | None = None, *, scaled: bool = True, bias_first: bool = False
    ) -> Value:
        """The rows of NAME.weight (n_out, width) times x, times NAME.scale, plus NAME.bias, if there.

        scaled: Whether a tensor NAME.scale is heeded.
        bias_first: The bias is added before the scale multiplies.
        """
        return self.linears(x, [name], [n_out], scaled=scaled, bias_first=bias_first)[0]

    def linears(
        self,
        x: Value,
        names: Sequence[str],
        n_outs: Sequence[int | None] = (),
        *,
        scaled: bool = True,
        bias_first: bool = False,
    ) -> tuple[Value, ...]:
        """Several linear layers with the same input: queries, keys and values; gate and up."""
        weights, outs = [], []
        for name, n_out in zip(names, n_outs or [None] * len(names), strict=True):
            is_vector = n_out == 1 and self._shapes.get(f"{name}.weight") == (x.width,)  # written so at times
            n_out = 1 if is_vector else self._shape(f"{name}.weight", (n_out, x.width))[0]
            bias = self._optional(f"{name}.bias", (n_out,))
            scale = self._optional(f"{name}.scale", (1,)) if scaled else None
            weights.append(Weight(f"{name}.weight", bias, scale, bias_first))
            outs.append(self._value(n_out))
        self._operations.append(Linear(x, tuple(weights), tuple(outs)))
        return tuple(outs)

    def experts(
        self,
        x: Value,
        prefix: str,
        routing: Routing,
        activation: Activation = "silu",
        *,
        logits: Value | None = None,
        gate: str | None = "ffn_gate_exps",
        up: str = "ffn_up_exps",
        down: str = "ffn_down_exps",
        scaled: bool = True,
    ) -> Value:
        """The experts that a token is sent to, weighted and summed.

        PREFIX.ffn_gate_inp.weight (n_expert, n_embd) makes the logits by which they are chosen; each has
        matrices of its own in the stacks PREFIX.ffn_up_exps and so on.  scaled: as for `linear`.
        """
        if logits is None:
            logits = self.linear(x, f"{prefix}.ffn_gate_inp", self.h.n_expert, scaled=False)
        n_expert = logits.width
        if not 0 < routing.n_used <= n_expert:
            raise ModelError(f"{prefix}: expected 1 to {n_expert} experts a token, got {routing.n_used}")
        if n_expert % routing.n_groups or not 0 < routing.n_groups_used <= routing.n_groups:
            raise ModelError(
                f"{prefix}: expected groups of {n_expert} experts, got {routing.n_groups_used} of "
                f"{routing.n_groups}"
            )
        if routing.selection_bias is not None:
            self._shape(routing.selection_bias, (n_expert,))
        fused = f"{prefix}.ffn_gate_up_exps"
        is_fused = f"{fused}.weight" in self._shapes
        up_weight, n_ff = self._stack(
            fused if is_fused else f"{prefix}.{up}", n_expert, x.width, scaled=scaled
        )
        gate_weight = None
        if gate is not None and not is_fused:
            gate_weight, _ = self._stack(f"{prefix}.{gate}", n_expert, x.width, n_ff, scaled=scaled)
        n_ff = n_ff // 2 if is_fused else n_ff
        down_weight, width = self._stack(f"{prefix}.{down}", n_expert, n_ff, scaled=scaled)
        out = self._value(width)
        return self._record(
            Experts(x, logits, routing, gate_weight, up_weight, down_weight, activation, is_fused, out)
        )

    def _stack(
        self, name: str, n_expert: int, n_in: int, n_out: int | None = None, *, scaled: bool
    ) -> tuple[Weight, int]:
        _, n_out, _ = self._shape(f"{name}.weight", (n_expert, n_out, n_in))
        bias, scale = self._optional(f"{name}.bias", (n_expert, n_out)), f"{name}.scale"
        shape = self._shapes.get(scale, (0,))
        if shape != (0,) and shape not in ((1,), (n_expert,)):
            self._shape(scale, (n_expert,))
        return Weight(f"{name}.weight", bias, scale if scaled and scale in self._shapes else None), n_out

    # ------------------------------------------------------------ attention

    def rotate(self, x: Value, heads: int, rope: Rope) -> Value:
        """Rotary position embedding of each head."""
        if rope.factors is not None:
            self._shape(rope.factors, (rope.n_dims // 2,))
        return self._record(Rotate(x, heads, rope, self._value(x.width)))

    def attend(
        self,
        q: Value,
        k: Value,
        v: Value,
        layer: int,
        *,
        scale: float | None = None,
        window: int = 0,
        is_chunked: bool = False,
        soft_cap: float = 0.0,
        max_alibi_bias: float = 0.0,
        sinks: str | None = None,
        is_causal: bool = True,
    ) -> Value:
        """Keys and values go to the cache; softmax(scale q k) v of each head, over all that it sees there."""
        n_head, n_head_kv = self.h.n_head(layer), self.h.n_head_kv(layer)
        if not n_head:
            raise ModelError(f"layer {layer}: expected heads of attention, got 0")
        for what, value, n in (("queries", q, n_head), ("keys", k, n_head_kv), ("values", v, n_head_kv)):
            if value.width % n:
                raise ModelError(f"layer {layer}: expected {what} for {n} heads, got {value.width} elements")
        if q.width // n_head != k.width // n_head_kv:
            raise ModelError(
                f"layer {layer}: expected queries and keys of one size, got {q.width // n_head} and "
                f"{k.width // n_head_kv}"
            )
        if sinks is not None:
            self._shape(sinks, (n_head,))
        out = self._value(v.width // n_head_kv * n_head)
        return self._record(
            Attend(
                q, k, v, layer, n_head, n_head_kv,
                scale=self.h.attention_scale if scale is None else scale,
                window=window, is_chunked=is_chunked, soft_cap=soft_cap, max_alibi_bias=max_alibi_bias,
                sinks=sinks, is_causal=is_causal, out=out,
            )
        )  # fmt: skip

    def temper(self, x: Value, scale: float, length: int, offset: float = 0.0) -> Value:
        """x * (1 + scale * log(1 + floor((position + offset) / length))); x if the scale is 0.

        For queries: makes attention sharper where there is much to see.
        """
        return self._record(Temper(x, scale, length, offset, self._value(x.width))) if scale else x

    # ------------------------------------------------------------ element by element

    def add(self, x: Value, y: Value) -> Value:
        """x + y."""
        return self._record(Add(x, y, self._value(x.width)))

    def multiply(self, x: Value, y: Value) -> Value:
        """x * y; y may have one element a token."""
        return self._record(Multiply(x, y, self._value(x.width)))

    def scale(self, x: Value, factor: float | str) -> Value:
        """x times a number, or times a tensor (width,), or (1,)."""
        if isinstance(factor, str) and self._shapes.get(factor) != (1,):
            self._shape(factor, (x.width,))
        elif factor == 1.0:
            return x
        return self._record(Scale(x, factor, False, self._value(x.width)))

    def divide(self, x: Value, divisor: str) -> Value:
        """x divided by a tensor (width,)."""
        self._shape(divisor, (x.width,))
        return self._record(Scale(x, divisor, True, self._value(x.width)))

    def apply(self, x: Value, activation: Activation) -> Value:
        """An activation function of each element."""
        return self._record(Apply(x, activation, self._value(x.width)))

    def gate(self, gate: Value, up: Value, activation: Activation = "silu") -> Value:
        """activation(gate) * up."""
        return self._record(Gate(gate, up, activation, self._value(up.width)))

    def soft_cap(self, x: Value, cap: float) -> Value:
        """cap * tanh(x / cap); x if the cap is 0."""
        return self._record(SoftCap(x, cap, self._value(x.width))) if cap else x

    def clamp(self, x: Value, limit: float) -> Value:
        """x between -limit and limit; x if the limit is 0."""
        return self._record(Clamp(x, limit, self._value(x.width))) if limit else x

    def split(self, x: Value, *widths: int) -> tuple[Value, ...]:
        """The parts of each row, side by side."""
        if sum(widths) != x.width:
            raise ModelError(f"expected {' + '.join(map(str, widths))} elements side by side, got {x.width}")
        outs, start = [], 0
        for width in widths:
            outs.append(self._record(Part(x, start, self._value(width))))
            start += width
        return tuple(outs)

    def select(self, x: Value) -> Value:
        """The tokens of which logits are wanted: what follows is done for these alone."""
        return self._record(Select(x, self._value(x.width)))

    # ------------------------------------------------------------ the record

    def has(self, name: str) -> bool:
        """Whether the file has a tensor."""
        return name in self._shapes

    def rows(self, name: str) -> int:
        """Those of a tensor; 0 if the file has none of the name."""
        return self._shapes.get(name, (0,))[0]

    def program(self, embedding: Value, logits: Value | None) -> Program:
        """All that was recorded."""
        return Program(tuple(self._operations), self._n_values, embedding, logits)

    def _value(self, width: int) -> Value:
        self._n_values += 1
        return Value(self._n_values - 1, width)

    def _record(self, operation: Operation) -> Value:
        self._operations.append(operation)
        assert not isinstance(operation, Linear)
        return operation.out

    def _optional(self, name: str, shape: tuple[int, ...]) -> str | None:
        if name not in self._shapes:
            return None
        self._shape(name, shape)
        return name

    def _shape(self, name: str, expected: tuple[int | None, ...]) -> tuple[int, ...]:
        """The shape of a tensor; None stands for any size.  Raises `ModelError`."""
        shape = self._shapes.get(name)
        sizes = ["any" if n is None else str(n) for n in expected]
        wanted = f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"
        if shape is None:
            raise ModelError(f"expected a tensor {name} of shape {wanted}, got a file without it")
        fits = len(shape) == len(expected) and all(
            n in (None, m) for n, m in zip(expected, shape, strict=True)
        )
        if not fits:
            raise ModelError(f"{name}: expected shape {wanted}, got {shape}")
        return shape
