"""The metadata of the files that a requantization writes, key by key as llama-quantize.

In the first file: what the source has, without its `split.*`; `general.quantization_version` and
`general.file_type` anew; the user's overrides; `quantize.imatrix.*`; the number of layers if some were
pruned; `split.*` if there are several files.  Whatever is set moves to the end.  The other files have
`split.*` alone.

Facts from `llama_model_quantize_impl` in
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from kquant.errors import GGUFError
from kquant.gguf import GGUFValueType, Metadata
from kquant.imatrix.reading import Imatrix
from kquant.planning.options import MAX_TEXT_BYTES, Override
from kquant.types import TensorType

__all__ = ["copied_file_type", "first_metadata", "split_metadata"]

_QUANTIZATION_VERSION: Final = 2

_SPLIT: Final = (
    ("split.no", GGUFValueType.UINT16),
    ("split.count", GGUFValueType.UINT16),
    ("split.tensors.count", GGUFValueType.INT32),
)

_GUESSED: Final = 1024
"""Added to a file type that the source does not state."""

# fmt: off
_FILE_TYPES: Final = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 12,
    "Q4_K": 15, "Q5_K": 17, "Q6_K": 18, "IQ2_XXS": 19, "IQ2_XS": 20, "IQ3_XXS": 23, "IQ1_S": 24,
    "IQ4_NL": 25, "IQ3_S": 26, "IQ2_S": 28, "IQ4_XS": 30, "IQ1_M": 31, "BF16": 32, "TQ1_0": 36,
    "TQ2_0": 37, "NVFP4": 39, "Q1_0": 40, "Q2_0": 41,
}
# fmt: on
"""Which `general.file_type` llama.cpp guesses from the most frequent tensor type; 0 for the others."""


def copied_file_type(metadata: Metadata, replaced: Mapping[str, object], types: Iterable[TensorType]) -> int:
    """The `general.file_type` of a copy: the source's, or one guessed from its tensors and marked so.

    `replaced` are metadata that the user overrides; `types` those of all tensors in the order of
    processing, which decides between equals.  Raises `GGUFError` if the source states no number.
    """
    number = replaced.get("general.file_type")
    if type(number) is int:
        return number
    if "general.file_type" in metadata:
        stated = metadata["general.file_type"]
        if type(stated) is not int:
            raise GGUFError(f"general.file_type: expected an integer, got {stated!r}")
        return stated
    counts: Counter[TensorType] = Counter()
    most = TensorType.F32
    for tensor_type in types:
        counts[tensor_type] += 1
        if counts[tensor_type] > counts[most]:
            most = tensor_type
    return _FILE_TYPES.get(most.name, 0) | _GUESSED


def first_metadata(
    source: Metadata, file_type: int, overrides: Sequence[Override], imatrix: Imatrix | None
) -> Metadata:
    """The metadata of the only or the first file, without `split.*`.

    `file_type` is the number for `general.file_type`.  Raises `GGUFError` if an override is not
    possible, such as an alignment of 3.
    """
    metadata = source.copy()
    metadata.set("general.quantization_version", _QUANTIZATION_VERSION, GGUFValueType.UINT32)
    metadata.set("general.file_type", file_type, GGUFValueType.UINT32)
    for key, _ in _SPLIT:
        metadata.remove(key)
    for override in overrides:
        metadata.set(override.key, override.value, _VALUE_TYPES[type(override.value)])
    if imatrix:
        _note_imatrix(metadata, imatrix)
    return metadata


_VALUE_TYPES: Final = {
    int: GGUFValueType.UINT32,
    float: GGUFValueType.FLOAT32,
    bool: GGUFValueType.BOOL,
    str: GGUFValueType.STRING,
}


def _note_imatrix(metadata: Metadata, imatrix: Imatrix) -> None:
    texts = {"file": imatrix.path, "dataset": imatrix.datasets[0] if imatrix.datasets else None}
    for name, text in texts.items():
        if text is not None:  # truncated as upstream, even within a letter
            value = text.encode("utf-8", "surrogateescape")[:MAX_TEXT_BYTES]
            metadata.set(f"quantize.imatrix.{name}", value, GGUFValueType.STRING)
    metadata.set("quantize.imatrix.entries_count", len(imatrix), GGUFValueType.UINT32)
    if imatrix.chunk_count > 0:
        metadata.set("quantize.imatrix.chunks_count", imatrix.chunk_count, GGUFValueType.UINT32)


def split_metadata(first: Metadata, n_files: int, n_tensors: int) -> list[Metadata]:
    """The metadata of all files, given that of the first; `split.*` only if there are several."""
    files = [first, *(Metadata() for _ in range(n_files - 1))]
    if n_files > 1:
        for index, metadata in enumerate(files):
            for (key, value_type), value in zip(_SPLIT, (index, n_files, n_tensors), strict=True):
                metadata.set(key, value, value_type)
    return files
