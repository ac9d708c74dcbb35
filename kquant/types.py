"""Tensor types and file types: ids, names, block sizes and bytes, as ggml and llama.cpp define them.

Source: `enum ggml_type` and `type_traits` in
https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml.c, `enum llama_ftype` in
https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h.
"""

from __future__ import annotations

from enum import Enum, EnumMeta
from typing import TYPE_CHECKING, Any, TypeVar

from kquant.errors import ShapeError, UnknownTypeError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FileType", "TensorType"]

_E = TypeVar("_E", bound=Enum)


class _Registry(EnumMeta):
    """Looks names up without regard to case, and fails with kquant's own error."""

    def __getitem__(cls: type[_E], name: str) -> _E:  # type: ignore[misc]
        member = cls.__members__.get(str(name).upper())
        if member is None:
            known = ", ".join(m for m in cls.__members__ if not m.startswith("REMOVED"))
            raise UnknownTypeError(f"unknown {cls.__doc_name__} {name!r}; known: {known}")  # type: ignore[attr-defined]
        return member


class TensorType(Enum, metaclass=_Registry):
    """How the elements of one tensor are stored.

    Every id that ggml defines is here, also those that kquant has no codec for and those that
    ggml has removed.

    >>> t = TensorType["Q4_K"]
    >>> t.id, t.name, t.block_size, t.type_size, t.bits_per_element
    (12, 'Q4_K', 256, 144, 4.5)
    >>> t.row_bytes(4096)
    2304
    >>> TensorType(12) is TensorType["q4_k"]
    True
    """

    # name = id, elements per block, bytes per block
    F32 = 0, 1, 4
    F16 = 1, 1, 2
    Q4_0 = 2, 32, 18
    Q4_1 = 3, 32, 20
    REMOVED_4 = 4, 0, 0
    REMOVED_5 = 5, 0, 0
    Q5_0 = 6, 32, 22
    Q5_1 = 7, 32, 24
    Q8_0 = 8, 32, 34
    Q8_1 = 9, 32, 36
    Q2_K = 10, 256, 84
    Q3_K = 11, 256, 110
    Q4_K = 12, 256, 144
    Q5_K = 13, 256, 176
    Q6_K = 14, 256, 210
    Q8_K = 15, 256, 292
    IQ2_XXS = 16, 256, 66
    IQ2_XS = 17, 256, 74
    IQ3_XXS = 18, 256, 98
    IQ1_S = 19, 256, 50
    IQ4_NL = 20, 32, 18
    IQ3_S = 21, 256, 110
    IQ2_S = 22, 256, 82
    IQ4_XS = 23, 256, 136
    I8 = 24, 1, 1
    I16 = 25, 1, 2
    I32 = 26, 1, 4
    I64 = 27, 1, 8
    F64 = 28, 1, 8
    IQ1_M = 29, 256, 56
    BF16 = 30, 1, 2
    REMOVED_31 = 31, 0, 0
    REMOVED_32 = 32, 0, 0
    REMOVED_33 = 33, 0, 0
    TQ1_0 = 34, 256, 54
    TQ2_0 = 35, 256, 66
    REMOVED_36 = 36, 0, 0
    REMOVED_37 = 37, 0, 0
    REMOVED_38 = 38, 0, 0
    MXFP4 = 39, 32, 17
    NVFP4 = 40, 64, 36
    Q1_0 = 41, 128, 18
    Q2_0 = 42, 64, 18

    id: int
    """ggml's number of the type, as GGUF files store it."""
    block_size: int
    """Elements in one block."""
    type_size: int
    """Bytes of one block."""

    def __new__(cls, id: int, block_size: int, type_size: int) -> Self:
        member = object.__new__(cls)
        member._value_ = id
        member.id, member.block_size, member.type_size = id, block_size, type_size
        return member

    @classmethod
    def _missing_(cls, value: object) -> Any:
        raise UnknownTypeError(f"unknown tensor type id {value!r}; ggml defines 0 to {len(cls) - 1}")

    @property
    def removed(self) -> bool:
        """True for the ids whose formats ggml has dropped; nothing can be stored in them."""
        return self.block_size == 0

    @property
    def is_quantized(self) -> bool:
        """True for the block formats, as `ggml_is_quantized` has it."""
        return (not self.removed and self.name[0] not in "FIB") or self.name.startswith("IQ")

    @property
    def bits_per_element(self) -> float:
        """Bits that one element costs, scales included."""
        return 8 * self.type_size / self.block_size if self.block_size else 0.0

    @property
    def ggml_name(self) -> str:
        """The name as ggml prints it (`q4_K`)."""
        return self.name.lower().replace("_k", "_K")

    def row_bytes(self, n_per_row: int) -> int:
        """Bytes of a row of `n_per_row` elements.

        Raises `ShapeError` if the block size does not divide the row length.
        """
        if self.removed or n_per_row < 0 or n_per_row % self.block_size:
            raise ShapeError(
                f"{self.name}: expected a row length that is a multiple of {self.block_size}, got {n_per_row}"
            )
        return n_per_row // self.block_size * self.type_size

    def __repr__(self) -> str:
        return f"TensorType.{self.name}"

    @classmethod
    def of(cls, value: TensorType | str | int) -> TensorType:
        """The tensor type that a user means by a name, an id or the type itself."""
        if isinstance(value, cls):
            return value
        return cls[value] if isinstance(value, str) else cls(value)  # type: ignore[arg-type, call-arg]


