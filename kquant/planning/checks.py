"""What is wrong with a plan, what stands in its way, and what a user may want to know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Final

from kquant.errors import GGUFError, ImatrixError, KQuantError, OptionError, UnsupportedTypeError
from kquant.formats import has_format
from kquant.gguf import GGUFFile, TensorInfo
from kquant.imatrix.reading import Imatrix
from kquant.planning.plan_types import PlanRow
from kquant.policy import PolicyOptions, needs_imatrix
from kquant.policy.roles import Role, is_token_embedding, role_of
from kquant.types import FileType, TensorType

__all__ = ["check_codecs", "check_is_model", "find_notes", "find_problems", "lacks_imatrix", "weights_key"]

_ACTIVATIONS: Final = (TensorType.Q8_1, TensorType.Q8_K)


def check_is_model(model: GGUFFile) -> None:
    """Raises `GGUFError` if the file is an importance matrix, which has no tensors to convert."""
    if "imatrix.chunk_count" in model.metadata or model.metadata.get("general.type") == "imatrix":
        raise GGUFError(
            f"{model.paths[0]}: expected a model, got an importance matrix: it goes with --imatrix (imatrix=)"
        )


def check_codecs(rows: Sequence[PlanRow]) -> None:
    """Raises `UnsupportedTypeError` unless kquant can convert every tensor that is to be converted."""
    for row in rows:
        if row.converts:
            _check_codec(row.name, row.new_type, "quantize to")
            _check_codec(row.source.name, row.type, "read")


def _check_codec(name: str, type: TensorType, verb: str) -> None:
    if type in _ACTIVATIONS:
        raise UnsupportedTypeError(f"{name}: cannot {verb} {type.name}: ggml uses it for activations only")
    if not has_format(type):
        raise UnsupportedTypeError(f"{name}: cannot {verb} {type.name}: kquant has no codec for this type")


def weights_key(tensor: TensorInfo, new_type: TensorType, imatrix: Imatrix | None) -> str | None:
    """The key of the importance weights with which a tensor is converted; None without.

    As upstream, weights of token embeddings are ignored where their number is wrong, which is common.
    """
    if imatrix is None or tensor.name not in imatrix or tensor.type is new_type:
        return None
    if is_token_embedding(tensor.name) and imatrix[tensor.name].size != _n_weights(tensor.shape):
        return None
    return tensor.name


def _n_weights(shape: tuple[int, ...]) -> int:
    """One for each column of each matrix."""
    return prod(shape[:-2]) * prod(shape[-1:])


def lacks_imatrix(rows: Sequence[PlanRow], file_type: FileType) -> list[PlanRow]:
    """The tensors that cannot be converted without importance weights and have none."""
    return [
        row
        for row in rows
        if row.converts and row.imatrix is None and needs_imatrix(row.name, row.new_type, file_type)
    ]


def find_problems(
    rows: Sequence[PlanRow], file_type: FileType, imatrix: Imatrix | None, *, allow_requantize: bool
) -> Iterator[KQuantError]:
    """What must change before the plan can be carried out."""
    if lacking := lacks_imatrix(rows, file_type):
        yield ImatrixError(
            f"{_names(lacking)}: {lacking[0].new_type.name} in a {file_type.name} file needs importance "
            f"weights, got none{_from(imatrix)}; give an importance matrix that has them (--imatrix), "
            "or choose a file type with more bits"
        )
    for row in rows:
        if imatrix is None or row.imatrix is None:
            continue
        expected, got = _n_weights(row.shape), imatrix[row.imatrix].size
        if got != expected:
            yield ImatrixError(
                f"{row.imatrix}: expected {expected} importance weights, got {got}{_from(imatrix)}; "
                "are they of another model?"
            )
            break
    quantized = [row for row in rows if row.converts and row.type.is_quantized]
    if quantized and not allow_requantize:
        yield OptionError(
            f"{_names(quantized)}: requantizing from {quantized[0].type.name} is disabled, because "
            "quantizing twice costs quality; start from F32, F16 or BF16, or allow it (--allow-requantize)"
        )


def find_notes(
    rows: Sequence[PlanRow], policy: PolicyOptions, imatrix: Imatrix | None, absent_layers: Iterable[int]
) -> Iterator[str]:
    """What may surprise a user: options without effect, tensors without weights."""
    default = policy.file_type.default_type
    if policy.tensor_types and not (default and default.is_quantized):
        yield f"tensor_types: no effect on {policy.file_type.name}"
    for pattern, _ in policy.tensor_types:
        if not any(pattern.search(row.name) for row in rows):
            yield f"tensor_types: {pattern.pattern!r} matches no tensor"
    if absent := sorted(absent_layers):
        yield f"prune_layers: the model has no layer {', '.join(map(str, absent))}"
    if imatrix is not None and (
        without := [
            row
            for row in rows
            if row.new_type.is_quantized
            and row.converts
            and row.imatrix is None
            and role_of(row.name) not in (Role.TOKEN_EMBD, Role.OUTPUT)
        ]
    ):
        yield f"imatrix: no importance weights for {_names(without)}"


def _from(imatrix: Imatrix | None) -> str:
    return f" in {imatrix.path}" if imatrix is not None and imatrix.path else ""


def _names(rows: Sequence[PlanRow]) -> str:
    """The first name, and how many more there are.

    >>> from types import SimpleNamespace as Row
    >>> _names([Row(name="a")]), _names([Row(name="a"), Row(name="b"), Row(name="c")])
    ('a', 'a and 2 more tensors')
    """
    more = len(rows) - 1
    return rows[0].name + (f" and {more} more tensor{'s' * (more > 1)}" if more else "")
