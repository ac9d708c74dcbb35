"""Carries a plan out: slabs of rows through an executor, straight to their final offsets.

The workers convert and the coordinator writes; the slabs in progress limit memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from kquant._given import count_of
from kquant.arrays.codec import execution_of
from kquant.arrays.codec import slab_elements as default_slab_elements
from kquant.convert.slabs import Slab, convert, read_ahead, slabs_of
from kquant.errors import OptionError
from kquant.gguf import GGUFFile, Writer, read
from kquant.gguf.targets import check_target
from kquant.parallel.ordered import QUEUED, in_order
from kquant.parallel.pool import Pool, pool_of, thread_count
from kquant.planning.planner import Plan, plan
from kquant.types import FileType

__all__ = ["requantize"]

Progress = Callable[[int, int], None]


def requantize(
    source: str | os.PathLike[str] | GGUFFile,
    target: str | os.PathLike[str],
    file_type: FileType | str | int,
    *,
    threads: int | None = None,
    executor: Executor | None = None,
    pool: Pool | None = None,
    progress: Progress | None = None,
    slab_elements: int | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Plan:
    """Requantize a GGUF file, byte for byte as llama-quantize does.

    Args:
        source: A GGUF file, or the first of its shards.
        target: Where the result goes; it appears there when it is complete, and an older file stays
            until then.  With `keep_split` the names of the shards are derived from it.
        file_type: The mixture, such as "Q4_K_M".
        threads: At most so many; None for one per core.  The result does not depend on it.
        executor: Any object with the interface of `concurrent.futures.Executor`, used in place of
            threads; its workers must be able to open the source under the same path.
        pool: A `kquant.Pool`, used in place of threads of its own; with `threads`, slabs are in progress for
            at most so many of them.
        progress: Called with the bytes of the source that are done, and their total.
        slab_elements: Elements in a slab, the task of a worker; memory grows with it.  None for a number
            that suits the processor's cache.
        overwrite: Also replace a target that holds an original, a GGUF file most of whose bytes are F32,
            F16 or BF16.  Results of earlier runs, and what is not a model, are replaced in any case.
        options: Those of `kquant.plan`.

    Returns:
        The plan that was carried out.

    Raises:
        GGUFError, OSError: The source cannot be read.
        OptionError, ImatrixError, ShapeError, UnknownTypeError, UnsupportedTypeError: As `kquant.plan`.
        InvalidDataError, NonFiniteError: A tensor contains NaN or infinity.
        OutOfRangeError: A tensor contains a number that its new type cannot hold.
        OutputError: The target is one of the files to be read or an original, or cannot be written.

    Source: `llama_model_quantize_impl` in
    https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp

    >>> import kquant, tempfile, pathlib, numpy as np
    >>> from kquant.gguf import Metadata, TensorSpec, Writer, layout
    >>> specs = [TensorSpec("blk.0.ffn_up.weight", (256, 64), kquant.TensorType["F16"])]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.gguf")
    ...     with Writer(path, layout(Metadata(), specs)) as writer:
    ...         writer.write(0, 0, np.ones((64, 256), np.float16))
    ...         writer.commit()
    ...     done = kquant.requantize(path, path.with_name("small.gguf"), "Q4_K_M")
    ...     done.rows[0].new_type, done.bits_per_weight, done.new_bits_per_weight
    (TensorType.Q4_K, 16.0, 4.5)
    """
    shared = None if pool is None else pool_of(pool)
    workers = shared.threads if shared is not None and threads is None else thread_count(threads)
    if pool is not None and executor is not None:
        raise OptionError("requantize: expected an executor or a pool, got both")
    if slab_elements is not None:
        count_of("slab_elements", slab_elements)
    with ExitStack() as stack:
        model = source if isinstance(source, GGUFFile) else stack.enter_context(read(source))
        model.check_complete()
        made = plan(model, file_type, **options)
        made.check()
        paths = [output.path(target) for output in made.outputs]
        inputs: list[tuple[str | Path, str]] = [(source, "source") for source in model.paths]
        if made.imatrix is not None and made.imatrix.path:
            inputs.append((made.imatrix.path, "importance matrix"))
        for path, output in zip(paths, made.outputs, strict=True):
            check_target(path, inputs, overwrite=overwrite, header=output.layout.header)
        if slab_elements is None:  # what is only copied needs no kernel, and no compiler
            converts = any(row.converts for row in made.rows)
            slab_elements = default_slab_elements(execution_of(None) if converts else "numpy")
        writers = [
            stack.enter_context(Writer(path, output.layout))
            for path, output in zip(paths, made.outputs, strict=True)
        ]
        chosen = executor or shared or stack.enter_context(Pool(workers))
        slabs = read_ahead(slabs_of(made, model, slab_elements))
        _run(chosen, QUEUED * workers, slabs, writers, made.bytes, progress)
        for writer in writers:
            writer.commit()
    return made


def _run(
    executor: Executor,
    window: int,
    slabs: Iterator[Slab],
    writers: list[Writer],
    total: int,
    progress: Progress | None,
) -> None:
    """Keeps `window` slabs in progress and writes the results."""
    done = 0
    if progress:
        progress(0, total)
    with closing(in_order(executor, convert, slabs, window)) as results:
        for slab, converted in results:
            output, tensor, offset = slab.target
            writers[output].write(tensor, offset, converted)
            done += slab.nbytes
            if progress:
                progress(done, total)
