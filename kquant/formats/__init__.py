"""The formats: one module for each tensor type, which makes its `BlockFormat`.

Every module is furnished in the same order: the docstring (formula, bytes, picture of the bits, source),
the layout, `unpack` and `pack`, the kernels that dequantize, quantize and multiply, and the object that
names them.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from kquant.errors import UnsupportedTypeError
from kquant.types import TensorType

if TYPE_CHECKING:
    from kquant.formats.base import BlockFormat

__all__ = ["MODULES", "format_of", "has_format"]

MODULES = {
    TensorType.F32: "floats.f32",
    TensorType.F16: "floats.f16",
    TensorType.BF16: "floats.bf16",
    TensorType.Q4_0: "legacy.q4_0",
    TensorType.Q4_1: "legacy.q4_1",
    TensorType.Q5_0: "legacy.q5_0",
    TensorType.Q5_1: "legacy.q5_1",
    TensorType.Q8_0: "legacy.q8_0",
    TensorType.Q8_1: "legacy.q8_1",
    TensorType.Q2_K: "k.q2_k",
    TensorType.Q3_K: "k.q3_k",
    TensorType.Q4_K: "k.q4_k",
    TensorType.Q5_K: "k.q5_k",
    TensorType.Q6_K: "k.q6_k",
    TensorType.Q8_K: "k.q8_k",
    TensorType.IQ4_NL: "iq.iq4_nl",
    TensorType.MXFP4: "fp4.mxfp4",
}
"""The registry: the module of each format, imported when the format is first asked for."""


def has_format(tensor_type: TensorType) -> bool:
    """Whether kquant can encode and decode this type."""
    return tensor_type in MODULES


@cache
def format_of(tensor_type: TensorType) -> BlockFormat:
    """The format of a type.

    Raises `UnsupportedTypeError` for the types of ggml that kquant has no format for.
    """
    if tensor_type not in MODULES:
        raise UnsupportedTypeError(
            f"{tensor_type.name}: ggml defines this type, but kquant has no codec for it"
        )
    found: BlockFormat = import_module(f"{__name__}.{MODULES[tensor_type]}").FORMAT
    return found
