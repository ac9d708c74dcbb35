"""ggml itself, called through ggml-python: the live oracle.

`reason` says why the oracle cannot be used, and is empty when it can.  ggml's `libggml-base`, which
holds the quantizers, is built for the baseline of the architecture: on x86-64 that is SSE2 without
fused multiply-add, so its float32 arithmetic is exactly what the C source spells.  On machines whose
baseline has FMA (arm64) a compiler may contract `a * b + c`, and a build must be made with
`CFLAGS=-ffp-contract=off` to be an oracle; `contracts()` finds that out by asking.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kquant.types import TensorType
from support import golden

_ggml: Any
try:
    _ggml = import_module("ggml.ggml")
except (ImportError, OSError, RuntimeError) as error:
    _ggml, reason = None, f"ggml-python cannot be used: {error}"
else:
    reason = ""

_ROW_FUNCTIONS = {"Q8_1": "q8_1", "Q8_K": "q8_K"}
_DIVISORS = {"Q4_0": 8, "Q4_1": 15, "Q5_0": 16, "Q5_1": 31, "Q8_0": 127, "Q8_1": 127}
_FLOATS = ctypes.POINTER(ctypes.c_float)


def knows(t: TensorType) -> bool:
    """Whether this ggml has the type."""
    return not (reason or t.removed) and t.id < _ggml.GGML_TYPE_COUNT


def quantize(
    x: NDArray[np.float32], type_name: str, weights: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """float32 (n_rows, n_per_row) → uint8 (n_rows, row_bytes), by ggml on one thread."""
    t = TensorType[type_name]
    x = np.ascontiguousarray(x, np.float32)
    n_rows, n_per_row = x.shape
    out = np.zeros((n_rows, t.row_bytes(n_per_row)), np.uint8)
    if type_name in _ROW_FUNCTIONS:
        row = _base_function(f"quantize_row_{_ROW_FUNCTIONS[type_name]}_ref")
        row(_floats(x), out.ctypes.data, x.size)
    else:
        imatrix = None if weights is None else _floats(np.ascontiguousarray(weights, np.float32))
        written = _ggml.ggml_quantize_chunk(t.id, _floats(x), out.ctypes.data, 0, n_rows, n_per_row, imatrix)
        assert written == out.nbytes
    return out


def dequantize(data: NDArray[np.uint8], type_name: str) -> NDArray[np.float32]:
    """uint8 (n_rows, row_bytes) → float32 (n_rows, n_per_row), by ggml's `to_float`."""
    t = TensorType[type_name]
    data = np.ascontiguousarray(data, np.uint8)
    n_rows, row_bytes = data.shape
    out = np.empty((n_rows, row_bytes // t.type_size * t.block_size), np.float32)
    if type_name == "Q8_K":
        to_float = _base_function("dequantize_row_q8_K", reads_floats=False)
    else:
        to_float = _ggml.ggml_get_type_traits(t.id).contents.to_float
    to_float(data.ctypes.data, _floats(out), out.size)
    return out


def validate(data: NDArray[np.uint8], type_name: str) -> bool:
    """What `ggml_validate_row_data` says of packed rows; it also prints to stderr when it refuses."""
    data = np.ascontiguousarray(data, np.uint8)
    return bool(_ggml.ggml_validate_row_data(TensorType[type_name].id, data.ctypes.data, data.nbytes))


def is_defined(
    x: NDArray[np.float32], type_name: str, weights: NDArray[np.float32] | None = None
) -> NDArray[np.bool_]:
    """Which rows have one result in C: bool (n_rows,).

    The legacy quantizers that do not search multiply with 1 / d and cast the product to an integer.
    Where d is so small that 1 / d is infinite, the cast is undefined.  MXFP4 casts exponents to bytes, and
    those of blocks below 2**-125 are negative.
    """
    if type_name == "MXFP4":
        magnitudes = np.abs(x.reshape(len(x), -1, 32)).max(axis=2)
        scaled: NDArray[np.bool_] = ((magnitudes == 0) | (magnitudes >= 2.0**-125)).all(axis=1)
        return scaled
    if type_name not in _DIVISORS or (weights is not None and type_name != "Q8_0"):
        return np.ones(len(x), np.bool_)
    blocks = x.reshape(len(x), -1, 32)
    with np.errstate(all="ignore"):
        if type_name in ("Q4_1", "Q5_1"):
            blocks = blocks - blocks.min(axis=2, keepdims=True)
        d = np.abs(blocks).max(axis=2) / np.float32(_DIVISORS[type_name])
        defined: NDArray[np.bool_] = ((d == 0) | np.isfinite(1 / d)).all(axis=1)
    return defined


@cache
def contracts() -> bool:
    """True if this build's quantizers differ from the golden bytes: its compiler fused operations."""
    cases = [case for t in ("Q4_K", "Q6_K") for case in golden.quantized(t) if case.input == "normal"]
    return any(not np.array_equal(quantize(case.x, case.type, case.weights), case.bytes) for case in cases)


def _floats(array: NDArray[np.float32]) -> Any:
    return array.ctypes.data_as(_FLOATS)


@cache
def _base_function(name: str, *, reads_floats: bool = True) -> Any:
    function = getattr(_ggml.lib, name)
    source, target = (_FLOATS, ctypes.c_void_p) if reads_floats else (ctypes.c_void_p, _FLOATS)
    function.argtypes, function.restype = (source, target, ctypes.c_int64), None
    return function
