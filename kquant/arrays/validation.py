"""Whether packed data holds numbers: what `ggml_validate_row_data` refuses, for every type of ggml.

Source: https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kquant.errors import InvalidDataError
from kquant.formats import format_of, has_format
from kquant.types import TensorType

__all__ = ["check_finite"]

_SCALE_AT = {
    TensorType.IQ1_S: 0,
    TensorType.IQ2_XXS: 0,
    TensorType.IQ2_XS: 0,
    TensorType.IQ2_S: 0,
    TensorType.IQ3_XXS: 0,
    TensorType.IQ3_S: 0,
    TensorType.IQ4_NL: 0,
    TensorType.IQ4_XS: 0,
    TensorType.TQ1_0: 52,
    TensorType.TQ2_0: 64,
    TensorType.Q1_0: 0,
    TensorType.Q2_0: 0,
}
"""Where the types without a codec keep their fp16 scale."""

_EXPONENT = {"f2": 0x7C00, "bf16": 0x7F80, "f4": 0x7F800000, "f8": 0x7FF0000000000000}


class _Number(NamedTuple):
    name: str
    at: int
    kind: str

    @property
    def size(self) -> int:
        """Bytes."""
        return 2 if self.kind == "bf16" else int(self.kind[1])


@cache
def _numbers(tensor_type: TensorType) -> tuple[_Number, ...]:
    """The floats in a block of this type."""
    if tensor_type is TensorType.BF16:
        return (_Number("x", 0, "bf16"),)
    if tensor_type is TensorType.F64:
        return (_Number("x", 0, "f8"),)
    if has_format(tensor_type):
        fields = format_of(tensor_type).fields
        return tuple(_Number(f.name, f.offset, f.dtype.str[1:]) for f in fields if f.dtype.kind == "f")
    return (_Number("d", _SCALE_AT[tensor_type], "f2"),) if tensor_type in _SCALE_AT else ()


def check_finite(
    data: npt.NDArray[np.uint8],
    tensor_type: TensorType,
    where: str = "",
    first: int = 0,
    n_per_row: int | None = None,
    byteorder: str = "little",
) -> None:
    """Raises `InvalidDataError` if a scale or value in packed rows is NaN or infinite.

    Args:
        data: uint8, a whole number of blocks.
        tensor_type: Their type.
        where: Put before the message.
        first: Elements of the tensor before these, for the message.
        n_per_row: Elements of a row of the tensor, for the message; None if the rows are those of `data`.
        byteorder: That of the data.

    The integer types and NVFP4 cannot represent either.  In IQ1_M and MXFP4 the one exponent that is
    not a number is refused.
    """
    blocks = np.ascontiguousarray(data).reshape(-1, tensor_type.type_size)
    for name, bad in _suspects(blocks, tensor_type, byteorder):
        if bad.any():
            block_size = tensor_type.block_size
            per_row = n_per_row // block_size if n_per_row else data.shape[-1] // tensor_type.type_size
            row, block = divmod(first // block_size + int(np.argmax(bad)), per_row)
            raise InvalidDataError(
                f"{where}{tensor_type.name}: expected finite numbers, got NaN or infinity for {name} "
                f"in row {row}, block {block}"
            )


def _suspects(
    blocks: npt.NDArray[np.uint8], tensor_type: TensorType, byteorder: str
) -> list[tuple[str, npt.NDArray[Any]]]:
    if tensor_type is TensorType.MXFP4:
        return [("e", blocks[:, 0] == 0xFF)]
    mark = "<>"[byteorder == "big"]
    if tensor_type is TensorType.IQ1_M:  # the four scale words carry the fp16 scale in their high nibbles
        words = np.ascontiguousarray(blocks[:, 48:]).view(f"{mark}u2")
        return [("d", (words[:, 3] & 0x7000 == 0x7000) & (words[:, 2] & 0xC000 == 0xC000))]
    found = []
    for number in _numbers(tensor_type):
        bits = blocks[:, number.at : number.at + number.size].view(f"{mark}u{number.size}")[:, 0]
        exponent = bits.dtype.type(_EXPONENT[number.kind])
        found.append((number.name, (bits & exponent) == exponent))
    return found
