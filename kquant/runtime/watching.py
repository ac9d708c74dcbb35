"""What looks on while a model runs: importance matrices, statistics of a user's own."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Watcher"]


class Watcher(Protocol):
    """Is called before each linear layer."""

    def __call__(self, name: str, x: npt.NDArray[np.float32], expert: int | None) -> None:
        """name: of the weight; x: its input, float32 (n_tokens, n_in); expert: which of a stack, or None."""
