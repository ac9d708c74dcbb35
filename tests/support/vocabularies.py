"""Vocabularies and what llama.cpp made of texts with them: `tests/golden/runtime/tokenizers`."""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from kquant.gguf import GGUFValueType, Metadata, Writer, layout

FOLDER = Path(__file__).parents[1] / "golden" / "runtime" / "tokenizers"
NAMES = ("bert-bge", "falcon", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2")
"""llama.cpp's vocabularies."""
WHOLE = ("bert-bge", "gpt-2", "llama-spm")
"""Those that are whole; of the others only tokens that are in llama.cpp's test texts have their own text."""
SMALL = (
    *("spm-ties", "spm-across", "spm-runs", "gemma4", "sarvam", "whitespace"),
    *("t5", "t5-spaces", "t5-plain", "bert-cased", "bert-accents"),
)
"""Made up, to have what the others have not."""

Keys: TypeAlias = dict[str, tuple[str, str | None, Any]]
"""Key -> value type, element type of an array, value."""


@cache
def load(name: str) -> Any:
    """A compressed JSON file."""
    return json.loads(lzma.decompress((FOLDER / f"{name}.json.xz").read_bytes()))


def unpack(name: str, folder: Path) -> Path:
    """One of llama.cpp's vocabularies as a file."""
    path = folder / f"{name}.gguf"
    if not path.exists():
        path.write_bytes(lzma.decompress((FOLDER / f"{name}.gguf.xz").read_bytes()))
    return path


def metadata(keys: Keys) -> Metadata:
    md = Metadata()
    for key, (kind, element, value) in keys.items():
        element_type = None if element is None else GGUFValueType[element]
        md.set(key, value, GGUFValueType[kind], element_type=element_type)
    return md


def write(keys: Keys, path: Path) -> Path:
    """A file that holds a vocabulary and no tensors."""
    with Writer(path, layout(metadata(keys), [])) as writer:
        writer.commit()
    return path
