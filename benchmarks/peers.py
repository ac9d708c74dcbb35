"""The others: ggml (ggml-python), gguf-py, libgguf.  Each returns new arrays, as kquant does."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kquant.types import TensorType

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_FLOATS = ctypes.POINTER(ctypes.c_float)
_FROM_FLOAT = ctypes.CFUNCTYPE(None, _FLOATS, ctypes.c_void_p, ctypes.c_int64)
_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, _FLOATS, ctypes.c_int64)

# the vectorised conversions of ggml's CPU backend: faster than those of libggml-base
_CPU_CONVERSIONS = {"F16": "fp16", "BF16": "bf16"}
_ROW_QUANTIZERS = {"Q8_1": "quantize_row_q8_1_ref", "Q8_K": "quantize_row_q8_K_ref"}


@cache
def _ggml() -> Any:
    from ggml import ggml

    return ggml


def _floats(x: Floats) -> Any:
    return x.ctypes.data_as(_FLOATS)


def _function(prototype: Any, name: str) -> Any:
    """A function of ggml's libraries by its name in C."""
    return ctypes.cast(getattr(_ggml().lib, name), prototype)


def ggml_quantize(x: Floats, t: TensorType, weights: Floats | None = None) -> Bytes:
    """What ggml makes of contiguous rows, on one thread."""
    packed = np.empty((x.shape[0], t.row_bytes(x.shape[1])), np.uint8)
    if t.name in _CPU_CONVERSIONS:
        convert = _function(_FROM_FLOAT, f"ggml_cpu_fp32_to_{_CPU_CONVERSIONS[t.name]}")
        convert(_floats(x), packed.ctypes.data, x.size)
    elif t.name in _ROW_QUANTIZERS:
        _function(_FROM_FLOAT, _ROW_QUANTIZERS[t.name])(_floats(x), packed.ctypes.data, x.size)
    else:
        imatrix = None if weights is None else _floats(weights)
        _ggml().ggml_quantize_chunk(t.id, _floats(x), packed.ctypes.data, 0, *x.shape, imatrix)
    return packed


def ggml_dequantize(packed: Bytes, t: TensorType) -> Floats:
    """What ggml's `to_float` makes of contiguous packed rows."""
    n_per_row = packed.shape[1] // t.type_size * t.block_size
    values = np.empty((packed.shape[0], n_per_row), np.float32)
    if t.name in _CPU_CONVERSIONS:
        to_float = _function(_TO_FLOAT, f"ggml_cpu_{_CPU_CONVERSIONS[t.name]}_to_fp32")
    elif t is TensorType.Q8_K:
        to_float = _function(_TO_FLOAT, "dequantize_row_q8_K")
    else:
        to_float = _ggml().ggml_get_type_traits(t.id).contents.to_float
    to_float(packed.ctypes.data, _floats(values), values.size)
    return values


def gguf_quantize(x: Floats, t: TensorType) -> Bytes:
    """gguf-py's quantizers, for the types that it has them for."""
    from gguf import GGMLQuantizationType, quants

    packed: Bytes = quants.quantize(x, GGMLQuantizationType(t.id)).view(np.uint8)
    return packed


def gguf_dequantize(packed: Bytes, t: TensorType) -> Floats:
    """gguf-py's decoders."""
    from gguf import GGMLQuantizationType, quants

    values: Floats = quants.dequantize(packed, GGMLQuantizationType(t.id))
    return values


def libgguf_quantize(x: Floats, t: TensorType, weights: Floats | None = None) -> Bytes:
    """What libgguf, ggml's quantizers in a package of their own, makes of rows."""
    import libgguf

    packed: Bytes = libgguf.quantize_rows(x, t.id, imatrix=weights).view(np.uint8)
    return packed


def libgguf_dequantize(packed: Bytes, t: TensorType) -> Floats:
    """The same in the other direction: packed rows to values."""
    import libgguf

    values: Floats = libgguf.dequantize_rows(packed, t.id)
    return values
