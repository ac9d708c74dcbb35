"""Carries a plan out: slabs of rows through an executor, straight to their final offsets.

A slab is an independent task: bytes of the source in, bytes of the result out, at an offset that is
known beforehand.  `convert` is all that a worker runs, and a `Slab` is all that it needs to know, so that
threads, processes or a cluster can do the work; the coordinator writes.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kquant.byteorder import swapped
from kquant.codec import available_threads, execution_of
from kquant.codec import slab_elements as default_slab_elements
from kquant.errors import GGUFTruncatedError, NonFiniteError, OptionError, OutputError
from kquant.formats import room
from kquant.gguf import GGUFFile, Writer, read
from kquant.kernels.execute import WHOLE, aligned_empty, dequantize_rows, quantize_rows
from kquant.planning.imatrix import Imatrix
from kquant.planning.plan import Plan, plan
from kquant.types import FileType, TensorType
from kquant.validation import check_finite

__all__ = ["Slab", "convert", "requantize"]

Progress = Callable[[int, int], None]
Bytes = npt.NDArray[np.uint8]

COPY_BYTES = 1 << 20
"""Bytes of a slab that is only copied."""
QUEUED = 4
"""Slabs under way for each worker: enough that none waits, few enough to bound memory."""
READ_AHEAD = 64 << 20
"""Bytes of the source that the system is asked to read before a worker needs them."""


@dataclass(frozen=True, slots=True)
class Slab:
    """Some rows of a tensor on their way; may be pickled."""

    path: str
    offset: int
    """Byte of the source file where they start."""
    nbytes: int
    byteorder: str
    tensor: str
    first: int
    """Elements of the tensor before the slab."""
    n_per_row: int
    """Elements of a row of the tensor."""
    type: TensorType
    new_type: TensorType
    importance: npt.NDArray[np.float32] | None
    """float32 (n_per_row,): the slab then is whole rows of that length."""
    target: tuple[int, int, int]
    """Output, tensor in it, and byte of the tensor where the result goes."""


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
        target: Where the result goes; it appears there when it is whole, and what was there before
            stays until then.  With `keep_split` the shards' names are made of it.
        file_type: The mixture, such as "Q4_K_M".
        threads: At most so many; None for one per core.  The result does not depend on it.
        executor: Anything with the interface of `concurrent.futures.Executor` in the place of
            threads; its workers must be able to open the source under the same path.
        progress: Called with the bytes of the source that are done, and their total.
        slab_elements: Elements that a worker takes at a time; memory grows with it.  None for what suits
            the processor's cache.
        options: Those of `kquant.plan`.

    Returns:
        The plan that was carried out.

    Raises:
        GGUFError, OSError: The source cannot be read.
        OptionError, ImatrixError, ShapeError, UnknownTypeError, UnsupportedTypeError: As `kquant.plan`.
        InvalidDataError, NonFiniteError: A tensor holds NaN or infinity, or would in the result.
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
        slabs = _read_ahead(_slabs(made, model, slab_elements))
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
    except OSError:  # there is no such file; if something else is wrong, the writer says what
        return False


def _run(
    executor: Executor,
    window: int,
    slabs: Iterator[Slab],
    writers: list[Writer],
    total: int,
    progress: Progress | None,
) -> None:
    """Keeps `window` slabs under way and writes what comes back."""
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
    """Waits for at least one slab and writes all that are ready."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        slab = pending.pop(future)
        output, tensor, offset = slab.target
        writers[output].write(tensor, offset, future.result())
        done += slab.nbytes
    if progress:
        progress(done, total)
    return done


