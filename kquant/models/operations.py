"""The operations that a program consists of, and the values that they pass on.

A value is float32 (n_tokens, width).  Tensors are named as in the file.  The methods of
`kquant.models.graph.Graph`, which record operations, tell what each computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from kquant.models.rope import Rope

__all__ = [
    "Activation",
    "Add",
    "Apply",
    "Attend",
    "Clamp",
    "Embed",
    "Experts",
    "Gate",
    "Linear",
    "Multiply",
    "Normalize",
    "Operation",
    "Part",
    "Program",
    "Rotate",
    "Routing",
    "Scale",
    "Select",
    "SoftCap",
    "Temper",
    "Value",
    "Weight",
]

Activation: TypeAlias = Literal["silu", "gelu", "gelu_erf", "relu", "relu_squared", "tanh", "sigmoid", "oai"]
"""`gelu` is the approximation with tanh, as ggml has it in F16; `oai` is gpt-oss's swish, which clamps both
operands of a gate."""


@dataclass(frozen=True)
class Value:
    """float32 (n_tokens, width), by its number in the program."""

    index: int
    width: int


@dataclass(frozen=True)
class Weight:
    """A matrix of a linear layer, and what is added to and multiplied with its products."""

    matrix: str
    """Shape (n_out, n_in), or (n_expert, n_out, n_in); (n_in,) is one row."""
    bias: str | None = None
    """(n_out,), or (n_expert, n_out)."""
    scale: str | None = None
    """One number, or one an expert."""
    bias_first: bool = False
    """Whether the bias is added before the scale multiplies."""


@dataclass(frozen=True)
class Embed:
    """Rows of a tensor: by token, by position, or always the same one."""

    tensor: str
    by: Literal["token", "position", "first"]
    out: Value


@dataclass(frozen=True)
class Normalize:
    """Each of `heads` parts of a row, divided by its root mean square."""

    x: Value
    kind: Literal["rms", "layer"]
    weight: str | None
    """(width / heads,), or (width,), a part for each head."""
    bias: str | None
    eps: float
    heads: int
    """Parts of a row that are normalized by themselves."""
    out: Value


@dataclass(frozen=True)
class Linear:
    """One or several layers with the same input."""

    x: Value
    weights: tuple[Weight, ...]
    outs: tuple[Value, ...]


@dataclass(frozen=True)
class Part:
    """Some elements of each row."""

    x: Value
    start: int
    out: Value


@dataclass(frozen=True)
class Rotate:
    """Rotary position embedding of each head."""

    x: Value
    heads: int
    rope: Rope
    out: Value


@dataclass(frozen=True)
class Attend:
    """Keys and values to the cache, and the attention of each head."""

    q: Value
    k: Value
    v: Value
    layer: int
    n_head: int
    n_head_kv: int
    scale: float
    window: int
    """Tokens that a token sees, itself among them; 0 for all."""
    is_chunked: bool
    """Whether tokens see only those of their own chunk of `window` tokens."""
    soft_cap: float
    max_alibi_bias: float
    sinks: str | None
    """(n_head,): what takes part in the softmax, and adds nothing."""
    is_causal: bool
    out: Value


@dataclass(frozen=True)
class Temper:
    """What grows with the position, in steps of `length` tokens."""

    x: Value
    scale: float
    length: int
    offset: float
    out: Value


@dataclass(frozen=True)
class Add:
    """x + y."""

    x: Value
    y: Value
    out: Value


@dataclass(frozen=True)
class Multiply:
    """x * y."""

    x: Value
    y: Value
    """As wide as x, or one number a token."""
    out: Value


@dataclass(frozen=True)
class Scale:
    """x times, or divided by, a factor."""

    x: Value
    factor: float | str
    """A number, or a tensor (width,)."""
    is_reciprocal: bool
    out: Value


@dataclass(frozen=True)
class Apply:
    """An activation function of each element."""

    x: Value
    activation: Activation
    out: Value


@dataclass(frozen=True)
class Gate:
    """activation(gate) * up."""

    gate: Value
    up: Value
    activation: Activation
    out: Value


@dataclass(frozen=True)
class SoftCap:
    """cap * tanh(x / cap)."""

    x: Value
    cap: float
    out: Value


@dataclass(frozen=True)
class Clamp:
    """Elements between -limit and limit."""

    x: Value
    limit: float
    out: Value


@dataclass(frozen=True)
class Select:
    """The tokens of which logits are wanted."""

    x: Value
    out: Value


@dataclass(frozen=True)
class Routing:
    """How the experts of a token are chosen and weighted."""

    n_used: int
    gating: Literal["softmax", "sigmoid", "softmax_of_chosen"]
    is_normalized: bool = False
    """Whether the weights of a token's experts are divided by their sum."""
    factor: float = 1.0
    selection_bias: str | None = None
    """(n_expert,): added to probabilities for the choice alone."""
    n_groups: int = 1
    n_groups_used: int = 1
    by_logits: bool = False
    """Whether experts are chosen by logits, whatever makes the weights."""
    weighs_input: bool = False
    """Whether weights multiply what experts are given, not what they return."""


@dataclass(frozen=True)
class Experts:
    """The experts that each token is sent to, weighted and summed."""

    x: Value
    logits: Value
    """(n_tokens, n_expert)."""
    routing: Routing
    gate: Weight | None
    up: Weight
    """Without a gate of its own and with `is_fused`, gate and up side by side."""
    down: Weight
    activation: Activation
    is_fused: bool
    out: Value


Operation: TypeAlias = (
    Embed
    | Normalize
    | Linear
    | Part
    | Rotate
    | Attend
    | Temper
    | Add
    | Multiply
    | Scale
    | Apply
    | Gate
    | SoftCap
    | Clamp
    | Select
    | Experts
)


@dataclass(frozen=True)
class Program:
    """A forward pass: operations in their order."""

    operations: tuple[Operation, ...]
    n_values: int
    embedding: Value
    """What the last layer makes of each token: after the last norm."""
    logits: Value | None
    """None for models that only embed."""

    @property
    def is_causal(self) -> bool:
        """Whether no token sees those after it, so that a text can be read piece by piece."""
        return all(o.is_causal for o in self.operations if isinstance(o, Attend))
