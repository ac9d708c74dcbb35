"""How large a model would be that you do not have, from its published dimensions alone.

A plan needs a header and no weights, so this program writes only a header.

python examples/without_weights.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import kquant
from kquant import FileType, TensorType
from kquant.gguf import GGUFValueType, Metadata, TensorSpec, layout, read


@dataclass(frozen=True)
class Model:
    """What the header of a model's F16 file says."""

    architecture: str
    numbers: Mapping[str, int]
    """Metadata of the architecture: block_count, attention.head_count, ..."""
    shapes: Mapping[str, tuple[int, ...]]
    """Tensor name -> shape, the row length last."""

    def plan(self, file_type: str, **options: Any) -> kquant.Plan:
        """What would become of each tensor; the options are those of `kquant.plan`."""
        metadata = Metadata()
        metadata.set("general.architecture", self.architecture, GGUFValueType.STRING)
        for key, number in self.numbers.items():
            metadata.set(f"{self.architecture}.{key}", number, GGUFValueType.UINT32)
        specs = [
            TensorSpec(name, shape[::-1], TensorType.F32 if len(shape) == 1 else TensorType.F16)
            for name, shape in self.shapes.items()
        ]
        with TemporaryDirectory() as folder:
            path = Path(folder, "header.gguf")
            path.write_bytes(layout(metadata, specs).header)
            with read(path, header_only=True) as file:
                return kquant.plan(file, file_type, **options)


def stack(
    architecture: str,
    top: Mapping[str, tuple[int, ...]],
    layer: Mapping[str, tuple[int, ...]],
    **numbers: int,
) -> Model:
    """A model of `block_count` equal layers."""
    shapes = {f"{name}.weight": shape for name, shape in top.items()}
    for i in range(numbers["block_count"]):
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in layer.items()}
    return Model(architecture, {key.replace("__", "."): n for key, n in numbers.items()}, shapes)


def llama(
    layers: int, width: int, ff: int, heads: int, kv_heads: int, vocabulary: int, rope_freqs: int = 0
) -> Model:
    """A model of the Llama family; from 3.1 on they have a vector of frequencies, too."""
    kv = width // heads * kv_heads
    return stack(
        "llama",
        {"token_embd": (vocabulary, width), "output_norm": (width,), "output": (vocabulary, width)}
        | ({"rope_freqs": (rope_freqs,)} if rope_freqs else {}),
        {
            "attn_norm": (width,),
            "attn_q": (width, width),
            "attn_k": (kv, width),
            "attn_v": (kv, width),
            "attn_output": (width, width),
            "ffn_norm": (width,),
            "ffn_gate": (ff, width),
            "ffn_up": (ff, width),
            "ffn_down": (width, ff),
        },
        block_count=layers,
        attention__head_count=heads,
        attention__head_count_kv=kv_heads,
    )


LLAMA_2_7B = llama(32, 4096, 11008, 32, 32, 32000)
LLAMA_3_8B = llama(32, 4096, 14336, 32, 8, 128256)
LLAMA_3_1_8B = llama(32, 4096, 14336, 32, 8, 128256, rope_freqs=64)
LLAMA_3_1_70B = llama(80, 8192, 28672, 64, 8, 128256, rope_freqs=64)
LLAMA_3_1_405B = llama(126, 16384, 53248, 128, 8, 128256, rope_freqs=64)
MISTRAL_7B = llama(32, 4096, 14336, 32, 8, 32000)
PHI_3_MINI = stack(
    "phi3",
    {"token_embd": (32064, 3072), "output_norm": (3072,), "output": (32064, 3072)},
    {
        "attn_norm": (3072,),
        "attn_qkv": (3 * 3072, 3072),
        "attn_output": (3072, 3072),
        "ffn_norm": (3072,),
        "ffn_up": (2 * 8192, 3072),
        "ffn_down": (3072, 8192),
    },
    block_count=32,
    attention__head_count=32,
    attention__head_count_kv=32,
)


def main() -> None:
    print("Llama-3.1-405B\nfile type        size    bits per weight")
    for file_type in FileType:
        if file_type is not FileType.COPY:
            plan = LLAMA_3_1_405B.plan(file_type.name)
            print(
                f"{file_type.name:8}  {plan.new_bytes / 2**30:7.1f} GiB    {plan.new_bits_per_weight:11.2f}"
            )


if __name__ == "__main__":
    main()