def _slabs(made: Plan, model: GGUFFile, slab_elements: int) -> Iterator[Slab]:
    """Every tensor in pieces of whole blocks, or of whole rows where these have importance weights."""
    positions = [0] * len(made.outputs)
    for row in made.rows:
        output, tensor = row.output, positions[row.output]
        positions[output] += 1
        weights = made.weights(row)
        unit = max(row.type.block_size, row.new_type.block_size)
        size = slab_elements
        if weights is not None:
            unit = row.shape[-1]
        elif not row.converts:
            size = COPY_BYTES // row.type.type_size * row.type.block_size
        n = row.n_elements
        matrix = n if weights is None else n // len(weights)
        step = max(1, size // unit) * unit
        for start in range(0, n, max(matrix, 1)):
            importance = None if weights is None else weights[start // matrix]
            for first in range(start, start + matrix, step):
                count = min(step, start + matrix - first)
                yield Slab(
                    path=os.fspath(model.paths[row.source.shard]),
                    offset=row.source.offset + _bytes(row.type, first),
                    nbytes=_bytes(row.type, count),
                    byteorder=model.byteorder,
                    tensor=row.source.name,
                    first=first,
                    n_per_row=row.shape[-1],
                    type=row.type,
                    new_type=row.new_type,
                    importance=importance,
                    target=(output, tensor, _bytes(row.new_type, first)),
                )


def _read_ahead(slabs: Iterator[Slab]) -> Iterator[Slab]:
    """The same slabs, whose bytes are being read already: while kernels are compiled, and from slow disks."""
    if not hasattr(os, "posix_fadvise"):
        yield from slabs
        return
    waiting: deque[Slab] = deque()
    n_bytes = 0
    with ExitStack() as stack:
        files = cache(lambda path: stack.enter_context(Path(path).open("rb", buffering=0)))
        for slab in slabs:
            with suppress(OSError):  # a hint, that not every file system takes
                os.posix_fadvise(files(slab.path).fileno(), slab.offset, slab.nbytes, os.POSIX_FADV_WILLNEED)
            waiting.append(slab)
            n_bytes += slab.nbytes
            while n_bytes > READ_AHEAD:
                yield (first := waiting.popleft())
                n_bytes -= first.nbytes
        yield from waiting


def _bytes(tensor_type: TensorType, n_elements: int) -> int:
    return n_elements // tensor_type.block_size * tensor_type.type_size


class _Memory(threading.local):
    """A worker's room for one slab, kept: fresh memory would cost more than what is done with it."""

    def __init__(self) -> None:
        self._source = np.empty(0, np.uint8)
        self._values = np.empty(0, np.float32)

    def source(self, n: int) -> Bytes:
        if len(self._source) < n:
            self._source = aligned_empty((n,), np.uint8)
        return self._source[:n]

    def values(self, n: int) -> npt.NDArray[np.float32]:
        if len(self._values) < n:
            self._values = aligned_empty((n,), np.float32)
        return self._values[:n]


_memory = _Memory()


def convert(slab: Slab) -> Bytes:
    """What a worker does: read, dequantize, quantize, validate.

    Returns uint8 (n,): the bytes of the result, in the byte order of the source.
    """
    copies = slab.type is slab.new_type
    data = np.empty(slab.nbytes, np.uint8) if copies else _memory.source(slab.nbytes)
    _read(slab, data)
    where = f"{slab.path}: tensor {slab.tensor!r}: "
    check_source = partial(check_finite, data, slab.type, where, slab.first, slab.n_per_row, slab.byteorder)
    if copies:
        check_source()
        return data
    how = execution_of(None)
    native = swapped(data, slab.type) if slab.byteorder == "big" else data
    n = slab.nbytes // slab.type.type_size * slab.type.block_size
    n_per_row = n if slab.importance is None else len(slab.importance)
    x = _memory.values(n).reshape(-1, n_per_row)
    dequantize_rows(room(slab.type), native.reshape(len(x), -1), x, how)
    packed = np.empty((len(x), slab.new_type.row_bytes(n_per_row)), np.uint8)
    if quantize_rows(room(slab.new_type), x, slab.importance, packed, how) != WHOLE:
        check_source()
        raise NonFiniteError(
            f"{where}expected finite values, got NaN or infinity from element {slab.first} on"
        )
    result = packed.reshape(-1)
    check_finite(result, slab.new_type, f"{where}as ", slab.first, slab.n_per_row)
    return swapped(result, slab.new_type) if slab.byteorder == "big" else result


def _read(slab: Slab, data: Bytes) -> None:
    with Path(slab.path).open("rb", buffering=0) as file:
        file.seek(slab.offset)
        got = 0
        while got < slab.nbytes:
            count = file.readinto(data.data[got:])
            if not count:
                raise GGUFTruncatedError(
                    f"{slab.path}: tensor {slab.tensor!r}: expected {slab.nbytes} bytes from byte "
                    f"{slab.offset}, got {got}: the file has shrunk since its header was read"
                )
            got += count
