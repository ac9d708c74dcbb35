"""Which model `kquant run` and `kquant bench` take."""

from __future__ import annotations

from pathlib import Path

__all__ = ["model_or_demo"]


def model_or_demo(path: Path | None) -> Path:
    """A model that is named, else SmolLM2, if its package is installed.

    Raises `MissingModelError`, which says how to install it.
    """
    if path is not None:
        return path
    from kquant.cli.demo import find_model

    return find_model()
