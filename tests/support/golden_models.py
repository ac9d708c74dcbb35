"""Golden models that run: llama.cpp's logits for them."""

from __future__ import annotations

import lzma
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[1] / "golden" / "runtime"
NAMES = sorted(path.name.removesuffix(".gguf.xz") for path in (FOLDER / "archs").glob("*.gguf.xz"))

_folder = tempfile.TemporaryDirectory(prefix="kquant-golden-")


@cache
def model_path(name: str) -> Path:
    """A golden model, unpacked for this process."""
    path = Path(_folder.name, f"{name}.gguf")
    path.write_bytes(lzma.decompress((FOLDER / "archs" / f"{name}.gguf.xz").read_bytes()))
    return path


def recorded(name: str) -> dict[str, Any]:
    """The arrays that go with it: `tokens` and `logits`."""
    with np.load(FOLDER / "archs" / f"{name}.npz") as archive:
        return dict(archive)


def squared_error(found: Any, expected: Any) -> float:
    """The normalized mean squared error."""
    difference = found.astype(np.float64) - expected
    return float((difference**2).sum() / (expected.astype(np.float64) ** 2).sum())
