"""Dot products of packed rows beside ggml's SIMD code: `python -m benchmarks.dot`.

Rows of 4096 elements times one row of activations, one thread, by turns: 64 rows that stay in the cache,
and 16384 that come from memory.  A compiled loop calls ggml's function row by row.  Then 64 columns at
once beside 64 times one column.
"""

from __future__ import annotations

import argparse
import ctypes
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np

import kquant
from benchmarks import machine
from benchmarks.data import ROW, weights
from benchmarks.measure import by_turns
from kquant.dot import blocks_of_rows, dot_kernel, vec_dot_type
from kquant.formats import room
from kquant.types import TensorType

FUNCTIONS = {
    **{f"Q{bits}_K": f"ggml_vec_dot_q{bits}_K_q8_K" for bits in range(2, 7)},
    "Q4_0": "ggml_vec_dot_q4_0_q8_0",
    "Q5_0": "ggml_vec_dot_q5_0_q8_0",
    "Q8_0": "ggml_vec_dot_q8_0_q8_0",
    "Q4_1": "ggml_vec_dot_q4_1_q8_1",
    "Q5_1": "ggml_vec_dot_q5_1_q8_1",
}
ROWS = {"cache": 64, "memory": 1 << 14}
COLUMNS = 64


@numba.njit  # type: ignore[untyped-decorator]
def row_by_row(function: Any, n: int, w: Any, a: Any, out: Any) -> None:
    for i in range(len(out)):
        function(n, out.ctypes.data + 4 * i, 0, w.ctypes.data + i * w.shape[1], 0, a.ctypes.data, 0, 1)


def ggml_function(name: str) -> Any:
    from ggml import ggml

    ggml.ggml_cpu_init()  # its table of fp16 numbers
    function = getattr(ctypes.CDLL(str(Path(ggml.__file__).parent / "lib/libggml-cpu.so")), FUNCTIONS[name])
    p, n, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    function.argtypes, function.restype = (n, p, size, p, size, p, size, n), None
    return function


def measure_dot(name: str, n_rows: int, seconds: float) -> dict[str, float]:
    """ggml's time over kquant's, and kquant's time for 256 elements."""
    t, partner = TensorType[name], vec_dot_type(name)
    w = np.resize(kquant.quantize(weights(64), t), (n_rows, t.row_bytes(ROW)))
    a = kquant.quantize(np.random.default_rng(2).standard_normal((1, ROW), np.float32), partner)
    ours, theirs = np.empty(n_rows, np.float32), np.empty(n_rows, np.float32)
    indices = np.arange(n_rows), np.zeros(n_rows, np.intp)
    blocks = blocks_of_rows(w, t), blocks_of_rows(a, partner)
    runs = {
        "kquant": partial(dot_kernel(room(t)), *blocks, *indices, ours),
        "ggml": partial(row_by_row, ggml_function(name), ROW, w, a[0], theirs),
    }
    for run in runs.values():
        run()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())
    times = by_turns(runs, seconds)
    nanoseconds = 1e9 * times.of("kquant").median / (n_rows * ROW / 256)
    return {"ratio": times.ratio("kquant", "ggml").median, "ns": nanoseconds}


def measure_matmul(name: str, seconds: float) -> float:
    """Throughput with 64 columns over that with one."""
    w = kquant.QuantizedTensor(kquant.quantize(weights(512), name), name)
    x = np.random.default_rng(2).standard_normal((ROW, COLUMNS), np.float32)
    runs = {"matrix": partial(kquant.matmul, w, x, 1), "vector": partial(kquant.matmul, w, x[:, 0], 1)}
    for run in runs.values():
        run()
    return COLUMNS * by_turns(runs, seconds).ratio("matrix", "vector").median


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dot", description=__doc__)
    parser.add_argument("types", nargs="*", default=list(FUNCTIONS), help="default: all")
    parser.add_argument("--seconds", type=float, default=2, help="time for each figure (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), help="folder for dot.json")
    options = parser.parse_args(argv)
    results = {}
    print(f"{'':5}{'times ggml: cache':>20}{'memory':>9}{'ns per 256':>12}{f'{COLUMNS} columns':>12}")
    for name in options.types:
        row = {place: measure_dot(name, n, options.seconds) for place, n in ROWS.items()}
        columns = measure_matmul(name, options.seconds)
        results[name] = {**row, "columns": columns}
        cache, memory = row["cache"], row["memory"]
        print(
            f"{name:5}{cache['ratio']:20.2f}{memory['ratio']:9.2f}{cache['ns']:12.1f}{columns:12.2f}",
            flush=True,
        )
    options.out.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine.facts(), "results": results}
    (options.out / "dot.json").write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
