"""Options of llama-cpp-python's constructor that kquant has no use for, or cannot fulfil."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kquant.errors import OptionError
from kquant.types import TensorType

__all__ = ["OWN_TEMPLATE", "POOLINGS", "cache_type_of", "check_others"]

OWN_TEMPLATE = "chat_template.default"
"""The name of the file's own chat template as a format."""
POOLINGS = {0: "none", 1: "mean", 2: "cls", 3: "last"}
"""llama.cpp's numbers."""

# they say where and how llama.cpp computes; results do not depend on them
IGNORED = frozenset(
    (
        *("n_gpu_layers", "split_mode", "main_gpu", "tensor_split", "use_mmap", "use_mlock", "n_ubatch"),
        *(
            "offload_kqv",
            "flash_attn",
            "op_offload",
            "swa_full",
            "no_perf",
            "numa",
            "lora_base",
            "lora_scale",
        ),
    )
)
# they change results: only what llama-cpp-python has without them is accepted
REFUSED: dict[str, tuple[Any, ...]] = {
    "vocab_only": (False,),
    "kv_overrides": (None, {}),
    "rope_scaling_type": (None, -1),
    "attention_type": (-1,),
    "rope_freq_base": (0.0,),
    "rope_freq_scale": (0.0, 1.0),
    "yarn_ext_factor": (-1.0,),
    "yarn_attn_factor": (1.0,),
    "yarn_beta_fast": (32.0,),
    "yarn_beta_slow": (1.0,),
    "yarn_orig_ctx": (0,),
    "lora_path": (None,),
    "draft_model": (None,),
    "tokenizer": (None,),
}


def check_others(options: Mapping[str, Any]) -> list[str]:
    """The names that are no options at all, which llama-cpp-python accepts, too.

    Raises `OptionError` for an option that would change results and that kquant does not have.

    >>> check_others({"n_gpu_layers": -1, "n_gqa": 8})
    ['n_gqa']
    """
    for name, value in options.items():
        if name in REFUSED and value not in REFUSED[name]:
            expected = " or ".join(map(repr, REFUSED[name]))
            raise OptionError(f"{name}: expected {expected}, as kquant does nothing else, got {value!r:.60}")
    return [name for name in options if name not in REFUSED and name not in IGNORED]


def cache_type_of(number: int | None, option: str) -> str:
    """The name of a ggml type; F16 if it is not given.

    Raises `OptionError` for numbers of no type.

    >>> cache_type_of(8, "type_k")
    'Q8_0'
    """
    if number is None:
        return "F16"
    names = {each.value: each.name for each in TensorType}
    if number not in names:
        raise OptionError(
            f"{option}: expected the number of a ggml type, such as 8 for Q8_0, got {number!r:.40}"
        )
    return names[number]
