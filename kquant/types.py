"""Tensor types and file types: ids, names, block sizes and bytes, as ggml and llama.cpp define them.

Source: `enum ggml_type` and `type_traits` in
https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml.c, `enum llama_ftype` in
https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h.
"""

from __future__ import annotations

from enum import Enum, EnumMeta
from typing import TYPE_CHECKING, Any, TypeVar

from kquant.errors import ShapeError, UnknownTypeError, UnsupportedTypeError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FileType", "TensorType", "file_type_name"]

_E = TypeVar("_E", bound=Enum)

# fmt: off
_OTHER_FILE_TYPES = {
    "IQ2_XXS": 19, "IQ2_XS": 20, "IQ3_XS": 22, "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25, "IQ3_S": 26,
    "IQ3_M": 27, "IQ2_S": 28, "IQ2_M": 29, "IQ4_XS": 30, "IQ1_M": 31, "TQ1_0": 36, "TQ2_0": 37,
    "MXFP4_MOE": 38, "NVFP4": 39, "Q1_0": 40, "Q2_0": 41,
}
"""The file types of llama.h that kquant cannot make yet, but for those that `FileType` has: name -> id."""
_REMOVED_FILE_TYPES = {
    "Q4_1_SOME_F16": 4, "Q4_2": 5, "Q4_3": 6, "Q4_0_4_4": 33, "Q4_0_4_8": 34, "Q4_0_8_8": 35,
}
"""Those that llama.cpp once had."""
_REMOVED_TENSOR_TYPES = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
}
# fmt: on
_GUESSED = 1024
"""`LLAMA_FTYPE_GUESSED`: added to the id where llama.cpp has told it from the tensors."""


class _Registry(EnumMeta):
    """Looks names up without regard to case, and fails with kquant's own error."""

    def __getitem__(cls: type[_E], name: str) -> _E:  # type: ignore[misc]
        member = cls.__members__.get(str(name).upper())
        if member is None:
            raise cls._no_such(str(name))  # type: ignore[attr-defined]
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

    @classmethod
    def _no_such(cls, name: str) -> Exception:
        known = ", ".join(member.name for member in cls if not member.removed)
        return UnknownTypeError(f"unknown tensor type {name!r}; known: {known}")

    @property
    def removed(self) -> bool:
        """True for the ids whose formats ggml has dropped; nothing can be stored in them."""
        return self.block_size == 0

    @property
    def full_name(self) -> str:
        """The name for messages: also of a type that ggml has removed, with its id.

        >>> TensorType.Q4_K.full_name, TensorType(31).full_name
        ('Q4_K', 'Q4_0_4_4 (id 31)')
        """
        return f"{_REMOVED_TENSOR_TYPES[self.id]} (id {self.id})" if self.removed else self.name

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
    BF16 = 32, TensorType.BF16
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
        raise cls._no_such(str(value))

    @classmethod
    def _no_such(cls, name: str) -> Exception:
        """Why a name or an id, as text, is none of these."""
        known = ", ".join(cls.__members__)
        for other, id in _OTHER_FILE_TYPES.items():
            if name.upper() == other or name == str(id):
                return UnsupportedTypeError(f"kquant cannot make {other} files yet; it makes {known}")
        for removed, id in _REMOVED_FILE_TYPES.items():
            if name.upper() == removed or name == str(id):
                return UnsupportedTypeError(f"llama.cpp has removed the file type {removed}; known: {known}")
        return UnknownTypeError(f"unknown file type {name!r}; known: {known}")

    def __repr__(self) -> str:
        return f"FileType.{self.name}"

    @classmethod
    def of(cls, value: FileType | str) -> FileType:
        """The file type that a user means by a name or the type itself."""
        return value if isinstance(value, cls) else cls[str(value)]


def file_type_name(id: int) -> str:
    """What llama.h calls a file type by its number in `general.file_type`.

    Knows every file type that llama.cpp has or had, also those that kquant cannot make.

    >>> file_type_name(15), file_type_name(38), file_type_name(1024 + 15), file_type_name(99)
    ('Q4_K_M', 'MXFP4_MOE', 'Q4_K_M (guessed)', 'unknown (99)')
    """
    names = {number: name for name, number in (_OTHER_FILE_TYPES | _REMOVED_FILE_TYPES).items()}
    names |= {member.id: member.name for member in FileType if member.id >= 0}
    names |= {number + _GUESSED: f"{name} (guessed)" for number, name in names.items()}
    return names.get(id, f"unknown ({id})")
