"""`python -m benchmarks.intensity`: the arithmetic of each search, and how close to the core's peak it runs.

The operations are counted while NumPy executes the kernels: one for every lane of every operator and
`where`; loads and stores do not count.  Numba compiles the same text, so it performs the same operations,
except for a few that it writes differently.  The peak is what additions and multiplications on registers
alone reach.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks import machine
from benchmarks.cases import K_QUANTS, LEGACY
from benchmarks.data import importance, weights
from benchmarks.measure import Spread
from kquant.arrays import codec
from kquant.formats import format_of
from kquant.kernels.compile import compiled, lane_count
from kquant.kernels.execute import BlockRounding, Search
from kquant.kernels.language.lanes import FEW, Rows, load, store
from kquant.kernels.language.mark import kernel
from kquant.types import TensorType

BLOCKS = 64
"""Blocks that are counted: so few that NumPy does for each lane what Numba does."""


class Counting(np.ndarray[Any, Any]):
    """An array that counts the numbers which operations on it make."""

    operations = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        plain = [np.asarray(value) if isinstance(value, Counting) else value for value in inputs]
        if out:
            kwargs["out"] = tuple(np.asarray(value) for value in out)
        result = np.asarray(getattr(ufunc, method)(*plain, **kwargs))
        Counting.operations += {"__call__": result.size, "reduce": plain[0].size - result.size}.get(method, 0)
        return result.view(Counting)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = super().__array_function__(function, types, args, kwargs)
        if function is not np.where:
            return result
        Counting.operations += result.size
        return result.view(Counting)  # it comes as a plain array


def counted(x: np.ndarray[Any, Any], t: TensorType, w: np.ndarray[Any, Any] | None) -> float:
    """Operations per element."""

    def counting(make: Any) -> Any:
        return lambda *args, **kwargs: make(*args, **kwargs).view(Counting)

    blocks = x.reshape(-1, t.block_size)[:BLOCKS]
    rows = np.ascontiguousarray(blocks.T).view(Counting)
    block = np.empty((t.type_size, BLOCKS), np.uint8)
    Counting.operations = 0
    with ExitStack() as stack:
        for name in ("empty", "empty_like", "zeros"):
            stack.enter_context(patch.object(np, name, counting(getattr(np, name))))
        stack.enter_context(np.errstate(all="ignore"))
        quantizer, weighted = format_of(t).quantizer, format_of(t).weighted
        if w is None and isinstance(quantizer, BlockRounding):
            few = blocks[: FEW // t.block_size].view(Counting)
            quantizer.quantize(few, np.empty((len(few), t.type_size), np.uint8))
            return Counting.operations / few.size
        if w is None:
            assert isinstance(quantizer, Search)
            quantizer.quantize(rows, block)
        else:
            assert weighted
            columns = np.arange(BLOCKS) * t.block_size % len(w)
            weight = np.stack([w[c : c + t.block_size] for c in columns], axis=1)
            mean = np.full((1, BLOCKS), np.mean(np.square(x[0])), np.float32)
            weighted.quantize(rows, weight.view(Counting), mean.view(Counting), block)
    return Counting.operations / rows.size


@kernel
def in_registers(x: Rows, out: Rows, n: int) -> None:
    a, b, c, d = load(x, 0), load(x, 1), load(x, 2), load(x, 3)
    factor, summand = load(x, 4), load(x, 5)
    for _ in range(n):
        a, b, c, d = a * factor, b * factor, c + summand, d + summand
    store(out, 0, a)
    store(out, 1, b)
    store(out, 2, c)
    store(out, 3, d)


def peak(n: int = 1_000_000) -> float:
    """Operations on a lane per nanosecond."""
    run = compiled(in_registers, "R(float32, 2), float32[:, ::1], intp", "in-registers")
    x = np.ones((6, lane_count()), np.float32)
    out = np.empty((4, lane_count()), np.float32)
    start = time.thread_time()
    run(x, out, n)
    return 4 * lane_count() * n / (time.thread_time() - start) / 1e9


def measured(x: np.ndarray[Any, Any], t: TensorType, w: np.ndarray[Any, Any] | None) -> tuple[float, float]:
    """Elements per nanosecond, and the peak in the same moments."""
    codec.quantize(x[:64], t, w, threads=1)
    speeds, peaks = [], []
    for _ in range(5):
        peaks.append(peak())
        start = time.thread_time()
        codec.quantize(x, t, w, threads=1)
        speeds.append(x.size / (time.thread_time() - start) / 1e9)
    return Spread.of(speeds).median, Spread.of(peaks).median


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intensity", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), help="folder for intensity.json"
    )
    options = parser.parse_args(argv)
    x, w = weights(1024), importance()
    rows = []
    print(f"{'':24}{'per element':>12}{'per byte':>10}{'of the peak':>13}")
    for weighted, name in [(weighted, name) for weighted in (False, True) for name in K_QUANTS + LEGACY]:
        t = TensorType[name]
        if weighted and format_of(t).weighted is None:
            continue
        operations = counted(x, t, w if weighted else None)
        speed, most = measured(x, t, w if weighted else None)
        row = {
            "type": name,
            "weighted": weighted,
            "per_element": operations,
            "per_byte": operations / (4 + t.bits_per_element / 8),
            "of_peak": operations * speed / most,
        }
        rows.append(row)
        label = f"{name} with weights" if weighted else name
        print(f"{label:24}{operations:12.0f}{row['per_byte']:10.0f}{row['of_peak']:13.0%}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine.facts(), "results": rows}
    (options.out / "intensity.json").write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
