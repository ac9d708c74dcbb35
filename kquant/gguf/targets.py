"""Whether a file may be written where the user wants it: asked before the work, not after it."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kquant._text import share
from kquant.errors import GGUFError, OutputError
from kquant.gguf.reader import read_shard
from kquant.types import TensorType

__all__ = ["check_target"]

_ORIGINAL: Final = (TensorType.F32, TensorType.F16, TensorType.BF16)
"""Types of weights that nobody has quantized: a file of them cannot be made from its results."""


def check_target(
    path: str | os.PathLike[str],
    inputs: Iterable[tuple[str | os.PathLike[str], str]] = (),
    *,
    overwrite: bool | None = None,
    header: bytes | None = None,
) -> None:
    """Raises `OutputError` if a file cannot, or should not, be written under this name.

    Args:
        path: The file to be.
        inputs: Files that are read, each with what it is: "model".
        overwrite: Whether to replace also an original, a GGUF file most of whose bytes are F32, F16 or BF16.
            None for what is no model itself, such as a page: that replaces no GGUF file at all.
        header: How the file to be begins.  One that is there and begins so is the result of an earlier
            run, whatever its types are.
    """
    target = Path(path)
    if "\0" in str(target):
        raise OutputError(f"expected a path without a NUL, got {str(target)!r}")
    folder = Path(os.path.realpath(target)).parent
    if not folder.is_dir():
        raise OutputError(f"{target}: expected a file in a folder that exists, got no folder {folder}")
    if not _allows(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{target}: expected a folder that can be written to, got {folder}: until it is whole, the file "
            "has another name there"
        )
    try:
        found = target.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise OutputError(f"{target}: expected a regular file or a new name")
    if not _allows(target, os.W_OK):
        raise OutputError(f"{target}: expected a file that can be written to, got a read-only one")
    for source, what in inputs:
        if _is_same_file(target, source):
            raise OutputError(f"{target}: expected another file than the {what}, got the {what} itself")
    if not overwrite and not _begins_with(target, header):
        _check_not_lost(target, other_kind=overwrite is None)


def _allows(path: Path, mode: int) -> bool:
    """Whether the system lets this process do so, with the rights that it has now."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _is_same_file(path: Path, other: str | os.PathLike[str]) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # an input that is not there has its own error
        return False


def _begins_with(path: Path, header: bytes | None) -> bool:
    if not header:
        return False
    with path.open("rb") as file:
        return file.read(len(header)) == header


def _check_not_lost(path: Path, *, other_kind: bool) -> None:
    sizes: Counter[TensorType] = Counter()
    try:
        with read_shard(path, header_only=True) as model:
            for info in model.tensors.values():
                sizes[info.type] += info.nbytes
    except (GGUFError, OSError):
        return
    if other_kind:
        raise OutputError(f"{path}: expected a new name or a file that is no model, got a GGUF file")
    plain = sum(sizes[t] for t in _ORIGINAL)
    if 2 * plain > sizes.total():
        main = max(_ORIGINAL, key=lambda t: sizes[t])
        raise OutputError(
            f"{path}: expected a new name or a quantized file to replace, got an original: "
            f"{share(sizes[main], sizes.total())} of its bytes are {main.name}; give another name, or allow "
            "it (--overwrite, overwrite=True)"
        )
