"""`python -m benchmarks.make_model OUT.gguf`: TinyLlama's shapes, and weights like real ones.

All 22 layers make 1.1 billion parameters, 2.2 GB in F16.  The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kquant.arrays import codec
from kquant.gguf import GGUFValueType, Metadata, TensorSpec, Writer, layout
from kquant.types import TensorType

N_VOCAB, N_EMBD, N_FF, N_HEAD, N_HEAD_KV = 32_000, 2048, 5632, 32, 4
N_KV = N_EMBD // N_HEAD * N_HEAD_KV
MATRICES = {
    "attn_q": (N_EMBD, N_EMBD),
    "attn_k": (N_EMBD, N_KV),
    "attn_v": (N_EMBD, N_KV),
    "attn_output": (N_EMBD, N_EMBD),
    "ffn_gate": (N_EMBD, N_FF),
    "ffn_up": (N_EMBD, N_FF),
    "ffn_down": (N_FF, N_EMBD),
}
"""Name -> (row length, rows)."""
ROWS = 512
"""Rows that are made at a time."""


def specs(n_layer: int, tensor_type: TensorType) -> list[TensorSpec]:
    """The tensors of a TinyLlama with so many layers."""
    f32 = TensorType.F32
    found = [
        TensorSpec(f"{name}.weight", (N_EMBD, N_VOCAB), tensor_type) for name in ("token_embd", "output")
    ]
    found.append(TensorSpec("output_norm.weight", (N_EMBD,), f32))
    for layer, (name, shape) in product(range(n_layer), MATRICES.items()):
        found.append(TensorSpec(f"blk.{layer}.{name}.weight", shape, tensor_type))
    for layer, name in product(range(n_layer), ("attn_norm", "ffn_norm")):
        found.append(TensorSpec(f"blk.{layer}.{name}.weight", (N_EMBD,), f32))
    return found


def metadata(n_layer: int) -> Metadata:
    """What a quantizer looks at; there is no vocabulary."""
    md = Metadata()
    md.set("general.architecture", "llama", GGUFValueType.STRING)
    for key, value in {
        "block_count": n_layer,
        "context_length": 2048,
        "embedding_length": N_EMBD,
        "feed_forward_length": N_FF,
        "attention.head_count": N_HEAD,
        "attention.head_count_kv": N_HEAD_KV,
    }.items():
        md.set(f"llama.{key}", value, GGUFValueType.UINT32)
    md.set("llama.attention.layer_norm_rms_epsilon", 1e-5, GGUFValueType.FLOAT32)  # llama.cpp insists
    return md


def weights(n_rows: int, n_per_row: int, seed: tuple[int, ...]) -> NDArray[np.float32]:
    """Heavy-tailed floats whose columns have scales of their own, as those of trained models."""
    rng = np.random.Generator(np.random.SFC64(seed))
    x = rng.standard_normal((n_rows, n_per_row), np.float32)
    x *= np.float32(0.02) + np.float32(0.002) * x * x
    scales = np.random.Generator(np.random.SFC64(seed[:1])).standard_normal(n_per_row, np.float32)
    x *= np.exp(np.float32(0.3) * scales)
    return x


def make(path: Path, n_layer: int, tensor_type: TensorType) -> int:
    """Write the model; returns the number of its parameters.  Needs some MB of memory."""
    tensors = specs(n_layer, tensor_type)

    def slabs() -> Iterator[tuple[int, int, int]]:
        for index, spec in enumerate(tensors):
            n_rows = spec.ggml_shape[1] if len(spec.ggml_shape) == 2 else 1
            for first in range(0, n_rows, ROWS):
                yield index, first, min(ROWS, n_rows - first)

    with Writer(path, layout(metadata(n_layer), tensors)) as writer, ThreadPoolExecutor() as executor:

        def write(slab: tuple[int, int, int]) -> int:
            index, first, n_rows = slab
            spec = tensors[index]
            x = weights(n_rows, spec.ggml_shape[0], (index, first))
            if len(spec.ggml_shape) == 1:
                x = 1 + x
            writer.write(
                index, first * spec.type.row_bytes(x.shape[1]), codec.quantize(x, spec.type, threads=1)
            )
            return x.size

        n_parameters = sum(executor.map(write, slabs()))
        writer.commit()
    return n_parameters


def main(argv: Sequence[str] | None = None) -> int:
    """Make the model and say how large it is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.make_model", description=__doc__)
    parser.add_argument("path", type=Path, metavar="OUT.gguf")
    parser.add_argument("--layers", type=int, default=22, help="(default: 22)")
    parser.add_argument("--type", default="F16", help="F16, BF16 or F32 (default: F16)")
    options = parser.parse_args(argv)
    started = time.perf_counter()
    n_parameters = make(options.path, options.layers, TensorType[options.type])
    seconds = time.perf_counter() - started
    n_bytes = options.path.stat().st_size
    print(f"{options.path}: {n_parameters:,} parameters, {n_bytes:,} bytes, {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
