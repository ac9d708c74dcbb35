"""A language model of some 300 tokens, written for one test."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np

from kquant.arrays import codec
from kquant.gguf import GGUFValueType, Metadata, TensorSpec, Writer, layout
from kquant.types import TensorType

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
WORDS = ["▁", *string.ascii_letters, *".,:?!\n"]
TOKENS = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
END = TOKENS.index("<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_language_model(
    path: Path, *, context: int = 256, template: str | None = CHAT_TEMPLATE, tensor_type: str = "Q8_0"
) -> Path:
    """A llama of two layers of 64 columns, with random weights, and bytes and letters as its vocabulary."""
    rng = np.random.default_rng(0)
    width, n_ff, layers = 64, 96, 2
    metadata = Metadata()
    numbers = {
        "block_count": layers,
        "embedding_length": width,
        "context_length": context,
        "feed_forward_length": n_ff,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
    }
    metadata.set("general.architecture", "llama", GGUFValueType.STRING)
    for key, value in numbers.items():
        metadata.set(f"llama.{key}", value, GGUFValueType.UINT32)
    metadata.set("llama.attention.layer_norm_rms_epsilon", 1e-5, GGUFValueType.FLOAT32)
    metadata.set("tokenizer.ggml.model", "llama", GGUFValueType.STRING)
    if template is not None:
        metadata.set("tokenizer.chat_template", template, GGUFValueType.STRING)
    types = [2, 3, 3, 3, 3] + [6] * 256 + [1] * len(WORDS)
    arrays: list[tuple[str, list[Any], GGUFValueType]] = [
        ("tokens", TOKENS, GGUFValueType.STRING),
        ("scores", [-float(i) for i in range(len(TOKENS))], GGUFValueType.FLOAT32),
        ("token_type", types, GGUFValueType.INT32),
    ]
    for name, values, kind in arrays:
        metadata.set(f"tokenizer.ggml.{name}", values, GGUFValueType.ARRAY, element_type=kind)
    metadata.set("tokenizer.ggml.eos_token_id", END, GGUFValueType.UINT32)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(TOKENS), width),
        "output_norm.weight": (width,),
    }
    for i in range(layers):
        block = f"blk.{i}"
        shapes |= {
            f"{block}.attn_norm.weight": (width,),
            f"{block}.attn_q.weight": (width, width),
            f"{block}.attn_k.weight": (width // 2, width),
            f"{block}.attn_v.weight": (width // 2, width),
            f"{block}.attn_output.weight": (width, width),
            f"{block}.ffn_norm.weight": (width,),
            f"{block}.ffn_gate.weight": (n_ff, width),
            f"{block}.ffn_up.weight": (n_ff, width),
            f"{block}.ffn_down.weight": (width, n_ff),
        }
    specs, data = [], []
    for name, shape in shapes.items():
        kind_ = TensorType["F32" if len(shape) == 1 else tensor_type]
        specs.append(TensorSpec(name, shape[::-1], kind_))
        values_ = np.ones(shape) if len(shape) == 1 else rng.standard_normal(shape) * 0.3
        data.append(codec.quantize(values_.astype(np.float32), kind_))
    with Writer(path, layout(metadata, specs)) as writer:
        for index, packed in enumerate(data):
            writer.write(index, 0, packed)
        writer.commit()
    return path
