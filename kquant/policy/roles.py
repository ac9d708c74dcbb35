"""What a tensor is for, read from its name: its role, its layer, and whether it may be quantized at all.

The names are those that llama.cpp's converters write (`blk.3.ffn_down.weight`).  Everything here is a
fact about names, without regard to a file type.

Facts from `tensor_get_category`, `tensor_allows_quantization` and `weight_name_comparer` in
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp and
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-model-loader.h.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

__all__ = ["Role", "is_token_embedding", "kept_because", "layer_of", "processing_order", "role_of"]


class Role(Enum):
    """The broad purposes that the rules tell apart."""

    TOKEN_EMBD = "token embedding"  # noqa: S105  (a purpose, no password)
    OUTPUT = "output"
    ATTENTION_V = "attention v"
    ATTENTION_K = "attention k"
    ATTENTION_Q = "attention q"
    ATTENTION_OUTPUT = "attention output"
    FFN_UP = "ffn up"
    FFN_GATE = "ffn gate"
    FFN_DOWN = "ffn down"
    OTHER = "other"


# The first part that a name contains decides.  Fused q·k·v and the compressed k·v of MLA contain v, so
# they count as v.
_ROLES: Final = (
    ("attn_qkv.weight", Role.ATTENTION_V),
    ("attn_kv_b.weight", Role.ATTENTION_V),
    ("attn_v.weight", Role.ATTENTION_V),
    ("attn_k.weight", Role.ATTENTION_K),
    ("attn_q.weight", Role.ATTENTION_Q),
    ("attn_output.weight", Role.ATTENTION_OUTPUT),
    ("ffn_up", Role.FFN_UP),
    ("ffn_gate", Role.FFN_GATE),
    ("ffn_down", Role.FFN_DOWN),
)

_KEPT: Final = {
    "a norm": ("_norm.weight",),
    "the router of the experts": ("ffn_gate_inp.weight",),
    "a table of expert numbers": ("ffn_gate_tid2eid.weight",),
    "tiny": ("altup", "laurel", "indexer.k_proj.weight", "indexer.q_proj.weight"),
    "a projection that is not worth it": ("per_layer_model_proj",),
    "a short convolution": ("ssm_conv1d", "shortconv.conv.weight"),
    "a small matrix of RWKV": (
        "time_mix_first.weight",
        *(f"time_mix_{part}.weight" for part in ("w0", "w1", "w2", "v0", "v1", "v2")),
        *(f"time_mix_{part}.weight" for part in ("a0", "a1", "a2", "g1", "g2")),
        "time_mix_decay_w1.weight",
        "time_mix_decay_w2.weight",
        "time_mix_lerp_fused.weight",
    ),
    "a relative position bias": ("attn_rel_b.weight",),
    "a part of an image or audio encoder": (
        ".position_embd",
        "sam.pos_embd",
        "sam.neck.",
        "sam.net_",
        ".rel_pos",
        ".patch_embd",
        ".patch_merger",
        "a.rvq.codebook",
        "mm.a.code_embd",
    ),
}

_KEPT_NAMES: Final = {
    "position_embd.weight": "positions",
    "token_types.weight": "token types",
}

_KEPT_BY_ARCHITECTURE: Final = {
    "glm5-next": (
        "hc_",
        "indexer.attn_q_b",
        "indexer.attn_k",
        "indexer.proj",
        "indexer_compressor_gate",
        "indexer_compressor_ape",
        "ssm_f_a.weight",
        "ssm_f_b.weight",
        "ssm_g_a.weight",
        "ssm_g_b.weight",
        "ssm_beta.weight",
        "attn_kv_a_mqa.weight",
        "attn_k_b.weight",
        "attn_v_b.weight",
    ),
}

_LAYER: Final = re.compile(r"blk\.\s*([+-]?[0-9]+)", re.ASCII)


def is_token_embedding(name: str) -> bool:
    """Whether `name` is a table of token embeddings, one for all layers or one for each."""
    return name in ("token_embd.weight", "per_layer_token_embd.weight")


def role_of(name: str) -> Role:
    """The role of the tensor of that name.

    >>> role_of("blk.7.attn_qkv.weight")
    <Role.ATTENTION_V: 'attention v'>
    """
    if name == "output.weight":
        return Role.OUTPUT
    if is_token_embedding(name):
        return Role.TOKEN_EMBD
    return next((role for part, role in _ROLES if part in name), Role.OTHER)


def layer_of(name: str) -> int | None:
    """The number of the layer in a name that starts with `blk.`, else None.

    >>> layer_of("blk.11.attn_q.weight"), layer_of("output.weight"), layer_of("dec.blk.1.attn_q.weight")
    (11, None, None)
    """
    match = _LAYER.match(name)
    return int(match[1]) if match else None


def processing_order(name: str) -> tuple[int, bytes]:
    """A sort key for the order in which llama-quantize processes and writes tensors.

    Tensors without a layer come first, then layer by layer; by the bytes of the name within each.

    >>> sorted(["blk.10.b", "blk.2.b", "output.weight", "blk.2.a"], key=processing_order)
    ['output.weight', 'blk.2.a', 'blk.2.b', 'blk.10.b']
    """
    layer = layer_of(name)
    return -1 if layer is None else layer, name.encode("utf-8", "surrogateescape")


def kept_because(name: str, n_dims: int, architecture: str = "") -> str | None:
    """Why the tensor of that name is never quantized; None if it may be.

    `n_dims` counts the dimensions without trailing ones (GGUF's order), as ggml does.

    >>> kept_because("blk.0.attn_norm.weight", 1)
    'one-dimensional'
    >>> kept_because("blk.0.ffn_gate_inp.weight", 2)
    'the router of the experts'
    >>> kept_because("blk.0.ffn_up.weight", 2) is None
    True
    """
    if n_dims < 2:
        return "one-dimensional"
    # llama.cpp compares a search result with len - 6; without a match, both are -1 for five letters
    if not name.endswith("weight") and len(name.encode("utf-8", "surrogateescape")) != 5:
        return "not a weight"
    if name in _KEPT_NAMES:
        return _KEPT_NAMES[name]
    for reason, parts in _KEPT.items():
        if any(part in name for part in parts):
            return reason
    if any(part in name for part in _KEPT_BY_ARCHITECTURE.get(architecture, ())):
        return f"sensitive in {architecture}"
    return None
