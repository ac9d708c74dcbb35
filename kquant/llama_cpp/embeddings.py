"""Embeddings of texts as lists of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kquant.errors import OptionError
from kquant.llama_cpp.options import POOLINGS

if TYPE_CHECKING:
    from kquant.llama_cpp.steps import Steps

__all__ = ["embed"]


def embed(llama: Steps, texts: Sequence[str], *, normalize: bool, truncate: bool) -> tuple[list[Any], int]:
    """What `Llama.embed` gives, and the number of tokens."""
    if not llama.embedding:
        raise RuntimeError("Llama model must be created with embedding=True to call this method")
    pooling = POOLINGS.get(llama.pooling_type())
    if pooling is None:
        raise OptionError(f"pooling_type: expected 0 to 3, got {llama.pooling_type()}")
    found: list[Any] = []
    n = 0
    for text in texts:
        tokens = llama.tokenize(text.encode())
        if truncate:
            tokens = tokens[: llama.n_batch]
        if len(tokens) > llama.n_batch:
            raise OptionError(f"Requested tokens ({len(tokens)}) exceed batch size of {llama.n_batch}")
        n += len(tokens)
        rows = llama.llm.session().read(tokens, every=True, embeddings=True).astype(np.float64)
        if pooling == "none":
            found.append([_listed(row, normalize) for row in rows])
        else:
            row = rows.mean(axis=0) if pooling == "mean" else rows[0 if pooling == "cls" else -1]
            found.append(_listed(row, normalize))
    llama.reset()
    return found, n


def _listed(row: npt.NDArray[np.float64], normalize: bool) -> list[float]:
    length = float(np.sqrt((row**2).sum())) if normalize else 1.0
    numbers: list[float] = (row / (length or 1.0)).tolist()
    return numbers
