"""A model that runs and has a vocabulary: small, with random weights, and a chat template."""

from __future__ import annotations

import string
from pathlib import Path

from kquant.gguf import GGUFValueType, TensorSpec, Writer, layout, read
from support.golden_models import model_path

TOKENS = ["<unk>", "<s>", "</s>", "▁", "\n", *string.ascii_letters, *string.digits, *string.punctuation]
TOKENS += ["▁a", "▁b", "th", "he", "in", "é", "<0xF0>", "<0x9F>", "<0x98>"]
N_VOCAB = 128
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def write_speaking_model(
    path: Path, *, chat_template: str | None = CHAT_TEMPLATE, n_tokens: int = N_VOCAB
) -> Path:
    """The golden model llama-dense with a vocabulary of 128 tokens, or less: letters, and a few bytes."""
    tokens = TOKENS + [f"<unused{i}>" for i in range(n_tokens - len(TOKENS))]
    kinds = [2, 3, 3] + [6 if t.startswith("<0x") else 5 if t.startswith("<u") else 1 for t in tokens[3:]]
    array, text = GGUFValueType.ARRAY, GGUFValueType.STRING
    with read(model_path("llama-dense")) as file:
        md = file.metadata
        md.set("tokenizer.ggml.model", "llama", text)
        md.set("tokenizer.ggml.tokens", tokens, array, element_type=text)
        md.set(
            "tokenizer.ggml.scores",
            [-float(i) for i in range(n_tokens)],
            array,
            element_type=GGUFValueType.FLOAT32,
        )
        md.set("tokenizer.ggml.token_type", kinds, array, element_type=GGUFValueType.INT32)
        for i, name in enumerate(("unknown", "bos", "eos")):
            md.set(f"tokenizer.ggml.{name}_token_id", i, GGUFValueType.UINT32)
        md.set("tokenizer.ggml.add_bos_token", True, GGUFValueType.BOOL)
        md.set("tokenizer.ggml.add_space_prefix", True, GGUFValueType.BOOL)
        if chat_template is not None:
            md.set("tokenizer.chat_template", chat_template, text)
        specs = [TensorSpec(info.name, info.ggml_shape, info.type) for info in file.tensors.values()]
        with Writer(path, layout(md, specs)) as writer:
            for index, info in enumerate(file.tensors.values()):
                writer.write(index, 0, file.data(info))
            writer.commit()
    return path
