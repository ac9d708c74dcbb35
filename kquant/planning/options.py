"""The values of llama-quantize's options, parsed: `--override-kv`, `--tensor-type`, `--prune-layers`.

Facts from https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/quantize.cpp and
`string_parse_kv_override` in https://github.com/ggml-org/llama.cpp/blob/master/common/common.cpp.
Where C's number parsing would accept nonsense, this raises an `OptionError`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING, Final, TypedDict

from kquant.errors import OptionError
from kquant.types import FileType, TensorType

if TYPE_CHECKING:
    from kquant.imatrix.reading import Imatrix

__all__ = [
    "MAX_TEXT_BYTES",
    "Override",
    "PlanOptions",
    "TensorTypes",
    "compile_patterns",
    "file_type_of",
    "parse_override",
    "parse_prune_layers",
    "parse_tensor_type",
    "read_tensor_types",
    "target_type",
]

MAX_TEXT_BYTES: Final = 127
"""Longest string that llama-quantize puts into metadata."""

_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)

TensorTypes = Sequence["str | tuple[str, TensorType | str]"]
"""Patterns and types: texts as for `--tensor-type` ("attn_v=q8_0"), or pairs."""


class PlanOptions(TypedDict, total=False):
    """The options of `kquant.plan`, with llama-quantize's meaning."""

    allow_requantize: bool
    leave_output_tensor: bool
    pure: bool
    output_tensor_type: TensorType | str | None
    token_embedding_type: TensorType | str | None
    tensor_types: TensorTypes
    imatrix: Imatrix | str | os.PathLike[str] | None
    include_weights: Sequence[str]
    exclude_weights: Sequence[str]
    keep_split: bool
    override_kv: Sequence[str]
    prune_layers: Iterable[int]


@dataclass(frozen=True, slots=True)
class Override:
    """One key of the metadata with the value that it gets."""

    key: str
    value: int | float | bool | str
    """Its Python type tells the GGUF type: UINT32, FLOAT32, BOOL or STRING."""


def parse_override(text: str) -> Override:
    """A key and its value from `key=type:value`; types are int, float, bool and str.

    As upstream, integers lose their sign: they are stored as UINT32.

    Raises `OptionError` if the text has another form or the value does not fit.

    >>> parse_override("tokenizer.ggml.add_bos_token=bool:false")
    Override(key='tokenizer.ggml.add_bos_token', value=False)
    >>> parse_override("my.key=int:-7").value
    7
    """
    key, equals, rest = text.partition("=")
    kind, colon, word = rest.partition(":")
    parse = _PARSERS.get(kind)
    if not (key and equals and colon and parse):
        raise OptionError(f"override_kv: expected key=int:, key=float:, key=bool: or key=str:, got {text!r}")
    if len(_utf8(key)) > MAX_TEXT_BYTES:
        raise OptionError(f"override_kv: expected a key of at most {MAX_TEXT_BYTES} bytes, got {text!r}")
    try:
        return Override(key, parse(word))
    except ValueError as error:
        raise OptionError(f"override_kv: {key}: expected {error}, got {word!r}") from None


def _int(word: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", word) or abs(int(word)) > 0xFFFF_FFFF:
        raise ValueError("an integer of at most 32 bits")
    return abs(int(word))


def _float(word: str) -> float:
    try:
        return float(word.replace("_", "?"))  # Python accepts digit groups (1_000), C does not
    except ValueError:
        raise ValueError("a number") from None


def _bool(word: str) -> bool:
    if word not in ("true", "false"):
        raise ValueError("true or false")
    return word == "true"


def _str(word: str) -> str:
    if len(_utf8(word)) > MAX_TEXT_BYTES:
        raise ValueError(f"at most {MAX_TEXT_BYTES} bytes")
    return word


_PARSERS: Final[Mapping[str, Callable[[str], int | float | bool | str]]] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "str": _str,
}


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def parse_tensor_type(text: str) -> tuple[str, TensorType]:
    """A pattern and a type from `pattern=type`; the pattern turns into lower case, as upstream.

    Raises `OptionError` if a part is missing, `UnknownTypeError` if there is no such type.

    >>> parse_tensor_type(r"blk\\.[0-3]\\.ffn_down=q5_K")
    ('blk\\\\.[0-3]\\\\.ffn_down', TensorType.Q5_K)
    """
    pattern, equals, name = text.partition("=")
    if not (pattern and equals and name):
        raise OptionError(f"tensor_types: expected pattern=type, got {text!r}")
    return pattern.translate(_LOWER), target_type(name)


def read_tensor_types(path: str | os.PathLike[str]) -> list[tuple[str, TensorType]]:
    """The `pattern=type` of a file as `--tensor-type-file` takes it, separated by white space.

    Raises `OptionError` if the file cannot be read, and as `parse_tensor_type`.
    """
    try:
        words = Path(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{os.fspath(path)}: cannot read tensor types: {error}") from error
    return [parse_tensor_type(word) for word in words]


def compile_patterns(tensor_types: TensorTypes) -> tuple[tuple[re.Pattern[str], TensorType], ...]:
    """The patterns as regular expressions that are searched for in tensor names, with their types.

    Raises `OptionError` if a pattern is not a regular expression.

    >>> [(pattern, type)] = compile_patterns(["ATTN_V=q8_0"])
    >>> bool(pattern.search("blk.0.attn_v.weight")), type
    (True, TensorType.Q8_0)
    """
    pairs = [
        parse_tensor_type(item) if isinstance(item, str) else (item[0], target_type(item[1]))
        for item in tensor_types
    ]
    return tuple((_compile(pattern), type) for pattern, type in pairs)


def _compile(pattern: str) -> re.Pattern[str]:
    if re.search(r"\[[:.=]", pattern):  # Python would read the letters of [:digit:] one by one
        raise OptionError(f"tensor_types: expected a range such as [0-9], got a POSIX class in {pattern!r}")
    try:
        return re.compile(pattern, re.ASCII)
    except re.error as error:
        raise OptionError(f"tensor_types: expected a regular expression, got {pattern!r}: {error}") from None


def parse_prune_layers(text: str) -> tuple[int, ...]:
    """Layer numbers from a list with commas, as for `--prune-layers`: sorted, each once.

    Raises `OptionError` if one is not a number.

    >>> parse_prune_layers("7,0,0")
    (0, 7)
    """
    words = text.split(",")
    if not all(re.fullmatch(r"\s*[0-9]+\s*", word) for word in words):
        raise OptionError(f"prune_layers: expected layer numbers separated by commas, got {text!r}")
    return tuple(sorted({int(word) for word in words}))


def target_type(value: TensorType | str) -> TensorType:
    """The tensor type that an option names.

    Raises `UnknownTypeError` if there is none, `OptionError` if ggml has removed it.
    """
    type = TensorType.of(value)
    if type.removed:
        raise OptionError(
            f"expected a tensor type that can be stored, got {type.full_name}, which ggml has removed"
        )
    return type


def file_type_of(value: FileType | str | int) -> FileType:
    """The file type of that name, or of that number in `general.file_type`, as llama-quantize takes it.

    Raises `UnknownTypeError` if there is none, `UnsupportedTypeError` if kquant cannot make it.

    >>> file_type_of("q4_k_m"), file_type_of("15")
    (FileType.Q4_K_M, FileType.Q4_K_M)
    """
    word = value.name if isinstance(value, FileType) else str(value)
    return {str(member.id): member for member in FileType if member.id >= 0}.get(word) or FileType[word]
