"""Products of rows with several weights, for callers that have checked both: a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kquant.formats import format_of
from kquant.kernels.execute import Execution, Floats
from kquant.kernels.language.dot import BlockDot
from kquant.parallel.pool import Pool
from kquant.products._engine import run
from kquant.products._loops import Job, is_beyond_cache
from kquant.products.activations import PackedActivations

if TYPE_CHECKING:
    from kquant.arrays.tensor import QuantizedTensor

__all__ = ["row_products"]


def row_products(
    weights: Sequence[QuantizedTensor], x: Floats, pool: Pool | None, execution: Execution
) -> list[Floats]:
    """`x @ w.T` for each weight (m, k) of packed blocks; x is C-contiguous float32 (n, k).

    The results, float32 (n, m), have the bits of `kquant.matmul`, and are not looked at.  Raises
    `NonFiniteError` if an activation is NaN or infinite.

    >>> import numpy as np, kquant
    >>> w = kquant.QuantizedTensor.from_numpy(np.eye(4, 256), "Q4_K")
    >>> [y.shape for y in row_products([w, w], np.ones((3, 256), np.float32), None, "numpy")]
    [(3, 4), (3, 4)]
    """
    if not len(x):  # between the batches of a prompt no logits are wanted
        return [np.empty((0, len(w.data)), np.float32) for w in weights]
    columns = PackedActivations.held(x.T)
    jobs, outs = [], []
    for w in weights:
        fmt = format_of(w.type)
        assert isinstance(fmt.dot, BlockDot)
        out = np.empty((len(x), len(w.data)), np.float32)
        (activations,) = columns.packed(fmt.dot.partner, execution, None, pool)
        jobs.append(Job(fmt, w.data, activations, out, is_beyond_cache(w.data.nbytes)))
        outs.append(out)
    run(jobs, execution, None, pool)
    return outs
