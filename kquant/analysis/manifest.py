"""The sizes and SHA-256 of a model's files and tensors at some time, as JSON that people can read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kquant.errors import ManifestError
from kquant.gguf.part_file import PartFile

__all__ = ["FileRecord", "Manifest", "TensorRecord"]

FORMAT = 1
"""Number of the format, under the key `kquant_manifest`."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A whole file."""

    name: str
    """Without its folder."""
    bytes: int
    sha256: str
    """In hexadecimal, as `sha256sum` and model hubs show it."""


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """The packed rows of a tensor, without padding."""

    name: str
    type: str
    shape: tuple[int, ...]
    """NumPy order: the row length comes last."""
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files and tensors of a model.  `Verification.manifest` is one; `Manifest.read` another."""

    files: tuple[FileRecord, ...]
    tensors: tuple[TensorRecord, ...]

    def to_dict(self) -> dict[str, Any]:
        """The manifest in JSON's types."""
        return {
            "kquant_manifest": FORMAT,
            "files": [asdict(record) for record in self.files],
            "tensors": [asdict(record) | {"shape": list(record.shape)} for record in self.tensors],
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the manifest as JSON; it appears under its name when it is complete.

        Raises `OutputError` if it cannot be written.
        """
        text = (json.dumps(self.to_dict(), indent=1) + "\n").encode()
        part = PartFile(path, len(text))
        try:
            part.write(0, text)
            part.commit()
        finally:
            part.abort()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest:
        """The manifest that `write` wrote.

        Raises `ManifestError` for anything else, `OSError` if the file cannot be opened.
        """
        try:
            value = json.loads(Path(path).read_bytes())
        except (ValueError, RecursionError) as error:
            raise ManifestError(
                f"{path}: expected a manifest in JSON, got something else: {error}"
            ) from error
        if not isinstance(value, dict) or value.get("kquant_manifest") != FORMAT:
            raise ManifestError(f'{path}: expected a manifest with "kquant_manifest": {FORMAT}')
        files = [FileRecord(**given) for given in _records(value, "files", FileRecord, path)]
        tensors = [
            TensorRecord(**given | {"shape": tuple(given["shape"])})
            for given in _records(value, "tensors", TensorRecord, path)
        ]
        return cls(tuple(files), tuple(tensors))


_KINDS = {"str": str, "int": int, "tuple[int, ...]": list}


def _records(
    value: Mapping[str, Any], key: str, kind: type[Any], path: str | os.PathLike[str]
) -> Iterator[dict[str, Any]]:
    """The records of a list, after a check that each has exactly the fields that it should have."""
    found = value.get(key)
    if not isinstance(found, list):
        raise ManifestError(f"{path}: expected a list under {key!r}, got {type(found).__name__}")
    wanted = {name: _KINDS[field.type] for name, field in kind.__dataclass_fields__.items()}
    for index, record in enumerate(found):
        if not isinstance(record, dict) or {name: type(record[name]) for name in record} != wanted:
            raise ManifestError(f"{path}: {key}[{index}]: expected {', '.join(wanted)}, got {record!r}")
        yield record
