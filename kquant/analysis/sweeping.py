"""Each tensor of a model against each type: what a type costs, what it loses, and what mixtures choose."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from kquant._given import count_of, several
from kquant.analysis.slabs import SLAB_ELEMENTS, Slab, in_order, matching, slabs
from kquant.analysis.sums import ErrorSums
from kquant.analysis.sweep_types import Mixture, Sweep, TensorSweep
from kquant.arrays import codec
from kquant.errors import OptionError, OutOfRangeError, ShapeError, UnsupportedTypeError
from kquant.formats import has_format
from kquant.gguf import GGUFFile, TensorInfo, read
from kquant.planning.options import file_type_of, target_type
from kquant.planning.planner import plan
from kquant.policy import ModelFacts
from kquant.policy.roles import kept_because
from kquant.types import FileType, TensorType

__all__ = ["Mixture", "Sweep", "TensorSweep", "sweep"]

Progress = Callable[[int, int], None]
Job = tuple[TensorInfo, tuple[Slab, ...]]

ACTIVATIONS = (TensorType.Q8_1, TensorType.Q8_K)
TYPES = tuple(
    t
    for t in sorted(TensorType, key=lambda t: (t.bits_per_element, t.id))
    if has_format(t) and t not in (*ACTIVATIONS, TensorType.F32)
)
"""The types that are tried unless others are asked for, from the fewest bits to the most."""
MIXTURES = tuple(t for t in FileType if t.default_type and t.default_type.is_quantized)
"""The file types that are planned unless others are asked for."""


def sweep(
    source: str | os.PathLike[str] | GGUFFile,
    *,
    types: Sequence[TensorType | str] | TensorType | str | None = None,
    tensors: str | None = None,
    rows: int | None = None,
    file_types: Sequence[FileType | str] | FileType | str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Pack every tensor into every type and see what is lost; nothing is written.

    The tensors are those that a mixture may quantize; a type is tried where its block size divides the
    rows.  Then each mixture is planned, and its error follows from the types that it chooses.

    Args:
        source: A GGUF file, or the first of its shards.
        types: The tensor types; None for all that files are stored in, F32 excepted.
        tensors: Only tensors whose name this regular expression finds.
        rows: Use at most this many rows of each tensor, evenly spread, instead of all.
        file_types: The mixtures; None for all of quantized types.
        threads: At most so many; None for one per core.  The result does not depend on it.
        progress: Called with the bytes of the source that are done, and their total.

    Raises:
        GGUFError, OSError: The source cannot be read.
        InvalidDataError: A tensor holds NaN or infinity.
        UnknownTypeError, UnsupportedTypeError: No such type, or one that kquant has no codec for.
        OptionError: No tensor fits, fewer than one row is asked for, or `tensors` is no regular expression.

    >>> import kquant, numpy as np, pathlib, tempfile
    >>> from kquant.gguf import Metadata, TensorSpec, Writer, layout
    >>> x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float16)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.gguf")
    ...     specs = [TensorSpec("blk.0.ffn_up.weight", (256, 64), kquant.TensorType["F16"])]
    ...     with Writer(path, layout(Metadata(), specs)) as writer:
    ...         writer.write(0, 0, x)
    ...         writer.commit()
    ...     found = kquant.sweep(path, types=["Q2_K", "Q4_K", "Q8_0"], file_types=["Q4_K_M"])
    >>> for point in found.points:
    ...     print(point.type.name, point.bits_per_element, round(point.sums.relative_rmse, 3))
    Q2_K 2.625 0.293
    Q4_K 4.5 0.071
    Q8_0 8.5 0.005
    >>> found.mixtures[0].types, round(found.mixtures[0].sums.relative_rmse, 3)
    ({TensorType.Q4_K: 1}, 0.071)
    """
    chosen = _types(types)
    mixtures = MIXTURES
    if file_types is not None:
        mixtures = tuple(file_type_of(t) for t in several("file_types", file_types, "file types"))
    if rows is not None:
        count_of("rows", rows)
    with nullcontext(source) if isinstance(source, GGUFFile) else read(source) as model:
        infos = _candidates(model, matching(model.tensors, tensors), chosen)
        if not infos:
            wanted = ", ".join(t.name for t in chosen)
            raise OptionError(
                f"{model.paths[0]}: expected tensors that can be packed into {wanted}, got none"
                + (f" that match {tensors!r}" if tensors else "")
            )
        errors = _measure(model, infos, chosen, rows, threads, progress)
        swept = tuple(
            TensorSweep(info.name, info.shape, info.type, info.n_elements, info.nbytes, errors[info.name])
            for info in infos
        )
        planned = [_mixture(model, file_type, swept) for file_type in mixtures]
    return Sweep(chosen, swept, tuple(planned), rows)


