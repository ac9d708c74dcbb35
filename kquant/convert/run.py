"""Carries a plan out: slabs of rows through an executor, straight to their final offsets.

The workers convert and the coordinator writes; the slabs in progress limit memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kquant.arrays.codec import execution_of
from kquant.arrays.codec import slab_elements as default_slab_elements
from kquant.convert.slabs import Slab, convert, read_ahead, slabs_of
from kquant.errors import OptionError, OutputError
from kquant.gguf import GGUFFile, Writer, read
from kquant.imatrix.reading import Imatrix
from kquant.parallel.slabs import available_threads
from kquant.planning.planner import Plan, plan
from kquant.types import FileType

__all__ = ["requantize"]

Progress = Callable[[int, int], None]
Bytes = npt.NDArray[np.uint8]

QUEUED = 4
"""Slabs in progress for each worker: enough that none waits, few enough to limit memory."""


def requantize(
    source: str | os.PathLike[str] | GGUFFile,
    target: str | os.PathLike[str],
    file_type: FileType | str | int,
    *,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    slab_elements: int | None = None,
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
        progress: Called with the bytes of the source that are done, and their total.
        slab_elements: Elements in a slab, the task of a worker; memory grows with it.  None for a number
            that suits the processor's cache.
        options: Those of `kquant.plan`.

    Returns:
        The plan that was carried out.

    Raises:
        GGUFError, OSError: The source cannot be read.
        OptionError, ImatrixError, ShapeError, UnknownTypeError, UnsupportedTypeError: As `kquant.plan`.
        InvalidDataError, NonFiniteError: A tensor contains NaN or infinity, or would in the result.
        OutputError: The target is one of the files to be read, or cannot be written.

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
    if threads is not None and threads < 1:
        raise OptionError(f"threads: expected at least 1, got {threads}")
    if slab_elements is None:
        slab_elements = default_slab_elements(execution_of(None))
    if slab_elements < 1:
        raise OptionError(f"slab_elements: expected at least 1, got {slab_elements}")
    with ExitStack() as stack:
        model = source if isinstance(source, GGUFFile) else stack.enter_context(read(source))
        model.check_complete()
        made = plan(model, file_type, **options)
        made.check()
        paths = [output.path(target) for output in made.outputs]
        _refuse_inputs(paths, model, made.imatrix)
        writers = [
            stack.enter_context(Writer(path, output.layout))
            for path, output in zip(paths, made.outputs, strict=True)
        ]
        workers = threads or available_threads()
        if executor is None:
            executor = stack.enter_context(ThreadPoolExecutor(workers))
        slabs = read_ahead(slabs_of(made, model, slab_elements))
        _run(executor, QUEUED * workers, slabs, writers, made.bytes, progress)
        for writer in writers:
            writer.commit()
    return made


def _refuse_inputs(paths: list[Path], model: GGUFFile, imatrix: Imatrix | None) -> None:
    inputs: list[tuple[str | Path, str]] = [(source, "source") for source in model.paths]
    if imatrix is not None and imatrix.path:
        inputs.append((imatrix.path, "importance matrix"))
    for path in paths:
        for source, what in inputs:
            if _is_same_file(path, source):
                raise OutputError(f"{path}: expected another file than the {what}, got the {what} itself")


def _is_same_file(path: Path, other: str | Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # there is no such file; the writer reports anything else that is wrong
        return False


def _run(
    executor: Executor,
    window: int,
    slabs: Iterator[Slab],
    writers: list[Writer],
    total: int,
    progress: Progress | None,
) -> None:
    """Keeps `window` slabs in progress and writes the results."""
    pending: dict[Future[Bytes], Slab] = {}
    done = 0
    if progress:
        progress(0, total)
    try:
        for slab in slabs:
            pending[executor.submit(convert, slab)] = slab
            if len(pending) >= window:
                done = _collect(pending, writers, done, total, progress)
        while pending:
            done = _collect(pending, writers, done, total, progress)
    finally:
        for future in pending:
            future.cancel()
        wait(pending)


def _collect(
    pending: dict[Future[Bytes], Slab],
    writers: list[Writer],
    done: int,
    total: int,
    progress: Progress | None,
) -> int:
    """Waits for at least one slab and writes all that are finished."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        slab = pending.pop(future)
        output, tensor, offset = slab.target
        writers[output].write(tensor, offset, future.result())
        done += slab.nbytes
    if progress:
        progress(done, total)
    return done