TensorType.__doc_name__ = "tensor type"  # type: ignore[attr-defined]


class FileType(Enum, metaclass=_Registry):
    """Which mixture of tensor types a file holds: what `llama-quantize` calls its type argument.

    >>> FileType["Q4_K_M"].id, FileType["Q4_K_M"].default_type
    (15, TensorType.Q4_K)
    >>> FileType["Q4_K"] is FileType["Q4_K_M"]
    True
    """

    # name = id in general.file_type, the type that most tensors get
    F32 = 0, TensorType.F32
    F16 = 1, TensorType.F16
    Q4_0 = 2, TensorType.Q4_0
    Q4_1 = 3, TensorType.Q4_1
    Q8_0 = 7, TensorType.Q8_0
    Q5_0 = 8, TensorType.Q5_0
    Q5_1 = 9, TensorType.Q5_1
    Q2_K = 10, TensorType.Q2_K
    Q3_K_S = 11, TensorType.Q3_K
    Q3_K_M = 12, TensorType.Q3_K
    Q3_K_L = 13, TensorType.Q3_K
    Q4_K_S = 14, TensorType.Q4_K
    Q4_K_M = 15, TensorType.Q4_K
    Q5_K_S = 16, TensorType.Q5_K
    Q5_K_M = 17, TensorType.Q5_K
    Q6_K = 18, TensorType.Q6_K
    Q2_K_S = 21, TensorType.Q2_K
    IQ4_NL = 25, TensorType.IQ4_NL
    BF16 = 32, TensorType.BF16
    MXFP4_MOE = 38, TensorType.MXFP4
    COPY = -1, None

    Q3_K = Q3_K_M
    Q4_K = Q4_K_M
    Q5_K = Q5_K_M

    id: int
    """The number in `general.file_type`; COPY keeps the source's."""
    default_type: TensorType | None
    """The type of the tensors that no rule singles out; None for COPY."""

    def __new__(cls, id: int, default_type: TensorType | None) -> Self:
        member = object.__new__(cls)
        member._value_ = id
        member.id, member.default_type = id, default_type
        return member

    @classmethod
    def _missing_(cls, value: object) -> Any:
        raise UnknownTypeError(f"unknown file type id {value!r}")

    def __repr__(self) -> str:
        return f"FileType.{self.name}"

    @classmethod
    def of(cls, value: FileType | str) -> FileType:
        """The file type that a user means by a name or the type itself."""
        return value if isinstance(value, cls) else cls[str(value)]


FileType.__doc_name__ = "file type"  # type: ignore[attr-defined]
