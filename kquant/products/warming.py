"""Prepares compiled kernels on purpose, for images and CI, so that no later command waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeAlias

from kquant._given import several
from kquant.errors import OptionError
from kquant.formats import format_of, has_format
from kquant.formats.base import BlockFormat
from kquant.kernels import forward
from kquant.kernels.availability import jit_is_disabled
from kquant.kernels.consecutive import layout
from kquant.kernels.language.dot import BlockDot
from kquant.kernels.layout import SUPER_BLOCK
from kquant.products._loops import multiplier
from kquant.types import TensorType

__all__ = ["Job", "jobs", "run_jobs", "warm_up"]

Job: TypeAlias = tuple[TensorType | None, str]
"""A kernel: the type, and what it does with it; without a type, one of a forward pass."""

FORWARD: dict[str, Callable[[], Any]] = {
    "forward-rms_norm": lambda: forward.normalize(False),
    "forward-layer_norm": lambda: forward.normalize(True),
    "forward-silu_gate": forward.silu_gate,
    "forward-attend-f32": lambda: forward.attend(False),
    "forward-attend-f16": lambda: forward.attend(True),
    "forward-multiply-f32": lambda: forward.multiply("F32"),
    "forward-multiply-f16": lambda: forward.multiply("F16"),
    "forward-multiply-bf16": lambda: forward.multiply("BF16"),
}
"""What a forward pass does beside products."""


def jobs(types: Iterable[TensorType | str | int] | None = None) -> list[Job]:
    """The kernels that quantize to these types, with and without weights, dequantize and multiply them.

    None means every type with a format; a single type is a list of one.  Raises `UnknownTypeError` and
    `UnsupportedTypeError`.
    """
    if types is None:
        chosen = [t for t in TensorType if has_format(t)]
    else:
        chosen = [TensorType.of(t) for t in several("types", types, "tensor types")]
    found: list[Job] = []
    for tensor_type in dict.fromkeys(chosen):
        found += [(tensor_type, "quantize"), (tensor_type, "dequantize")]
        if format_of(tensor_type).weighted is not None:
            found.append((tensor_type, "quantize_weighted"))
        if isinstance(format_of(tensor_type).dot, BlockDot):
            found += [(tensor_type, "multiply"), (tensor_type, "multiply-column")]
    if any(t and t.block_size == SUPER_BLOCK for t, job in found if job == "multiply"):
        found.append((TensorType.Q8_K, "consecutive"))
    return found


def run_jobs(cache_types: Iterable[TensorType]) -> list[Job]:
    """The kernels that running models needs, of weights of every type: those that multiply and dequantize.

    Caches of keys and values are packed in `cache_types`, activations in the partners of products.
    """
    known = [t for t in TensorType if has_format(t)]
    dots = {t: dot for t in known if isinstance(dot := format_of(t).dot, BlockDot)}
    packed = {*cache_types, *(dot.partner for dot in dots.values())}
    found: list[Job] = [(None, name) for name in FORWARD]
    found += [(t, "quantize") for t in known if t in packed]
    found += [(t, "dequantize") for t in known]
    for t in dots:
        found += [(t, "multiply"), (t, "multiply-column")]
    return [*found, (TensorType.Q8_K, "consecutive")]


def warm_up(todo: Sequence[Job], progress: Callable[[int, int], None] | None = None) -> Path:
    """Compile what is not in the cache yet; returns the folder that the kernels are in.

    `progress` is called with how many kernels are ready, and how many there are.  Raises `OptionError`
    if the cache is turned off or cannot be written to.
    """
    from kquant.kernels.cache import cache_folder

    if jit_is_disabled():
        raise OptionError("expected that Numba may compile kernels, got NUMBA_DISABLE_JIT")
    folder = cache_folder()
    if folder is None:
        raise OptionError("expected a cache to prepare, got none: let KQUANT_CACHE_DIR name a folder")
    _check_writable(folder)
    kernels: dict[str, Callable[[BlockFormat], Any]] = {
        "quantize": lambda f: f.quantizer.compiled(f.type),
        "quantize_weighted": lambda f: f.weighted and f.weighted.compiled(f.type),
        "dequantize": lambda f: f.decoder.compiled(f.type),
    }
    for done, (tensor_type, job) in enumerate(todo):
        if progress:
            progress(done, len(todo))
        if tensor_type is None:
            FORWARD[job]()
        elif job == "consecutive":
            layout()
        elif job.startswith("multiply"):
            multiplier(format_of(tensor_type), 2 if job == "multiply" else 1)
        else:
            kernels[job](format_of(tensor_type))
    if progress:
        progress(len(todo), len(todo))
    kept = {file.name.rpartition("-")[0] for file in folder.glob("*.kernel")} if folder.is_dir() else set()
    lacking = [job for t, job in todo if (f"{t.name.lower()}-{job}" if t else job) not in kept]
    if lacking:
        kept_count = len(todo) - len(lacking)
        raise OptionError(f"{folder}: expected {len(todo)} kernels, got {kept_count}: is it writable?")
    return folder


def _check_writable(folder: Path) -> None:
    """Raises `OptionError` before the work if no kernel could be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OptionError(f"{folder}: kernels cannot be kept there: {error.strerror}") from error
