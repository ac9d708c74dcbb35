"""Compiled kernels on disk.  A kernel that is found there is never stale.

Numba's own cache stamps the file of the outermost function only, and would run old code after a
change in any other.  Here the folder is named by a digest of all that decides the machine code:
kquant's sources, the versions of Python, Numba, llvmlite and NumPy, the CPU and the instruction set that
is chosen.  An upgrade in place so finds another folder, and a process that was running then uses none.
Files appear under their names when they are whole, and are checked when read: processes may share the
folder, and one that is missing, read-only or damaged costs a compilation, never an error.

`KQUANT_CACHE_DIR` moves it; set to the empty string it turns the cache off.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import llvmlite
import numba
import numpy as np
import platformdirs
from numba.core.caching import CompileResultCacheImpl, _Cache
from numba.core.registry import cpu_target

from kquant.kernels.language.mark import LOADED
from kquant.kernels.lowering.isa.choice import CHOICE

__all__ = ["KernelCache", "cache_folder"]

SOURCES = ("types.py", "kernels/**/*.py", "formats/**/*.py", "products/*.py")
"""What kernels are made of: a file that is missed here would be stale code."""

PACKAGE = Path(__file__).parents[1]
_DIGEST_BYTES = 32


def cache_folder() -> Path | None:
    """Where the kernels of this kquant on this CPU are kept.

    None if the cache is turned off, if there is no place for it, and if kquant is not any more what
    this process has loaded.
    """
    root = _root()
    return None if root is None or _is_upgraded() else root / _digest()


def _root() -> Path | None:
    chosen = os.environ.get("KQUANT_CACHE_DIR")
    try:
        if chosen is not None:
            return Path(chosen).expanduser() if chosen else None  # no shell did that
        folder = Path(platformdirs.user_cache_dir("kquant", appauthor=False))
    except RuntimeError:  # a user without a home
        return None
    return folder if folder.is_absolute() else None  # older versions then say ~


def _sources() -> list[Path]:
    return sorted(source for pattern in SOURCES for source in PACKAGE.glob(pattern))


def _is_upgraded() -> bool:
    """Whether a source is younger than this process's kquant."""
    kind = "st_mtime" if os.name == "nt" else "st_ctime"
    try:
        return any(getattr(source.stat(), kind) > LOADED for source in _sources())
    except FileNotFoundError:  # it is being upgraded right now
        return True


@cache
def _digest() -> str:
    digest = hashlib.sha256()
    versions = (sys.version, numba.__version__, llvmlite.__version__, np.__version__)
    digest.update(repr((versions, cpu_target.target_context.codegen().magic_tuple(), CHOICE)).encode())
    for source in _sources():
        digest.update(source.relative_to(PACKAGE).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:32]


class KernelCache(_Cache):  # type: ignore[misc]
    """What Numba asks for a kernel before it compiles it, and gives the result to."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def cache_path(self) -> str:
        """The folder."""
        return str(cache_folder() or "")

    def _file(self, signature: Any) -> Path | None:
        folder = cache_folder()
        key = hashlib.sha256(str(signature).encode()).hexdigest()[:16]
        return folder and folder / f"{self.name}-{key}.kernel"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel, or None if there is none that is whole."""
        file = self._file(sig)
        if file is None:
            return None
        try:
            content = file.read_bytes()
        except OSError:
            return None
        payload = content[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != content[:_DIGEST_BYTES]:
            return None
        target_context.refresh()
        return CompileResultCacheImpl.rebuild(self, target_context, pickle.loads(payload))  # noqa: S301

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel, if the folder can be written to."""
        file = self._file(sig)
        if file is None:
            return
        payload = pickle.dumps(CompileResultCacheImpl.reduce(self, data), protocol=-1)
        part = file.with_name(f"{file.name}.{uuid4().hex}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(hashlib.sha256(payload).digest() + payload)
            part.replace(file)
        except OSError:
            with suppress(OSError):  # a folder that is none, or on a read-only disk
                part.unlink()

    def enable(self) -> None:
        """Always enabled."""

    def disable(self) -> None:
        """Always enabled."""

    def flush(self) -> None:
        """Nothing is kept back."""
