"""Files that people take for models and for importance matrices: each is named, with what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kquant.cli import main
from kquant.errors import GGUFError, GGUFTruncatedError, ImatrixError
from kquant.gguf import read
from kquant.gguf.kinds import HEAD_BYTES, recognized
from kquant.imatrix.reading import load_imatrix
from support.gguf_builder import GGUFBuilder
from support.small_models import heavy_tailed, packed, write_model

GOLDEN = Path(__file__).parents[1] / "golden/gguf"


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


def archive(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        members.writestr(name, b"x")
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as members:
        members.addfile(tarfile.TarInfo("model.gguf"))
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(4))
    return file.getvalue()


ANSWER = b'{"error":"Repository not found"}'

# what the file is -> its bytes, what the message says of them
KINDS: dict[str, tuple[bytes, str]] = {
    "git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4692669056\n",
        "a Git LFS pointer, which stands for the file: run `git lfs pull`, or download the file itself",
    ),
    "html": (b"\n<!DOCTYPE html><html><title>404</title></html>", "an HTML page: download the file itself"),
    "html with a byte order mark": (b"\xef\xbb\xbf<HTML><title>404</title>", "an HTML page: download the"),
    "html cut within a letter": (b"<html>" + "ü".encode() * 3000, "an HTML page: download the file"),
    "json": (
        ANSWER,
        "JSON, as servers answer and configurations are written, that begins with " + ANSWER.decode(),
    ),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML, as servers answer, that"),
    "text": (
        b"Access to this model is restricted.",
        "a text that begins with 'Access to this model is restr",
    ),
    "safetensors": (
        safetensors(),
        "a safetensors file: convert the model with llama.cpp's convert_hf_to_gguf",
    ),
    "pytorch": (archive("archive/data.pkl"), "a PyTorch archive: convert the model with llama.cpp's convert"),
    "older pytorch": (pickle.dumps({"w": 1}, 2), "a Python pickle, as PyTorch once saved models: convert"),
    "zip": (archive("model.gguf"), "a zip archive: unpack it first"),
    "tar": (tar(), "a tar archive: unpack it first"),
    "gzip": (gzip.compress(b"GGUF"), "a gzip archive: unpack it first"),
    "bzip2": (bz2.compress(b"GGUF"), "a bzip2 archive: unpack it first"),
    "xz": (lzma.compress(b"GGUF"), "an xz archive: unpack it first"),
    "numpy": (array(), "a NumPy array: `kquant.quantize` takes arrays"),
    "ggml": (
        b"lmgg" + bytes(100),
        "a ggml file: one for whisper.cpp, or of early 2023, which llama.cpp reads no",
    ),
    "ggmf": (b"fmgg\1\0\0\0" + bytes(100), "a ggml file (ggmf) of early 2023, which llama.cpp reads no more"),
    "ggjt": (b"tjgg\3\0\0\0" + bytes(100), "a ggml file (ggjt) of 2023, which llama.cpp reads no more"),
    "ggla": (b"algg\1\0\0\0" + bytes(100), "a LoRA adapter of 2023 (ggla), which llama.cpp reads no more"),
    "GGUF 1": (
        GGUFBuilder(version=1).build(),
        "version 1 of GGUF, of August 2023, which llama.cpp reads no more",
    ),
    "empty": (b"", "an empty file"),
    "zeros": (
        bytes(10_000),
        "zeros where it should begin: a download that has reserved the space and not got",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_place_of_a_model(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, says = KINDS[kind]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    error = GGUFTruncatedError if kind in ("empty", "zeros") else GGUFError
    with pytest.raises(error) as raised:
        read(path)
    assert type(raised.value) is error
    assert str(raised.value).startswith(f"{path}: expected a GGUF file, got {says}")
    for command in (["inspect"], ["quantize", "--dry-run"], ["sweep"]):
        assert main([*command, str(path), *(["Q4_0"] if "--dry-run" in command else [])]) == 1
        line = capsys.readouterr().err.splitlines()[0]
        assert line.startswith(f"kquant: error: {path}: expected a GGUF file, got {says}")


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_place_of_an_importance_matrix(kind: str, tmp_path: Path) -> None:
    content, says = KINDS[kind]
    path = tmp_path / "imatrix.dat"
    path.write_bytes(content)
    with pytest.raises(ImatrixError) as raised:
        load_imatrix(path)
    wanted = "a GGUF file" if content.startswith(b"GGUF") else "an importance matrix"
    assert f"{path}: expected {wanted}, got {says}" in str(raised.value)


@pytest.mark.parametrize("name", ["llama-slim.dat", "llama-slim.gguf"])
def test_an_importance_matrix_in_the_place_of_a_model(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = GOLDEN / "imatrix" / name
    assert main(["quantize", "--dry-run", str(path), "Q4_0"]) == 1
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith(f"kquant: error: {path}: expected a ")
    assert "got an importance matrix" in line
    assert "it goes with --imatrix" in line


def test_a_model_in_the_place_of_an_importance_matrix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_model(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": packed(heavy_tailed(2, 256), "F16")})
    assert main(["quantize", "--imatrix", str(path), str(path), "o.gguf", "Q2_K"]) == 1
    line = capsys.readouterr().err.splitlines()[0]
    assert f"{path}: expected the metadata of an importance matrix, as llama-imatrix makes one" in line
    assert line.endswith("is it a model?")


@pytest.mark.parametrize(
    "head", [b"GGML", b"FUGG" + bytes(20), bytes(range(256)), b"\x7fELF" + bytes(60), b"\0"]
)
def test_what_is_not_known_is_left_to_the_reader(head: bytes) -> None:
    assert recognized(head) is None


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/*.gguf")), ids=lambda path: path.name)
def test_gguf_is_left_to_the_reader(path: Path) -> None:
    with path.open("rb") as file:
        assert recognized(file.read(HEAD_BYTES)) is None
