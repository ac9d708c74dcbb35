"""Which type each tensor gets, and why: llama-quantize's choices as pure functions.

They take names, shapes, facts of the model and options; no file is touched.  The results are those
of `llama_tensor_get_type` in
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp.

The order of the questions, for one tensor:

1. May it be quantized at all?  (`kquant.policy.roles.kept_because`)
2. Do `token_embedding_type` or `output_tensor_type` apply to it?
3. Is the file type F32, F16 or BF16?  Then that.
4. Does a pattern of `tensor_types` match its name?  The first that does decides.
5. `pure`?  Then the default type of the file type.
6. The rules of its role, by its position among the tensors of that role.  (`kquant.policy.mixtures`)
7. After 4 to 6: does the type fit the row length?  If not, one with smaller blocks, or F16.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from kquant.errors import ShapeError
from kquant.policy.mixtures import RULES, Place
from kquant.policy.model_facts import ModelFacts
from kquant.policy.roles import Role, is_token_embedding, kept_because, layer_of, role_of
from kquant.types import FileType, TensorType

__all__ = ["Decision", "PolicyOptions", "TensorFacts", "decide", "needs_imatrix"]

_T = TensorType

_SUBSTITUTES: Final = {
    **dict.fromkeys((_T.Q2_K, _T.Q3_K, _T.Q2_0, _T.TQ1_0, _T.TQ2_0), _T.Q4_0),
    _T.Q4_K: _T.Q5_0,
    _T.Q5_K: _T.Q5_1,
    _T.Q6_K: _T.Q8_0,
    **dict.fromkeys((_T.IQ1_S, _T.IQ1_M, _T.IQ2_XXS, _T.IQ2_XS, _T.IQ2_S), _T.IQ4_NL),
    **dict.fromkeys((_T.IQ3_XXS, _T.IQ3_S, _T.IQ4_XS), _T.IQ4_NL),
}
"""A type whose block size does not divide a row -> one with smaller blocks and no fewer bits."""

_NEED_IMATRIX: Final = {_T.IQ1_S, _T.IQ1_M, _T.IQ2_XXS, _T.IQ2_XS, _T.IQ2_S, _T.IQ3_XXS}

_AT_LEAST_Q8_0: Final = {"glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj")}


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """What the rules need to know of a tensor."""

    name: str
    shape: tuple[int, ...]
    """NumPy order: the row length comes last."""
    type: TensorType

    @property
    def n_per_row(self) -> int:
        """Elements in one row."""
        return self.shape[-1] if self.shape else 1

    @property
    def n_dims(self) -> int:
        """Dimensions as ggml counts them: ones in front (GGUF's trailing ones) do not count."""
        return next((len(self.shape) - i for i, n in enumerate(self.shape) if n != 1), 1)


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """What a user asks for, as far as it concerns types."""

    file_type: FileType
    pure: bool = False
    leave_output_tensor: bool = False
    output_tensor_type: TensorType | None = None
    token_embedding_type: TensorType | None = None
    tensor_types: tuple[tuple[re.Pattern[str], TensorType], ...] = ()
    has_imatrix: bool = False


class Decision(NamedTuple):
    """The type that a tensor gets, and why."""

    type: TensorType
    reason: str
    fallback_from: TensorType | None = None
    """The type that the rules wanted, where its block size does not divide the row length."""
    quantize: bool = True
    """Whether the file type concerns this tensor at all; if not, it is copied."""


def decide(tensors: Sequence[TensorFacts], facts: ModelFacts, options: PolicyOptions) -> list[Decision]:
    """The type of every tensor; `tensors` come in the order of `kquant.policy.roles.processing_order`.

    Positions matter: the attn_v of the first layers is treated differently from the others.  As
    upstream, tensors whose type the user names are not counted, so naming some shifts the mixture.

    Raises `ShapeError` where a row length fits neither the type that the user asked for nor any
    substitute.

    >>> tensors = [TensorFacts("output.weight", (32000, 4096), TensorType.F16),
    ...            TensorFacts("blk.0.attn_v.weight", (4096, 4096), TensorType.F16),
    ...            TensorFacts("blk.0.ffn_norm.weight", (4096,), TensorType.F32)]
    >>> for decision in decide(tensors, ModelFacts("llama", 32), PolicyOptions(FileType.Q4_K_S)):
    ...     print(decision.type.name, "-", decision.reason)
    Q6_K - the output tensor
    Q5_K - attn_v of the first four layers
    F32 - kept: one-dimensional
    """
    default = options.file_type.default_type
    if default is None:
        return [Decision(tensor.type, "kept: only copied", quantize=False) for tensor in tensors]
    roles = [role_of(tensor.name) for tensor in tensors]
    n_layers = {Role.ATTENTION_V: roles.count(Role.ATTENTION_V)}
    if Role.OUTPUT not in roles:  # the embeddings serve as the output tensor
        roles = [Role.OUTPUT if role is Role.TOKEN_EMBD else role for role in roles]

    counted: Counter[Role] = Counter()
    decisions = []
    for tensor, role in zip(tensors, roles, strict=True):
        decision = _settled(tensor, default, facts, options)
        if decision is None:
            layer = _layer(tensor.name, counted[role], facts)
            place = Place(layer, n_layers.get(role, facts.n_layer), facts, options.has_imatrix)
            decision = _fit(_by_rules(tensor, role, place, default, options), tensor)
            counted[role] += 1
        decisions.append(decision)
    return decisions


def needs_imatrix(name: str, type: TensorType, file_type: FileType) -> bool:
    """Whether llama-quantize refuses to convert that tensor to `type` without importance weights.

    >>> needs_imatrix("blk.0.attn_k.weight", TensorType.Q2_K, FileType.Q2_K_S)
    True
    >>> needs_imatrix("blk.0.attn_k.weight", TensorType.Q2_K, FileType.Q2_K)
    False
    """
    if is_token_embedding(name) or role_of(name) is Role.OUTPUT:
        return False
    return type in _NEED_IMATRIX or (type is _T.Q2_K and file_type is FileType.Q2_K_S)


def _settled(
    tensor: TensorFacts, default: TensorType, facts: ModelFacts, options: PolicyOptions
) -> Decision | None:
    """The decision that needs no rules of a mixture; None if it needs them."""
    name, role = tensor.name, role_of(tensor.name)
    kept = kept_because(name, tensor.n_dims, facts.architecture)
    if role is Role.OUTPUT and options.leave_output_tensor:
        kept = "the output tensor, by option"
    if kept is not None:
        return Decision(tensor.type, f"kept: {kept}", quantize=False)

    pattern, named = next((item for item in options.tensor_types if item[0].search(name)), (None, default))
    # the table of embeddings per layer is large: for it a pattern takes precedence over the option
    per_layer = pattern is not None and name == "per_layer_token_embd.weight"
    if options.token_embedding_type is not None and role is Role.TOKEN_EMBD and not per_layer:
        return _as_asked(options.token_embedding_type, "token embeddings, by option", tensor)
    if options.output_tensor_type is not None and role is Role.OUTPUT:
        return _as_asked(options.output_tensor_type, "the output tensor, by option", tensor)
    if not default.is_quantized:
        return Decision(default, f"default of {options.file_type.name}")
    if pattern is not None:
        return _fit(Decision(named, f"named by the pattern {pattern.pattern!r}"), tensor)
    if options.pure:
        return _fit(Decision(default, f"pure {options.file_type.name}"), tensor)
    return None


def _layer(name: str, position: int, facts: ModelFacts) -> int:
    """The layer that the rules use: with experts, whose layers can have gaps, the one in the name."""
    layer = layer_of(name) if facts.n_expert > 1 and role_of(name) is Role.FFN_DOWN else None
    return position if layer is None else layer


def _by_rules(
    tensor: TensorFacts, role: Role, place: Place, default: TensorType, options: PolicyOptions
) -> Decision:
    architecture = place.facts.architecture
    if any(part in tensor.name for part in _AT_LEAST_Q8_0.get(architecture, ())):
        return Decision(_T.Q8_0, f"sensitive in {architecture}")
    if role is Role.OUTPUT:
        tied = role_of(tensor.name) is not Role.OUTPUT
        reason = "token embeddings that are the output tensor too" if tied else "the output tensor"
        if options.output_tensor_type is not None:
            return Decision(options.output_tensor_type, f"{reason}, by option")
        best = default is _T.Q8_0 or architecture == "falcon" or tensor.n_per_row % default.block_size
        return Decision(_T.Q8_0 if best else _T.Q6_K, reason)

    rule = next((rule for rule in RULES.get(role, ()) if rule.applies(options.file_type, place)), None)
    type, reason = (rule.type, rule.reason) if rule else (default, f"default of {options.file_type.name}")
    if place.facts.is_70b and role is Role.ATTENTION_V and type in (_T.Q3_K, _T.Q4_K):
        type, reason = _T.Q5_K, "attn_v of a 70B model is small"
    return Decision(type, reason)


def _fit(decision: Decision, tensor: TensorFacts) -> Decision:
    """The decision itself, or a fallback whose block size divides the row length."""
    wanted, n_per_row = decision.type, tensor.n_per_row
    if n_per_row % wanted.block_size == 0:
        return decision
    substitute = _SUBSTITUTES.get(wanted, wanted)
    if substitute.block_size > 32:
        raise _misfit(wanted, tensor, "and this type has no substitute")
    if n_per_row % substitute.block_size:
        substitute = _T.F16
    reason = (
        f"{decision.reason}; {wanted.name} needs rows of a multiple of {wanted.block_size}, not {n_per_row}"
    )
    return Decision(substitute, reason, fallback_from=wanted)


def _as_asked(type: TensorType, reason: str, tensor: TensorFacts) -> Decision:
    if tensor.n_per_row % type.block_size:
        raise _misfit(type, tensor, "and a type that an option names has no substitute")
    return Decision(type, reason)


def _misfit(type: TensorType, tensor: TensorFacts, why: str) -> ShapeError:
    return ShapeError(
        f"{tensor.name}: {type.name} expects rows of a multiple of {type.block_size} elements, "
        f"got {tensor.n_per_row}, {why}"
    )
