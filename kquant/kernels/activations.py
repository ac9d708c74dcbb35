"""Packed activations as products read them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from kquant.kernels.consecutive import Consecutive, consecutive_of
from kquant.kernels.execute import aligned_empty
from kquant.kernels.language.products import Columns
from kquant.kernels.layout import CENTER, MIDDLE, SUPER_BLOCK, block_of_column

__all__ = ["Activations"]


class Activations:
    """Columns of packed activations."""

    def __init__(self, fields: Mapping[str, Any], block_size: int, *, trusted: bool = False) -> None:
        """fields: of the unpacked blocks, (columns, blocks, ...); trusted: kquant has packed them."""
        self._size, self._trusted = block_size, trusted
        n_columns = len(fields["q"])
        self._fields = {key: fields[key].reshape(n_columns, -1) for key in fields}
        self._q = self._fields.pop("q").reshape(n_columns, -1, self._size)

    @property
    def n_blocks(self) -> int:
        """Of each column."""
        return int(self._q.shape[1])

    @cached_property
    def columns(self) -> Columns:
        """(blocks, columns)."""
        n, size, fields = len(self._q), self._size, self._fields
        columns = aligned_empty((self.n_blocks, n), block_of_column(size))
        columns["q"] = self._q.swapaxes(0, 1)
        columns["factors"] = 0
        for i, key in enumerate(key for key in ("d", "s") if key in fields):
            columns["factors"][..., i] = fields[key].T
        if size == SUPER_BLOCK:
            columns["sums"] = fields["bsums"].reshape(n, -1, size // 32, 2).swapaxes(0, 1)
            _put_sums(columns)
        else:
            columns["negative"] = self._q.astype(np.float32).swapaxes(0, 1) @ np.full(size, -1, np.float32)
        return columns

    @cached_property
    def are_true(self) -> bool:
        """Whether super-blocks say the sums of their own activations; compiled products rely on that."""
        if self._trusted or self._size != SUPER_BLOCK:
            return True
        sums = self._q.reshape(*self._q.shape[:2], 16, 16).sum(3, np.int32)
        return bool((self._fields["bsums"].reshape(sums.shape) == sums).all())

    @cached_property
    def consecutive(self) -> Consecutive:
        """Of a single column of super-blocks, for this CPU."""
        return consecutive_of(self._q[0], self._fields["d"][0])


def _put_sums(columns: Columns) -> None:
    """What is made of sums of 16 and of 32 elements: two digits, `128 * high + low`, and centers."""
    sums = columns["sums"].reshape(*columns.shape, -1).astype(np.int32)
    both = np.concatenate([sums, sums[..., ::2] + sums[..., 1::2]], -1)
    columns["high"], columns["low"] = both >> 7, both & 127
    columns["centers"][..., :-1] = -CENTER * sums
    columns["centers"][..., -1] = -MIDDLE * sums.sum(-1)
