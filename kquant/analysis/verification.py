"""Whether a GGUF file is sound: its structure, every block, and the hashes in a manifest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kquant.analysis.manifest import FileRecord, Manifest, TensorRecord
from kquant.analysis.slabs import Slab, in_order, slabs
from kquant.errors import GGUFError, GGUFTruncatedError, InvalidDataError
from kquant.gguf import GGUFFile, read

__all__ = ["Problem", "Verification", "verify"]

Progress = Callable[[int, int], None]

GAP_BYTES = 1 << 20
"""Bytes that are read at a time where there is no tensor."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a file."""

    file: str
    tensor: str | None
    """None if the problem does not concern a tensor."""
    message: str
    """What was expected, what was found, and where."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found."""

    paths: tuple[Path, ...]
    tensors: int
    blocks: int
    bytes: int
    """Of tensor data."""
    problems: tuple[Problem, ...]
    """For each tensor the first; empty if all is well."""
    notes: tuple[str, ...]
    """What is unusual but harmless."""
    manifest: Manifest | None
    """What the files and tensors are now, if hashes were asked for."""

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON's types."""
        return {
            "ok": self.ok,
            "files": [str(path) for path in self.paths],
            "tensors": self.tensors,
            "blocks": self.blocks,
            "bytes": self.bytes,
            "problems": [asdict(problem) for problem in self.problems],
            "notes": list(self.notes),
            "manifest": self.manifest.to_dict() if self.manifest else None,
        }