def _types(types: Sequence[TensorType | str] | TensorType | str | None) -> tuple[TensorType, ...]:
    """The types to try, each once, from the fewest bits to the most."""
    if types is None:
        return TYPES
    found = dict.fromkeys(target_type(t) for t in several("types", types, "tensor types"))
    for t in found:
        if t in ACTIVATIONS or not has_format(t):
            raise UnsupportedTypeError(f"{t.name}: kquant has no codec that stores tensors in this type")
    if not found:
        raise OptionError("types: expected at least one, got none")
    return tuple(sorted(found, key=lambda t: (t.bits_per_element, t.id)))


def _candidates(model: GGUFFile, names: Iterable[str], types: Sequence[TensorType]) -> tuple[TensorInfo, ...]:
    """The tensors that a mixture may quantize, and that at least one of the types fits."""
    architecture = ModelFacts.from_metadata(model.metadata, tensor_names=model.tensors).architecture
    found = []
    for info in map(model.tensors.__getitem__, names):
        n_dims = len(info.shape) - next((i for i, n in enumerate(info.shape) if n != 1), len(info.shape))
        kept = kept_because(info.name, n_dims, architecture)
        if not kept and has_format(info.type) and info.n_elements and any(_fits(info, t) for t in types):
            found.append(info)
    return tuple(found)


def _fits(info: TensorInfo, tensor_type: TensorType) -> bool:
    return info.n_per_row % tensor_type.block_size == 0


def _measure(
    model: GGUFFile,
    infos: Sequence[TensorInfo],
    types: Sequence[TensorType],
    rows: int | None,
    threads: int | None,
    progress: Progress | None,
) -> dict[str, dict[TensorType, ErrorSums]]:
    """The error of each tensor in each type that fits it."""

    def work(job: Job) -> tuple[Job, dict[TensorType, ErrorSums]]:
        info, pieces = job
        x = np.concatenate([piece.values() for piece in pieces])
        found = {}
        for t in types:
            if _fits(info, t):
                found[t] = _error(x, t)
        return job, found

    jobs = [job for info in infos for job in _jobs(model, info, rows)]
    errors: dict[str, dict[TensorType, ErrorSums]] = {info.name: {} for info in infos}
    done, total = 0, sum(piece.nbytes for _, pieces in jobs for piece in pieces)
    if progress:
        progress(0, total)
    with closing(in_order(work, jobs, threads)) as results:
        for (info, pieces), found in results:
            for t, sums in found.items():
                errors[info.name][t] = errors[info.name].get(t, ErrorSums()) + sums
            done += sum(piece.nbytes for piece in pieces)
            if progress:
                progress(done, total)
    return errors


def _error(x: npt.NDArray[np.float32], tensor_type: TensorType) -> ErrorSums:
    try:
        packed = codec.quantize(x, tensor_type, threads=1)
    except OutOfRangeError:
        return ErrorSums.without_counterpart(x)
    return ErrorSums.of(x, codec.dequantize(packed, tensor_type, threads=1))


def _jobs(model: GGUFFile, info: TensorInfo, rows: int | None) -> Iterator[Job]:
    """A tensor, or some of its rows, in portions of about the same size."""
    if rows is None or rows >= info.n_rows:
        for slab in slabs(model, info):
            yield info, (slab,)
        return
    n = info.n_per_row
    chosen = [
        Slab(model.paths[info.shard], model.byteorder, info, i * info.n_rows // rows * n, n)
        for i in range(rows)
    ]
    step = max(1, SLAB_ELEMENTS // n)
    for first in range(0, rows, step):
        yield info, tuple(chosen[first : first + step])


def _mixture(model: GGUFFile, file_type: FileType, swept: Sequence[TensorSweep]) -> Mixture:
    """What a mixture makes of the tensors that were swept."""
    try:
        made = plan(model, file_type, allow_requantize=True)
    except (ShapeError, UnsupportedTypeError) as error:  # this mixture cannot be made; others may
        return Mixture(file_type, {}, {}, 0, 0.0, 0, None, str(error))
    new_types = {row.source.name: row.new_type for row in made.rows}
    chosen = {tensor.name: new_types[tensor.name] for tensor in swept}
    sums: list[ErrorSums | None] = [tensor.error_as(chosen[tensor.name]) for tensor in swept]
    known: list[Any] = [found for found in sums if found is not None]
    return Mixture(
        file_type=file_type,
        chosen=chosen,
        types=dict(Counter(chosen.values()).most_common()),
        new_bytes=made.new_bytes,
        bits_per_weight=made.new_bits_per_weight,
        swept_bytes=sum(tensor.bytes_as(chosen[tensor.name]) for tensor in swept),
        sums=sum(known, ErrorSums()) if len(known) == len(sums) else None,
        problem=None,
        remark=_remark([t for t in swept if not t.can_become(chosen[t.name])], chosen),
    )


def _remark(beyond: Sequence[TensorSweep], chosen: Mapping[str, TensorType]) -> str | None:
    """That a mixture would be refused, for the tensors whose type cannot hold them."""
    if not beyond:
        return None
    first, more = beyond[0].name, len(beyond) - 1
    others = f" and {more} more tensor{'s' * (more > 1)}" if more else ""
    return f"cannot be made: {chosen[first].name} cannot hold {first}{others}"
