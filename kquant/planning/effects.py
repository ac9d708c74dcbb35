"""Options that have no effect on a model, and a plan that converts nothing: a user should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from kquant.formats import format_of, has_format
from kquant.imatrix.reading import Imatrix
from kquant.planning.plan_types import PlanRow
from kquant.policy import PolicyOptions
from kquant.policy.roles import Role, role_of

__all__ = ["without_effect"]


def without_effect(
    rows: Sequence[PlanRow],
    policy: PolicyOptions,
    imatrix: Imatrix | None,
    *,
    imatrix_given: bool,
    include_weights: Sequence[str],
    exclude_weights: Sequence[str],
) -> Iterator[str]:
    """A sentence for each option of `kquant.plan` that changes nothing, and one if nothing is converted.

    `imatrix` holds the importance weights that the selection leaves, if any.
    """
    yield from _nothing_converted(rows, policy)
    yield from _types_by_option(rows, policy)
    for name, parts in (("include_weights", include_weights), ("exclude_weights", exclude_weights)):
        if parts and not imatrix_given:
            yield f"{name}: no effect without an importance matrix"
            continue
        for part in parts:
            if not any(part in row.source.name for row in rows):
                yield f"{name}: {part!r} is in the name of no tensor"
    if imatrix_given and imatrix is None:
        yield "imatrix: no importance weights are left by include_weights or exclude_weights"
    elif imatrix_given and not any(map(_weighs, rows)):
        yield "imatrix: no effect: no tensor is converted to a type that takes importance weights"


def _nothing_converted(rows: Sequence[PlanRow], policy: PolicyOptions) -> Iterator[str]:
    wanted = policy.file_type.default_type
    if wanted is None or any(row.converts for row in rows):
        return
    reasons = Counter(
        row.reason if row.reason.startswith("kept: ") else "of that type already" for row in rows
    ).most_common()
    why = "; ".join(f"{count} of {len(rows)} {reason}" for reason, count in reasons)
    note = f"no tensor is converted ({why or 'there is none'})"
    if not any(row.new_type is wanted for row in rows):
        note += f", though general.file_type says {policy.file_type.name}, as llama-quantize has it"
    yield note


def _types_by_option(rows: Sequence[PlanRow], policy: PolicyOptions) -> Iterator[str]:
    file_type, roles = policy.file_type, {role_of(row.source.name) for row in rows}
    default = file_type.default_type
    if policy.pure and not (default and default.is_quantized):
        yield f"pure: no effect on {file_type.name}"
    tied = default is not None and default.is_quantized and not policy.pure and Role.TOKEN_EMBD in roles
    for name, given, has_effect, tensor in (
        ("leave_output_tensor", policy.leave_output_tensor, Role.OUTPUT in roles, "output.weight"),
        ("output_tensor_type", policy.output_tensor_type, Role.OUTPUT in roles or tied, "output.weight"),
        ("token_embedding_type", policy.token_embedding_type, Role.TOKEN_EMBD in roles, "token embeddings"),
    ):
        if given and default is None:
            yield f"{name}: no effect on {file_type.name}"
        elif given and not has_effect:
            yield f"{name}: no effect: the model has no {tensor}"


def _weighs(row: PlanRow) -> bool:
    return row.converts and has_format(row.new_type) and format_of(row.new_type).weighted is not None
