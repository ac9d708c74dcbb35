"""The keys and values of a sequence, packed in a tensor type of choice.

A row holds those of all heads of one token in one layer; the rows of a layer lie side by side.  Memory grows
with the sequence, so that a large context costs nothing until it is used.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kquant.arrays.codec import execution_of
from kquant.errors import ModelError, NonFiniteError, OptionError
from kquant.formats import format_of
from kquant.kernels.execute import WHOLE, Execution, aligned_empty
from kquant.types import TensorType

__all__ = ["CACHE_TYPES", "Cache", "cache_type"]

CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
"""The types that keys and values can be packed in."""
LEAST = 64
"""Tokens that memory is taken for at first."""

_Floats = npt.NDArray[np.float32]


def cache_type(name: TensorType | str, option: str) -> TensorType:
    """The tensor type of that name.  Raises `OptionError` if caches cannot be of it."""
    found = name.name if isinstance(name, TensorType) else str(name).upper()
    if found not in CACHE_TYPES:
        raise OptionError(f"{option}: expected one of {', '.join(CACHE_TYPES)}, got {str(name)!r:.40}")
    return TensorType[found]


class Cache:
    """Keys and values of up to `capacity` tokens.

    Args:
        widths: Elements of a token's keys and of its values, for each layer.
        capacity: Tokens at most.
        type_k: One of `CACHE_TYPES`, for the keys.
        type_v: The same for the values.

    Raises `ModelError` if the width of a row is not a whole number of the type's blocks.
    """

    def __init__(
        self,
        widths: list[tuple[int, int]],
        capacity: int,
        type_k: TensorType,
        type_v: TensorType,
        execution: Execution | None = None,
    ) -> None:
        self.types = type_k, type_v
        self.capacity = capacity
        self.length = 0
        """Tokens whose keys and values are there."""
        self._execution = execution_of(execution)
        self._widths = widths
        for layer, pair in enumerate(widths):
            for tensor_type, width, what in zip(self.types, pair, ("keys", "values"), strict=True):
                if width % tensor_type.block_size:
                    raise ModelError(
                        f"layer {layer}: expected {what} in blocks of {tensor_type.block_size} for a cache "
                        f"of {tensor_type.name}, got {width} elements a token"
                    )
        self._rows = [[np.empty((0, t.row_bytes(n)), np.uint8) for t, n in zip(self.types, pair, strict=True)]
                      for pair in widths]  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return sum(rows.nbytes for pair in self._rows for rows in pair)

    @property
    def bytes_at_most(self) -> int:
        """Bytes of memory when it is full."""
        types, n = self.types, self.capacity
        return n * sum(t.row_bytes(w) for pair in self._widths for t, w in zip(types, pair, strict=True))

    def put(self, layer: int, position: int, k: _Floats, v: _Floats) -> None:
        """Keep the keys and values, float32 (n, width), of the tokens from a position on."""
        end = position + len(k)
        assert end <= self.capacity
        for i, values in enumerate((k, v)):
            rows = self._rows[layer][i]
            if len(rows) < end:
                size = min(max(2 * len(rows), end, LEAST), self.capacity)
                larger = np.empty((size, rows.shape[1]), np.uint8)
                larger[: len(rows)] = rows
                rows = self._rows[layer][i] = larger
            x = np.ascontiguousarray(values)
            if format_of(self.types[i]).quantize_rows(x, None, rows[position:end], self._execution) != WHOLE:
                what = "keys" if i == 0 else "values"
                raise NonFiniteError(f"layer {layer}: expected finite {what} to keep in the cache")

    def keys(self, layer: int, first: int, last: int) -> _Floats:
        """float32 (last - first, width)."""
        return self._unpacked(layer, 0, first, last)

    def values(self, layer: int, first: int, last: int) -> _Floats:
        """float32 (last - first, width)."""
        return self._unpacked(layer, 1, first, last)

    def _unpacked(self, layer: int, which: int, first: int, last: int) -> _Floats:
        out = aligned_empty((last - first, self._widths[layer][which]), np.float32)
        rows = self._rows[layer][which][first:last]
        format_of(self.types[which]).dequantize_rows(rows, out, self._execution)
        return out

    def stored(self, layer: int, last: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """The packed rows of keys and of values of the first tokens."""
        k, v = self._rows[layer]
        return k[:last], v[:last]

    def truncate(self, length: int) -> None:
        """Forget the tokens from a position on."""
        self.length = min(self.length, max(length, 0))

    def copy(self) -> Cache:
        """Another cache with the same content, for a sequence that goes on from here."""
        other = Cache(self._widths, self.capacity, *self.types, execution=self._execution)
        other.length = self.length
        other._rows = [[rows[: self.length].copy() for rows in pair] for pair in self._rows]
        return other

    def state(self) -> dict[str, npt.NDArray[np.uint8]]:
        """The packed rows of all layers, for saving."""
        names = "keys", "values"
        return {
            f"{what}.{layer}": self._rows[layer][i][: self.length]
            for layer in range(len(self._widths))
            for i, what in enumerate(names)
        }

    def restore(self, state: dict[str, npt.NDArray[np.uint8]], length: int) -> None:
        """Take over what `state` gave of a cache of the same model and types.  Raises `OptionError`."""
        if length > self.capacity:
            raise OptionError(f"expected a session of up to {self.capacity} tokens, got {length}")
        taken = []
        for layer, pair in enumerate(self._rows):
            for i, what in enumerate(("keys", "values")):
                rows, shape = state.get(f"{what}.{layer}"), (length, pair[i].shape[1])
                if rows is None or rows.shape != shape or rows.dtype != np.uint8:
                    got = "none" if rows is None else f"{rows.dtype} {rows.shape}"
                    raise OptionError(f"{what} of layer {layer}: expected uint8 {shape}, got {got}")
                taken.append(np.array(rows, order="C"))
        self._rows = [list(pair) for pair in zip(taken[::2], taken[1::2], strict=True)]
        self.length = length
