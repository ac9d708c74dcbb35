"""Files that are something else than GGUF, told by their first bytes.

People meet them in the place of a model: what a server sent instead of the file, what stands for it in a
repository, formats of other programs, and formats that llama.cpp once had.
"""

from __future__ import annotations

import re
import struct
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import Final

__all__ = ["HEAD_BYTES", "is_imatrix_dat", "recognized"]

HEAD_BYTES: Final = 4096
"""So much of a file is looked at."""

_SHOWN: Final = 60
"""Letters of a text that a message quotes."""
_DOWNLOAD: Final = "download the file itself (from Hugging Face, by the link with /resolve/, not /blob/)"
_CONVERT: Final = "convert the model with llama.cpp's convert_hf_to_gguf.py first"

_MAGICS: Final = {
    b"version https://git-lfs": (
        "a Git LFS pointer, which stands for the file: run `git lfs pull`, or download the file itself"
    ),
    b"lmgg": "a ggml file: one for whisper.cpp, or of early 2023, which llama.cpp reads no more",
    b"fmgg": "a ggml file (ggmf) of early 2023, which llama.cpp reads no more: download a GGUF file",
    b"tjgg": "a ggml file (ggjt) of 2023, which llama.cpp reads no more: download a GGUF file",
    b"algg": "a LoRA adapter of 2023 (ggla), which llama.cpp reads no more: convert the adapter anew",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\xfd7zXZ\0": "an xz archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first",
    b"Rar!\x1a\x07": "a RAR archive: unpack it first",
    b"\x89HDF\r\n\x1a\n": f"an HDF5 file: {_CONVERT}",
    b"\x93NUMPY": "a NumPy array: `kquant.quantize` takes arrays",
    b"%PDF-": "a PDF document",
}


def recognized(head: bytes) -> str | None:
    """What a file is that begins with `head`, and what to do about it; None for GGUF and the unknown.

    >>> recognized(b"<!DOCTYPE html><html>")
    'an HTML page: download the file itself (from Hugging Face, by the link with /resolve/, not /blob/)'
    >>> recognized(b"GGUF\\3\\0\\0\\0") is None
    True
    """
    if not head:
        return "an empty file"
    if is_imatrix_dat(head):
        return "an importance matrix in the older .dat format: it goes with --imatrix"
    for magic, what in _MAGICS.items():
        if head.startswith(magic):
            return what
    return next(filter(None, (look(head) for look in _LOOKS)), None)


def is_imatrix_dat(head: bytes) -> bool:
    """Whether a file that begins so is an importance matrix of the older format.

    It begins with the number of entries, the length of a name and the name; see `kquant.imatrix.reading`.
    """
    if len(head) < 16:
        return False
    n_entries, length = struct.unpack_from("<ii", head)
    name = head[8 : 8 + length]
    return 0 < n_entries < 1 << 20 and 0 < length < 256 and bool(re.fullmatch(rb"[\w.\-]+", name))


def _zeros(head: bytes) -> str | None:
    if len(head) < 64 or any(head):
        return None
    return "zeros where it should begin: a download that has reserved the space and not got this far"


def _gguf_1(head: bytes) -> str | None:
    if head[:8] not in (b"GGUF\1\0\0\0", b"GGUF\0\0\0\1"):
        return None
    return "version 1 of GGUF, of August 2023, which llama.cpp reads no more: convert the model anew"


def _safetensors(head: bytes) -> str | None:
    """The length of a JSON text as u64, then that text: https://github.com/huggingface/safetensors."""
    if len(head) < 16 or not 2 <= struct.unpack_from("<Q", head)[0] <= 100_000_000 or head[8:10] != b'{"':
        return None
    return f"a safetensors file: {_CONVERT}"


def _pytorch(head: bytes) -> str | None:
    if head.startswith(b"PK\3\4"):
        is_pytorch = b"data.pkl" in head or b".data/" in head
        return f"a PyTorch archive: {_CONVERT}" if is_pytorch else "a zip archive: unpack it first"
    if re.match(rb"\x80[\2-\5]", head):
        return f"a Python pickle, as PyTorch once saved models: {_CONVERT}"
    return "a tar archive: unpack it first" if head[257:262] == b"ustar" else None


def _text(head: bytes) -> str | None:
    try:  # the head may end within a letter
        text = getincrementaldecoder("utf-8-sig")().decode(head, final=len(head) < HEAD_BYTES)
    except UnicodeDecodeError:
        return None
    text = text.strip()
    if len(text) < 8 or not all(c.isprintable() or c.isspace() for c in text):
        return None
    if re.match(r"<!doctype html|<html", text, re.IGNORECASE):
        return f"an HTML page: {_DOWNLOAD}"
    quoted = " ".join(text.split())
    quoted = quoted if len(quoted) <= _SHOWN else quoted[: _SHOWN - 1] + "…"
    if text.startswith(("{", "[")):
        return f"JSON, as servers answer and configurations are written, that begins with {quoted}"
    if text.startswith("<"):
        return f"XML, as servers answer, that begins with {quoted}"
    return f"a text that begins with {quoted!r}"


_LOOKS: Final[tuple[Callable[[bytes], str | None], ...]] = (
    _zeros,
    _gguf_1,
    _safetensors,
    _pytorch,
    _text,
)
