"""The GGUF file format as constants and limits.

::

    magic "GGUF" | version u32 | tensor count i64 | key/value count i64
    key/value pairs    key (string) | value type i32 | value
    tensor infos       name (string) | dimensions u32 | ne[0] ne[1] … i64 | tensor type i32 | offset u64
    padding to `general.alignment`
    tensor data        each tensor padded to `general.alignment`; the offsets above count from here

    string             length u64 | bytes, UTF-8 by convention, without a final NUL
    array              element type i32 | count u64 | elements

Integers have the byte order of the machine that wrote the file; a reader tells it from the version,
whose low 16 bits are zero when it is read in the wrong byte order.

The reader checks every count against the bytes that are left in the file before it allocates
anything; the limits below hold for files of any size. The upstream reader:
https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/gguf.cpp
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final, Literal, TypeAlias

from gguf import GGUFValueType

from kquant.errors import GGUFLimitError, UnknownTypeError
from kquant.types import TensorType

ByteOrder: TypeAlias = Literal["little", "big"]

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
ALIGNMENT_KEY: Final = "general.alignment"
DEFAULT_ALIGNMENT: Final = 32

MAX_STRING_BYTES: Final = 1 << 30
"""Longest string, as upstream has it."""
MAX_ARRAY_ELEMENTS: Final = 1 << 30
"""Most elements of an array, as upstream has it."""
MAX_KEY_BYTES: Final = (1 << 16) - 1
"""Longest key, as the format's description has it."""
MAX_NAME_BYTES: Final = 63
"""Longest tensor name: ggml keeps 64 bytes with the final NUL."""
MAX_DIMS: Final = 4
"""Most dimensions of a tensor."""
MAX_KV: Final = 1 << 16
"""Most key/value pairs; models have less than a hundred, upstream has no limit."""
MAX_TENSORS: Final = 1 << 18
"""Most tensors in one file; the largest models have some thousands, upstream has no limit."""
MAX_FILE_BYTES: Final = (1 << 63) - 1
"""Longest file that a file offset can reach; also the largest number of elements of a tensor."""

MIN_KV_BYTES: Final = 8 + 1 + 4 + 1
"""A key of one letter and a byte."""
MIN_TENSOR_BYTES: Final = 8 + 4 + 4 + 8
"""A nameless tensor without dimensions, which upstream accepts."""

SCALAR_CODES: Final[dict[int, str]] = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
"""The value types of fixed size, as `struct` and NumPy name them after a byte order."""

ORDER_MARK: Final[dict[str, str]] = {"little": "<", "big": ">"}
"""The byte order as `struct` and NumPy mark it."""


def align(position: int, alignment: int) -> int:
    """The next multiple of `alignment`, a power of two.

    >>> align(33, 32), align(64, 32)
    (64, 64)
    """
    return (position + alignment - 1) & -alignment


def is_alignment(value: int) -> bool:
    """True for the powers of two, which is what `general.alignment` may be."""
    return value > 0 and value & (value - 1) == 0


def c_string(text: str) -> str:
    """What upstream sees of a text, because it passes keys and names on as C strings: all before a NUL.

    >>> c_string("general.alignment\\0!"), c_string("w")
    ('general.alignment', 'w')
    """
    return text.partition("\0")[0]


def twice(name: str) -> str:
    """What is wrong with a tensor name that occurs a second time, as far as upstream can tell.

    >>> twice("a"), twice("a\\0b")
    ('got this one twice', "got a second one that is 'a' to the NUL in it, where names end for ggml")
    """
    if (seen := c_string(name)) == name:
        return "got this one twice"
    return f"got a second one that is {seen!r} to the NUL in it, where names end for ggml"


def tensor_bytes(tensor_type: TensorType, ggml_shape: Sequence[int]) -> int:
    """Bytes of a tensor whose dimensions are given in GGUF's order, row length first.

    Raises `UnknownTypeError` for a type that ggml has removed, `ShapeError` if the block size does not
    divide the row length, `GGUFLimitError` if no file or array can hold the tensor.

    >>> tensor_bytes(TensorType["Q4_K"], (256, 3))
    432
    """
    if tensor_type.removed:
        raise UnknownTypeError(
            f"expected a tensor type that ggml still has, got {tensor_type.full_name}, which it has removed"
        )
    n_per_row, *outer = ggml_shape or (1,)
    row_bytes = tensor_type.row_bytes(n_per_row)
    # as if no dimension were 0: upstream accepts some such tensors, but no array can have their shape
    n_elements = prod(max(length, 1) for length in ggml_shape)
    if max(n_elements, n_elements // tensor_type.block_size * tensor_type.type_size) > MAX_FILE_BYTES:
        raise GGUFLimitError(
            f"expected at most {MAX_FILE_BYTES} elements and bytes, got the dimensions {tuple(ggml_shape)} "
            f"of {tensor_type.name}"
        )
    return row_bytes * prod(outer)
