"""What a format is: a typed object that says how its blocks are laid out, filled, read and multiplied.

A module for each tensor type makes one `BlockFormat`, named FORMAT; `kquant.formats` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kquant.formats.fields import Fields
from kquant.kernels.execute import (
    Bytes,
    Decoder,
    Execution,
    Floats,
    Quantizer,
    WeightedSearch,
)
from kquant.kernels.language.dot import BlockDot, NumberDot
from kquant.types import TensorType

__all__ = ["BlockFormat", "Field"]


class Field(NamedTuple):
    """A field of a block."""

    name: str
    offset: int
    """Bytes before it."""
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class BlockFormat:
    """How the blocks of one tensor type are laid out, filled, read and multiplied."""

    description: str
    """The module's docstring: the formula, the table of bytes, the picture of the bits, the source."""
    type: TensorType
    layout: np.dtype[Any]
    """The block as a structured dtype, little endian."""
    unpack: Callable[[Bytes], Fields]
    """uint8 (..., n * type_size) -> fields by name; bits only, any bytes."""
    pack: Callable[[Fields], Bytes]
    """The inverse of `unpack`."""
    decoder: Decoder
    quantizer: Quantizer
    weighted: WeightedSearch | None = None
    """The search with importance weights; None where ggml ignores them."""
    dot: BlockDot | NumberDot | None = None
    """Products with packed activations; None for the types that activations are packed in."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of the block, in the order of its bytes."""
        found = self.layout.fields
        assert found is not None
        return tuple(Field(name, at[1], at[0]) for name, at in found.items())

    def quantize_rows(
        self,
        x: Floats,
        importance: Floats | None,
        out: Bytes,
        execution: Execution,
        *,
        large: bool = False,
        limited: bool = False,
    ) -> int:
        """float32 (n_rows, n_per_row) to uint8 (n_rows, row_bytes), both C-contiguous.

        large: `out` is part of more than stays in a cache.
        limited: Stop also at magnitudes of which the format does not surely hold every one; searches
            with importance weights know none and do not.

        Returns -1, or the index of a block before which all values were finite, where some are not.
        """
        if importance is None or self.weighted is None:
            return self.quantizer(self.type, x, out, execution, large=large, limited=limited)
        return self.weighted(self.type, x, importance, out, execution)

    def dequantize_rows(self, data: Bytes, out: Floats, execution: Execution, *, large: bool = False) -> None:
        """uint8 (n_rows, row_bytes) to float32 (n_rows, n_per_row), both C-contiguous; large: as above."""
        self.decoder(self.type, data, out, execution, large=large)
