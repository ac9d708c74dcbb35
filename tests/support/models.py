"""Tensor lists of real models, written down from their published dimensions; no weights needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from kquant.policy import Decision, ModelFacts, PolicyOptions, TensorFacts, decide
from kquant.policy.roles import processing_order
from kquant.types import FileType, TensorType

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Model:
    """A model as its GGUF header describes it."""

    name: str
    metadata: Mapping[str, Any]
    tensors: tuple[TensorFacts, ...]
    """In the order of processing."""

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts.from_metadata(self.metadata)

    @property
    def n_elements(self) -> int:
        return sum(prod(tensor.shape) for tensor in self.tensors)

    def decide(self, file_type: str, **options: Any) -> list[Decision]:
        return decide(self.tensors, self.facts, PolicyOptions(FileType[file_type], **options))

    def n_bytes(self, file_type: str) -> int:
        return sum(
            prod(tensor.shape[:-1]) * decision.type.row_bytes(tensor.n_per_row)
            for tensor, decision in zip(self.tensors, self.decide(file_type), strict=True)
        )


def _model(
    name: str, architecture: str, numbers: Mapping[str, int], top: Shapes, layers: Sequence[Shapes]
) -> Model:
    shapes = dict(top)
    for i, layer in enumerate(layers):
        shapes |= {f"blk.{i}.{part}": shape for part, shape in layer.items()}
    tensors = [
        TensorFacts(name, shape, TensorType.F32 if len(shape) < 2 else TensorType.F16)
        for name, shape in shapes.items()
    ]
    metadata = {"general.architecture": architecture, f"{architecture}.block_count": len(layers)}
    metadata |= {f"{architecture}.{key}": value for key, value in numbers.items()}
    return Model(name, metadata, tuple(sorted(tensors, key=lambda tensor: processing_order(tensor.name))))


def decoder(
    name: str,
    architecture: str,
    *,
    n_layer: int,
    n_embd: int,
    n_ff: int,
    n_head: int,
    n_head_kv: int,
    n_vocab: int,
    head: int | None = None,
    n_expert: int = 0,
    tied: bool = False,
    extra_norms: tuple[str, ...] = (),
) -> Model:
    """A decoder with separate q, k and v, and a gated feed-forward part."""
    width = head or n_embd // n_head
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (n_embd,),
        "attn_q.weight": (n_head * width, n_embd),
        "attn_k.weight": (n_head_kv * width, n_embd),
        "attn_v.weight": (n_head_kv * width, n_embd),
        "attn_output.weight": (n_embd, n_head * width),
        "ffn_norm.weight": (n_embd,),
    }
    layer |= dict.fromkeys(extra_norms, (width,))
    if n_expert:
        layer["ffn_gate_inp.weight"] = (n_expert, n_embd)
    matrices = (n_expert,) if n_expert else ()
    kind = "_exps" if n_expert else ""
    layer[f"ffn_gate{kind}.weight"] = (*matrices, n_ff, n_embd)
    layer[f"ffn_up{kind}.weight"] = (*matrices, n_ff, n_embd)
    layer[f"ffn_down{kind}.weight"] = (*matrices, n_embd, n_ff)
    top = {"token_embd.weight": (n_vocab, n_embd), "output_norm.weight": (n_embd,)}
    if not tied:
        top["output.weight"] = (n_vocab, n_embd)
    numbers = {"attention.head_count": n_head, "attention.head_count_kv": n_head_kv}
    if n_expert:
        numbers["expert_count"] = n_expert
    return _model(name, architecture, numbers, top, [layer] * n_layer)


def _falcon(n_layer: int, n_embd: int, n_head: int, n_head_kv: int, n_vocab: int) -> Model:
    layer = {
        "attn_norm.weight": (n_embd,),
        "attn_norm.bias": (n_embd,),
        "attn_qkv.weight": ((n_head + 2 * n_head_kv) * (n_embd // n_head), n_embd),
        "attn_output.weight": (n_embd, n_embd),
        "ffn_up.weight": (4 * n_embd, n_embd),
        "ffn_down.weight": (n_embd, 4 * n_embd),
    }
    top = {
        "token_embd.weight": (n_vocab, n_embd),
        "output_norm.weight": (n_embd,),
        "output_norm.bias": (n_embd,),
        "output.weight": (n_vocab, n_embd),
    }
    numbers = {"attention.head_count": n_head, "attention.head_count_kv": n_head_kv}
    return _model("Falcon-7B", "falcon", numbers, top, [layer] * n_layer)


def _deepseek() -> Model:
    attention: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (7168,),
        "attn_q_a.weight": (1536, 7168),
        "attn_q_a_norm.weight": (1536,),
        "attn_q_b.weight": (24576, 1536),
        "attn_kv_a_mqa.weight": (576, 7168),
        "attn_kv_a_norm.weight": (512,),
        "attn_k_b.weight": (128, 512, 128),
        "attn_v_b.weight": (128, 128, 512),
        "attn_output.weight": (7168, 16384),
        "ffn_norm.weight": (7168,),
    }
    dense: dict[str, tuple[int, ...]] = {
        "ffn_gate.weight": (18432, 7168),
        "ffn_up.weight": (18432, 7168),
        "ffn_down.weight": (7168, 18432),
    }
    experts: dict[str, tuple[int, ...]] = {
        "ffn_gate_inp.weight": (256, 7168),
        "ffn_gate_exps.weight": (256, 2048, 7168),
        "ffn_up_exps.weight": (256, 2048, 7168),
        "ffn_down_exps.weight": (256, 7168, 2048),
        "ffn_gate_shexp.weight": (2048, 7168),
        "ffn_up_shexp.weight": (2048, 7168),
        "ffn_down_shexp.weight": (7168, 2048),
        "exp_probs_b.bias": (256,),
    }
    top = {
        "token_embd.weight": (129280, 7168),
        "output_norm.weight": (7168,),
        "output.weight": (129280, 7168),
    }
    numbers = {"attention.head_count": 128, "attention.head_count_kv": 1, "expert_count": 256}
    layers = [attention | (dense if i < 3 else experts) for i in range(61)]
    return _model("DeepSeek-V3.1", "deepseek2", numbers, top, layers)


_QK_NORMS = ("attn_q_norm.weight", "attn_k_norm.weight")

# fmt: off
LLAMA_2_7B = decoder(
    "Llama-2-7B", "llama", n_layer=32, n_embd=4096, n_ff=11008, n_head=32, n_head_kv=32, n_vocab=32000
)
LLAMA_2_70B = decoder(
    "Llama-2-70B", "llama", n_layer=80, n_embd=8192, n_ff=28672, n_head=64, n_head_kv=8, n_vocab=32000
)
LLAMA_3_8B = decoder(
    "Llama-3-8B", "llama", n_layer=32, n_embd=4096, n_ff=14336, n_head=32, n_head_kv=8, n_vocab=128256
)
LLAMA_3_1_70B = decoder(
    "Llama-3.1-70B", "llama", n_layer=80, n_embd=8192, n_ff=28672, n_head=64, n_head_kv=8, n_vocab=128256
)
MIXTRAL_8X7B = decoder(
    "Mixtral-8x7B", "llama", n_layer=32, n_embd=4096, n_ff=14336, n_head=32, n_head_kv=8, n_vocab=32000,
    n_expert=8,
)
FALCON_7B = _falcon(n_layer=32, n_embd=4544, n_head=71, n_head_kv=1, n_vocab=65024)
QWEN3_0_6B = decoder(
    "Qwen3-0.6B", "qwen3", n_layer=28, n_embd=1024, n_ff=3072, n_head=16, n_head_kv=8, n_vocab=151936,
    head=128, extra_norms=_QK_NORMS,
)
QWEN3_14B = decoder(
    "Qwen3-14B", "qwen3", n_layer=40, n_embd=5120, n_ff=17408, n_head=40, n_head_kv=8, n_vocab=151936,
    head=128, extra_norms=_QK_NORMS,
)
GEMMA_3_4B = decoder(
    "Gemma-3-4B", "gemma3", n_layer=34, n_embd=2560, n_ff=10240, n_head=8, n_head_kv=4, n_vocab=262208,
    head=256, tied=True, extra_norms=_QK_NORMS,
)
GPT_OSS_120B = decoder(
    "gpt-oss-120b", "gpt-oss", n_layer=36, n_embd=2880, n_ff=2880, n_head=64, n_head_kv=8, n_vocab=201088,
    head=64, n_expert=128,
)
DEEPSEEK_V3_1 = _deepseek()
# fmt: on

SNAPSHOTS = (LLAMA_2_7B, LLAMA_2_70B, LLAMA_3_8B, MIXTRAL_8X7B, FALCON_7B)
"""Models whose decisions are kept in tests/policy/snapshots."""
UPSTREAM = (QWEN3_0_6B, QWEN3_14B, LLAMA_3_1_70B, GEMMA_3_4B, GPT_OSS_120B, DEEPSEEK_V3_1)
"""Models whose types are known from llama.cpp itself: tests/golden/policy."""