def verify(
    source: str | os.PathLike[str],
    *,
    manifest: Manifest | str | os.PathLike[str] | None = None,
    hashes: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check a GGUF file: its structure, and that no block holds NaN or infinity where a number must be.

    Args:
        source: A GGUF file, or the first of its shards.
        manifest: What it should be: a file that `Manifest.write` wrote, or a `Manifest`.
        hashes: Compute SHA-256 of every file and tensor also without a manifest.
        threads: At most so many; None for one per core.
        progress: Called with the bytes that are done, and their total.

    Raises `OSError` for files that cannot be opened and `ManifestError` if `manifest` is not a manifest.
    Everything that is wrong with the model itself is in `Verification.problems`.

    >>> import kquant, pathlib, tempfile
    >>> from kquant.gguf import Metadata, TensorSpec, Writer, layout
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "tiny.gguf")
    ...     specs = [TensorSpec("w", (32, 2), kquant.TensorType["Q8_0"])]
    ...     with Writer(path, layout(Metadata(), specs)) as writer:
    ...         writer.write(0, 0, bytes(34) + b"\\x00\\x7c" + bytes(32))
    ...         writer.commit()
    ...     found = kquant.verify(path)
    >>> found.ok, found.blocks
    (False, 2)
    >>> print(found.problems[0].message)
    /...tiny.gguf: tensor 'w': Q8_0: expected finite numbers, got NaN or infinity for d in row 1, block 0
    """
    wanted = manifest if isinstance(manifest, Manifest | None) else Manifest.read(manifest)
    try:
        model = read(source)
    except GGUFError as error:
        problem = Problem(os.fspath(source), None, str(error))
        return Verification((Path(source),), 0, 0, 0, (problem,), (), None)
    with model:
        found, actual = _scan(model, hashes or wanted is not None, threads, progress)
        problems = list(found.values())
        if wanted and actual:
            problems += _differences(model, wanted, actual)
        return Verification(
            paths=model.paths,
            tensors=len(model.tensors),
            blocks=sum(info.n_elements // info.type.block_size for info in model.tensors.values()),
            bytes=sum(info.nbytes for info in model.tensors.values()),
            problems=tuple(problems),
            notes=tuple(_notes(model)),
            manifest=actual,
        )


@dataclass(frozen=True, slots=True)
class _Gap:
    """Bytes of a file that belong to no tensor: the header, padding."""

    path: Path
    offset: int
    nbytes: int

    def read(self) -> npt.NDArray[np.uint8]:
        data = np.fromfile(self.path, np.uint8, self.nbytes, offset=self.offset)
        if len(data) < self.nbytes:
            raise GGUFTruncatedError(f"{self.path}: the file has shrunk since its header was read")
        return data


def _pieces(model: GGUFFile, shard: int, hashes: bool) -> Iterator[Slab | _Gap]:
    """A file from its first to its last byte; without hashes, only what is to be checked."""
    path, position = model.paths[shard], 0
    for info in model.tensors.values():
        if info.shard == shard:
            if hashes:
                yield from _gaps(path, position, info.offset)
            yield from slabs(model, info)
            position = info.offset + info.nbytes
    if hashes:
        yield from _gaps(path, position, model.file_bytes[shard])


def _gaps(path: Path, start: int, end: int) -> Iterator[_Gap]:
    for offset in range(start, end, GAP_BYTES):
        yield _Gap(path, offset, min(GAP_BYTES, end - offset))


def _scan(
    model: GGUFFile, hashes: bool, threads: int | None, progress: Progress | None
) -> tuple[dict[str, Problem], Manifest | None]:
    """Reads every file once, from front to back: the first problem of each tensor, and all hashes."""

    def check(piece: Slab | _Gap) -> tuple[Slab | _Gap, Any, str | None]:
        data = piece.read()
        try:
            if isinstance(piece, Slab):
                piece.check(data, piece.where)
        except InvalidDataError as error:
            return piece, data if hashes else None, str(error)
        return piece, data if hashes else None, None

    problems: dict[str, Problem] = {}
    files = [hashlib.sha256() for _ in model.paths]
    tensors = {name: hashlib.sha256() for name in model.tensors}
    total = sum(model.file_bytes) if hashes else sum(info.nbytes for info in model.tensors.values())
    done = 0
    if progress:
        progress(0, total)
    for shard, path in enumerate(model.paths):
        with closing(in_order(check, _pieces(model, shard, hashes), threads)) as checked:
            for piece, data, message in checked:
                if isinstance(piece, Slab):
                    name = piece.info.name
                    if message:
                        problems.setdefault(name, Problem(str(path), name, message))
                    if hashes:
                        tensors[name].update(data)
                if hashes:
                    files[shard].update(data)
                done += piece.nbytes
                if progress:
                    progress(done, total)
    if not hashes:
        return problems, None
    return problems, Manifest(
        tuple(
            FileRecord(path.name, size, digest.hexdigest())
            for path, size, digest in zip(model.paths, model.file_bytes, files, strict=True)
        ),
        tuple(
            TensorRecord(name, info.type.name, info.shape, info.nbytes, tensors[name].hexdigest())
            for name, info in model.tensors.items()
        ),
    )


def _differences(model: GGUFFile, wanted: Manifest, actual: Manifest) -> Iterator[Problem]:
    """Differences from the manifest: first the files, in their order, then the tensors by name."""
    first = str(model.paths[0])
    if len(wanted.files) != len(actual.files):
        message = f"{first}: expected {len(wanted.files)} files as in the manifest, got {len(actual.files)}"
        yield Problem(first, None, message)
    for path, old_file, new_file in zip(model.paths, wanted.files, actual.files, strict=False):
        for what in ("bytes", "sha256"):
            if getattr(old_file, what) != getattr(new_file, what):
                yield Problem(str(path), None, f"{path}: {_expected(what, old_file, new_file)}")
                break
    now = {record.name: record for record in actual.tensors}
    for old in wanted.tensors:
        if (new := now.pop(old.name, None)) is None:
            message = f"{first}: tensor {old.name!r}: expected as in the manifest, got no such tensor"
            yield Problem(first, old.name, message)
            continue
        path = model.paths[model.tensors[old.name].shard]
        for what in ("type", "shape", "bytes", "sha256"):
            if getattr(old, what) != getattr(new, what):
                yield Problem(
                    str(path), old.name, f"{path}: tensor {old.name!r}: {_expected(what, old, new)}"
                )
                break
    for name in now:
        yield Problem(first, name, f"{first}: tensor {name!r}: expected none of this name in the manifest")


def _expected(what: str, old: FileRecord | TensorRecord, new: FileRecord | TensorRecord) -> str:
    name = {"sha256": "SHA-256", "bytes": "size"}.get(what, what)
    return f"expected {name} {getattr(old, what)} as in the manifest, got {getattr(new, what)}"


def _notes(model: GGUFFile) -> Iterator[str]:
    for shard, (path, size) in enumerate(zip(model.paths, model.file_bytes, strict=True)):
        ends = [info.offset + info.nbytes for info in model.tensors.values() if info.shard == shard]
        alignment = model.shard_metadata[shard].alignment
        end = -(-max(ends, default=model.data_offsets[shard]) // alignment) * alignment
        if size > end:
            yield f"{path}: {size - end} bytes behind the last tensor belong to nothing"
