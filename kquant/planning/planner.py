"""Plans a requantization: what becomes of each tensor, where it goes and why.

A plan needs the header of the source only, and holds every size and offset of the result before a byte
is written.  Names, order, types, metadata and offsets are those of llama-quantize
(https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp), but for two things: the
alignment that `general.alignment` asks for is kept, and unknown architectures are no error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext

from kquant.gguf import GGUFFile, GGUFValueType, Metadata, TensorInfo, TensorSpec, layout, read, split_path
from kquant.gguf.spec import ByteOrder
from kquant.imatrix.reading import Imatrix, load_imatrix
from kquant.planning.checks import (
    check_codecs,
    check_is_model,
    find_notes,
    find_problems,
    lacks_imatrix,
    weights_key,
)
from kquant.planning.options import TensorTypes, compile_patterns, file_type_of, parse_override, target_type
from kquant.planning.outputs import copied_file_type, first_metadata, split_metadata
from kquant.planning.plan_types import OutputFile, Plan, PlanRow
from kquant.planning.pruning import prune
from kquant.policy import Decision, ModelFacts, PolicyOptions, TensorFacts, decide
from kquant.policy.roles import layer_of, processing_order
from kquant.types import FileType, TensorType

__all__ = ["OutputFile", "Plan", "PlanRow", "plan"]


def plan(
    source: str | os.PathLike[str] | GGUFFile,
    file_type: FileType | str | int,
    *,
    allow_requantize: bool = False,
    leave_output_tensor: bool = False,
    pure: bool = False,
    output_tensor_type: TensorType | str | None = None,
    token_embedding_type: TensorType | str | None = None,
    tensor_types: TensorTypes = (),
    imatrix: Imatrix | str | os.PathLike[str] | None = None,
    include_weights: Sequence[str] = (),
    exclude_weights: Sequence[str] = (),
    keep_split: bool = False,
    override_kv: Sequence[str] = (),
    prune_layers: Iterable[int] = (),
) -> Plan:
    """What `kquant.requantize` would do with the same arguments; nothing is written.

    Args:
        source: A GGUF file, or the first of its shards.  Its header is read, its tensor data is not: that may
            be missing, as in a download under way, which `Plan.notes` then says.
        file_type: What the result shall be: "Q4_K_M", or its number as `general.file_type` has it.
        allow_requantize: Also convert tensors that are quantized already, at the cost of quality.
        leave_output_tensor: Keep `output.weight` as it is.
        pure: One type for all matrices instead of a mixture.
        output_tensor_type: The type of `output.weight`, or of the embeddings that stand for it.
        token_embedding_type: The type of the token embeddings.
        tensor_types: Types for tensors whose name a regular expression matches, the first that does:
            pairs of both, or texts as for `--tensor-type` (in lower case, as there).
        imatrix: Importance weights: a file, GGUF or `.dat`, or an `Imatrix`.
        include_weights: Use only the importance weights of tensors whose name contains one of these.
        exclude_weights: Leave out the importance weights of tensors whose name contains one of these.
        keep_split: Write as many files as the source has.
        override_kv: Metadata of the result as `key=type:value`, where the type is int, float, bool or str.
        prune_layers: Layers to leave out.

    Raises `GGUFError` or `OSError` for a source that cannot be read, `UnknownTypeError` for unknown
    names, `OptionError` and `ImatrixError` for options and importance matrices that cannot be,
    `ShapeError` where a type does not fit a row length and has no substitute, `UnsupportedTypeError`
    where kquant has no codec for what is needed.  What other options could cure is no error yet: it
    stands in `Plan.problems`, and `Plan.check` raises it.

    >>> from tempfile import TemporaryDirectory
    >>> import kquant
    >>> from kquant.gguf import Writer
    >>> specs = [TensorSpec(f"blk.{i}.attn_v.weight", (256, 2), TensorType.F16) for i in range(4)]
    >>> with TemporaryDirectory() as folder:
    ...     with Writer(f"{folder}/tiny.gguf", layout(Metadata(), specs)) as writer:
    ...         for i in range(4):
    ...             writer.write(i, 0, bytes(1024))
    ...         writer.commit()
    ...     plan = kquant.plan(f"{folder}/tiny.gguf", "Q3_K_M")
    >>> for row in plan.rows:
    ...     print(row.name, row.type.name, row.new_type.name, row.new_bytes, row.reason, sep=", ")
    blk.0.attn_v.weight, F16, Q5_K, 352, attn_v of the first two layers
    blk.1.attn_v.weight, F16, Q5_K, 352, attn_v of the first two layers
    blk.2.attn_v.weight, F16, Q4_K, 288, attn_v is sensitive
    blk.3.attn_v.weight, F16, Q4_K, 288, attn_v is sensitive
    >>> plan.bits_per_weight, plan.new_bits_per_weight
    (16.0, 5.0)
    """
    chosen = file_type_of(file_type)
    overrides = [parse_override(text) for text in override_kv]
    pruned = frozenset(prune_layers)
    weights = _weights(imatrix, include_weights, exclude_weights)
    policy = PolicyOptions(
        chosen,
        pure=pure,
        leave_output_tensor=leave_output_tensor,
        output_tensor_type=None if output_tensor_type is None else target_type(output_tensor_type),
        token_embedding_type=None if token_embedding_type is None else target_type(token_embedding_type),
        tensor_types=compile_patterns(tensor_types),
        has_imatrix=weights is not None,
    )
    with nullcontext(source) if isinstance(source, GGUFFile) else read(source, header_only=True) as model:
        check_is_model(model)
        order = sorted(model.tensors, key=processing_order)
        replaced = {override.key: override.value for override in reversed(overrides)}  # the first counts
        facts = ModelFacts.from_metadata(model.metadata, overrides=replaced, tensor_names=order)
        names, n_layers = prune(order, pruned)
        tensors = [(name, model.tensors[source_name]) for source_name, name in names.items()]
        if keep_split:
            tensors.sort(key=lambda item: (item[1].shard, item[1].offset))
        known = [TensorFacts(name, info.shape, info.type) for name, info in tensors]
        decisions = decide(known, facts, policy)

        number = chosen.id
        if chosen is FileType.COPY:
            number = copied_file_type(model.metadata, replaced, [model.tensors[name].type for name in order])
        first = first_metadata(model.metadata, number, overrides, weights)
        if n_layers is not None and facts.architecture:
            first.set(f"{facts.architecture}.block_count", n_layers, GGUFValueType.UINT32)
        n_files = 1 + max((info.shard for _, info in tensors), default=0) if keep_split else 1

        rows: list[PlanRow] = []
        outputs: list[OutputFile] = []
        for index, metadata in enumerate(split_metadata(first, n_files, len(tensors))):
            members = [
                (name, info, decision)
                for (name, info), decision in zip(tensors, decisions, strict=True)
                if not keep_split or info.shard == index
            ]
            suffix = split_path("", index, n_files) if keep_split else ""
            output, its_rows = _lay_out(index, suffix, metadata, members, weights, model.byteorder)
            outputs.append(output)
            rows += its_rows
    check_codecs(rows)
    return Plan(
        file_type=chosen,
        architecture=facts.architecture,
        rows=tuple(rows),
        outputs=tuple(outputs),
        imatrix=weights,
        requires_imatrix=bool(lacks_imatrix(rows, chosen)),
        problems=tuple(find_problems(rows, chosen, weights, allow_requantize=allow_requantize)),
        notes=(
            *([f"{model.paths[0]}: {model.shortfall}"] if model.shortfall else []),
            *find_notes(rows, policy, weights, pruned.difference(map(layer_of, order))),
        ),
        source_elements=sum(info.n_elements for info in model.tensors.values()),
    )


def _weights(
    imatrix: Imatrix | str | os.PathLike[str] | None, include: Sequence[str], exclude: Sequence[str]
) -> Imatrix | None:
    """The importance weights that the selection leaves; None if it leaves none."""
    if imatrix is None:
        imatrix = Imatrix({})
    if isinstance(imatrix, Imatrix):
        return imatrix.select(include, exclude) or None
    return load_imatrix(imatrix, include=include, exclude=exclude) or None


def _lay_out(
    index: int,
    suffix: str,
    metadata: Metadata,
    tensors: Sequence[tuple[str, TensorInfo, Decision]],
    imatrix: Imatrix | None,
    byteorder: ByteOrder,
) -> tuple[OutputFile, list[PlanRow]]:
    """One file of the result: its layout, and a row for each of its tensors."""
    shapes = [_without_outer_ones(info.shape) for _, info, _ in tensors]
    specs = [
        TensorSpec(name, shape[::-1], decision.type)
        for (name, _, decision), shape in zip(tensors, shapes, strict=True)
    ]
    placed = layout(metadata, specs, byteorder=byteorder)
    rows = [
        PlanRow(
            name=name,
            source=info,
            shape=shape,
            new_type=decision.type,
            new_bytes=nbytes,
            output=index,
            offset=offset,
            reason=decision.reason,
            fallback_from=decision.fallback_from,
            imatrix=weights_key(info, decision.type, imatrix),
        )
        for (name, info, decision), shape, nbytes, offset in zip(
            tensors, shapes, placed.nbytes, placed.offsets, strict=True
        )
    ]
    return OutputFile(metadata, placed, suffix), rows


def _without_outer_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without GGUF's trailing dimensions of 1, but for the rows.

    >>> _without_outer_ones((1, 1, 4096)), _without_outer_ones((8, 1, 256)), _without_outer_ones(())
    ((4096,), (8, 1, 256), (1,))
    """
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape or (1,)
