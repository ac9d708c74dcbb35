"""The mixtures of llama-quantize as a table: for each role the few rules that depart from the default type.

How to read it: in a Q4_K_M file, the attn_v of a layer that "gets more bits" is Q6_K.  A layer gets more
bits if it is among the first or the last eighth, or every third in between.  Sensitive tensors and
tensors that are small compared with the rest get more bits; Falcon's are less sensitive.

Facts from `llama_tensor_get_type_impl` in
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from kquant.policy.model_facts import ModelFacts
from kquant.policy.roles import Role
from kquant.types import FileType, TensorType

__all__ = ["RULES", "Condition", "Place", "Rule"]


class Place(NamedTuple):
    """Where a tensor stands among those of its role, in which model."""

    layer: int
    n_layers: int
    facts: ModelFacts
    has_imatrix: bool = False


Condition = Callable[[Place], bool]


class Rule(NamedTuple):
    """For tensors of one role, in files of some types: this type, if all conditions hold."""

    file_types: frozenset[FileType]
    type: TensorType
    reason: str
    conditions: tuple[Condition, ...] = ()

    def applies(self, file_type: FileType, place: Place) -> bool:
        """Whether the rule applies to that file type and that place."""
        return file_type in self.file_types and all(holds(place) for holds in self.conditions)


def _rule(file_types: str, type_name: str, reason: str, *conditions: Condition) -> Rule:
    names = file_types.split()
    types = frozenset(FileType) if names == ["*"] else frozenset(FileType[name] for name in names)
    return Rule(types, TensorType[type_name], reason, conditions)


def _first(n: int) -> Condition:
    return lambda place: place.layer < n


def _first_part(divisor: int) -> Condition:
    return lambda place: place.layer < place.n_layers // divisor


def _more_bits(place: Place) -> bool:
    layer, eighth = place.layer, place.n_layers // 8
    return layer < eighth or layer >= 7 * place.n_layers // 8 or (layer - eighth) % 3 == 2


def _shared_by_4_heads(place: Place) -> bool:
    return place.facts.n_gqa >= 4


def _8_experts(place: Place) -> bool:
    return place.facts.n_expert == 8


def _falcon(place: Place) -> bool:
    return place.facts.architecture == "falcon"


def _not_falcon(place: Place) -> bool:
    return not _falcon(place)


def _not_8_experts(place: Place) -> bool:
    return not _8_experts(place)


def _with_imatrix(place: Place) -> bool:
    return place.has_imatrix


_EXPERTS: Final = "attention is a small part of a model with 8 experts"

# fmt: off
RULES: Final[Mapping[Role, tuple[Rule, ...]]] = {
    Role.ATTENTION_V: (
        _rule("*", "Q8_0", _EXPERTS, _8_experts),
        _rule("Q2_K Q2_K_S", "Q4_K", "attn_v is small where 4 or more heads share it", _shared_by_4_heads),
        _rule("Q2_K", "Q3_K", "attn_v is sensitive"),
        _rule("Q3_K_M", "Q5_K", "attn_v of the first two layers", _first(2)),
        _rule("Q3_K_M", "Q4_K", "attn_v is sensitive"),
        _rule("Q3_K_L", "Q5_K", "attn_v is sensitive"),
        _rule("Q4_K_M Q5_K_M", "Q6_K", "attn_v in a layer that gets more bits", _more_bits),
        _rule("Q4_K_S", "Q5_K", "attn_v of the first four layers", _first(4)),
    ),
    Role.ATTENTION_K: (
        _rule("*", "Q8_0", _EXPERTS, _8_experts),
    ),
    Role.ATTENTION_OUTPUT: (
        _rule("Q3_K_L", "Q4_K", "attn_output of Falcon", _falcon),
        _rule("Q2_K Q3_K_S Q3_K_M Q4_K_S Q4_K_M", "Q5_K", _EXPERTS, _8_experts, _not_falcon),
        _rule("Q2_K", "Q3_K", "attn_output is sensitive", _not_falcon),
        _rule("Q3_K_M", "Q4_K", "attn_output is sensitive", _not_falcon),
        _rule("Q3_K_L", "Q5_K", "attn_output is sensitive", _not_8_experts),
    ),
    Role.FFN_DOWN: (
        _rule("Q2_K", "Q3_K", "ffn_down is sensitive"),
        _rule("Q2_K_S", "Q4_K", "ffn_down of the first eighth of the layers", _first_part(8)),
        _rule("Q3_K_M", "Q5_K", "ffn_down of the first sixteenth of the layers", _first_part(16)),
        _rule("Q3_K_M", "Q4_K", "ffn_down is sensitive", _not_falcon),
        _rule("Q3_K_M", "Q4_K", "ffn_down of Falcon in a layer that gets more bits", _more_bits),
        _rule("Q3_K_L", "Q4_K", "ffn_down of Falcon", _falcon),
        _rule("Q3_K_L", "Q5_K", "ffn_down is sensitive"),
        _rule("Q4_K_M", "Q6_K", "ffn_down of Falcon, first sixteenth", _falcon, _first_part(16)),
        _rule("Q4_K_M", "Q5_K", "ffn_down of Falcon in a layer that gets more bits", _falcon, _more_bits),
        _rule("Q4_K_M", "Q6_K", "ffn_down in a layer that gets more bits", _not_falcon, _more_bits),
        _rule("Q5_K_M", "Q6_K", "ffn_down in a layer that gets more bits", _more_bits),
        _rule("Q4_K_S", "Q5_K", "ffn_down of the first eighth of the layers", _not_falcon, _first_part(8)),
        # protects against outliers; only with weights, since Q4_1 and Q5_1 can be worse without them
        _rule("Q4_0", "Q4_1", "ffn_down of the first eighth of the layers", _with_imatrix, _first_part(8)),
        _rule("Q5_0", "Q5_1", "ffn_down of the first eighth of the layers", _with_imatrix, _first_part(8)),
    ),
}
# fmt: on
"""For each role the rules in order: the first that applies decides; if none does, the default type stays."""
