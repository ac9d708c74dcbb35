"""The numbers of a model, read from the metadata of its file and checked.

Source: `llama_model_base::load_hparams` in
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-model.cpp
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from kquant.errors import ModelError
from kquant.models.rope import Rope

__all__ = ["Hyperparameters"]

MAX_LAYERS = 4096
MAX_WIDTH = 1 << 22
"""Of rows and of counts: beyond all models, and small enough that products of two fit an int64."""

_N = TypeVar("_N", int, float, bool, str)
_MISSING: Any = object()


class Hyperparameters:
    """What the graph of an architecture asks for.

    `integer`, `number`, `flag` and `text` read a key without the architecture's name before it; a value of
    another type, or none where there is no default, raises `ModelError`.

    >>> h = Hyperparameters({"general.architecture": "llama", "llama.block_count": 2,
    ...     "llama.embedding_length": 64, "llama.context_length": 128, "llama.attention.head_count": 4}, 100)
    >>> h.n_layer, h.head_size, h.n_head_kv(0)
    (2, 16, 4)
    """

    def __init__(self, metadata: Mapping[str, Any], n_vocab: int, tensors: Mapping[str, Any] = {}) -> None:
        self._metadata, self._tensors = metadata, tensors
        self.n_vocab = n_vocab
        """Rows of the token embeddings."""
        self.architecture = self._architecture()
        self.n_layer = self.integer("block_count", least=1, most=MAX_LAYERS)
        self.n_embd = self.integer("embedding_length", least=1)
        """Elements of a token between layers."""
        self.n_ctx_train = self.integer("context_length", least=1, most=1 << 31)
        self.head_size = self._head_size("attention.key_length")
        self.value_size = self._head_size("attention.value_length")
        self.n_rot = self.integer("rope.dimension_count", self.head_size)
        self.n_expert = self.integer("expert_count", 0)
        self.n_expert_used = self.integer("expert_used_count", 0)
        self.window = self.integer("attention.sliding_window", 0, most=1 << 31)
        if self.n_rot % 2 or self.n_rot > self.head_size:
            key = f"{self.architecture}.rope.dimension_count"
            raise ModelError(f"{key}: expected an even number up to {self.head_size}, got {self.n_rot}")
        if self.n_expert and not 0 < self.n_expert_used <= self.n_expert:
            key = f"{self.architecture}.expert_used_count"
            raise ModelError(f"{key}: expected 1 to {self.n_expert}, got {self.n_expert_used}")

    def _architecture(self) -> str:
        found = self._metadata.get("general.architecture", _MISSING)
        if not isinstance(found, str):
            got = "none" if found is _MISSING else type(found).__name__
            raise ModelError(f"general.architecture: expected the name of an architecture, got {got}")
        return found

    def _head_size(self, key: str) -> int:
        n_head = self.n_head(0)
        return self.integer(key, self.n_embd // n_head if n_head else 0, least=1)

    # ------------------------------------------------------------ one number a layer

    def n_head(self, layer: int) -> int:
        """Heads of queries."""
        return self.per_layer("attention.head_count", layer)

    def n_head_kv(self, layer: int) -> int:
        """Heads of keys and values: as many as of queries if the file does not say, or says 0."""
        n_head, n_head_kv = self.n_head(layer), self.per_layer("attention.head_count_kv", layer, 0)
        n_head_kv = n_head_kv or n_head
        if n_head and n_head % n_head_kv:
            key = f"{self.architecture}.attention.head_count_kv"
            raise ModelError(f"{key}: expected a divisor of {n_head} heads, got {n_head_kv} (layer {layer})")
        return n_head_kv

    def n_ff(self, layer: int) -> int:
        """Elements between the matrices of a feed-forward network."""
        return self.per_layer("feed_forward_length", layer)

    def per_layer(self, key: str, layer: int, default: int | None = None) -> int:
        """An integer that is the same for all layers, or one of an array of as many."""
        value = self._metadata.get(f"{self.architecture}.{key}", _MISSING)
        if not isinstance(value, np.ndarray):
            return self.integer(key, _MISSING if default is None else default)
        if value.dtype.kind not in "iub" or not layer < len(value):
            raise ModelError(
                f"{self.architecture}.{key}: expected {self.n_layer} integers, "
                f"got {len(value)} of {value.dtype}"
            )
        return self._in_range(key, int(value[layer]), 0, MAX_WIDTH)

    def slides(self, layer: int, pattern: int, *, dense_first: bool = False) -> bool:
        """Whether a layer's attention has a window, by the file, or else but for every `pattern`-th one."""
        value = self._metadata.get(f"{self.architecture}.attention.sliding_window_pattern", _MISSING)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iub" and layer < len(value):
            return bool(value[layer])
        if value is not _MISSING and not isinstance(value, np.ndarray):
            pattern = self.integer("attention.sliding_window_pattern")
        if pattern == 0:
            return True
        return layer % pattern != 0 if dense_first else layer % pattern < pattern - 1

    # ------------------------------------------------------------ by key

    def integer(self, key: str, default: int = _MISSING, *, least: int = 0, most: int = MAX_WIDTH) -> int:
        """An integer between two bounds."""
        return self._in_range(key, self._read(key, int, default), least, most)

    def number(self, key: str, default: float = _MISSING) -> float:
        """A finite number."""
        value = float(self._read(key, float, default))
        if not math.isfinite(value):
            raise ModelError(f"{self.architecture}.{key}: expected a finite number, got {value}")
        return value

    def flag(self, key: str, default: bool = _MISSING) -> bool:
        """True or false."""
        return self._read(key, bool, default)

    def text(self, key: str, default: str = _MISSING) -> str:
        """A string."""
        return self._read(key, str, default)

    def has(self, key: str) -> bool:
        """Whether the file says so."""
        return f"{self.architecture}.{key}" in self._metadata

    def _read(self, key: str, kind: type[_N], default: _N) -> _N:
        name = f"{self.architecture}.{key}"
        value = self._metadata.get(name, default)
        if value is _MISSING:
            raise ModelError(f"expected {name} in the metadata, got a file without it")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)  # type: ignore[return-value]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ModelError(f"{name}: expected {_KINDS[kind]}, got {value!r:.80}")
        return value

    def _in_range(self, key: str, value: int, least: int, most: int) -> int:
        if not least <= value <= most:
            raise ModelError(f"{self.architecture}.{key}: expected {least} to {most}, got {value}")
        return value

    # ------------------------------------------------------------ what many architectures share

    @property
    def rms_epsilon(self) -> float:
        """What is added to mean squares."""
        return self.number("attention.layer_norm_rms_epsilon")

    @property
    def layer_epsilon(self) -> float:
        """What is added to variances."""
        return self.number("attention.layer_norm_epsilon")

    @property
    def attention_scale(self) -> float:
        """What products of queries and keys are multiplied with."""
        return self.number("attention.scale", 0.0) or 1.0 / math.sqrt(self.head_size)

    def rope(self, pairs: Any, *, context: int | None = None, base: float | None = None) -> Rope:
        """Rotations as the metadata, and the tensors for factors, say.

        Args:
            pairs: "adjacent" or "halves".
            context: Tokens for which the model will be used: decides between LongRoPE's factors.
            base: In place of the metadata's.

        Source: `llama_context::llama_context` in
        https://github.com/ggml-org/llama.cpp/blob/master/src/llama-context.cpp
        """
        kind = self.text("rope.scaling.type", "linear")
        if kind not in ("none", "linear", "yarn", "longrope"):
            raise ModelError(
                f"{self.architecture}.rope.scaling.type: expected none, linear, yarn or longrope, "
                f"got {kind!r:.40}"
            )
        factor = self.number("rope.scaling.factor", 0.0) or self.number("rope.scale_linear", 0.0) or 1.0
        original = self.integer("rope.scaling.original_context_length", self.n_ctx_train, most=1 << 31)
        original = original or self.n_ctx_train
        magnitude = self.number("rope.scaling.attn_factor", 1.0)
        extrapolation = self.number("rope.scaling.yarn_ext_factor", -1.0)
        if extrapolation < 0:
            extrapolation = 1.0 if kind == "yarn" else 0.0
        if extrapolation:
            # the rotation multiplies with 1 + 0.1 log(factor), too, which is taken back here
            log_multiplier = self.number("rope.scaling.yarn_log_multiplier", 0.0)
            scaled = _magnitude(factor, 1.0) / (_magnitude(factor, log_multiplier) if log_multiplier else 1.0)
            magnitude *= scaled / (1 + 0.1 * math.log(factor))
        else:
            magnitude *= self.number("rope.scaling.yarn_attn_factor", 1.0)
        found = [name for name in self._factor_names(context, original) if name in self._tensors]
        rope = Rope(
            n_dims=self.n_rot,
            pairs=pairs,
            base=self.number("rope.freq_base", 10000.0) if base is None else base,
            scale=1.0 if kind == "none" else 1.0 / factor,
            factors=found[0] if found else None,
            magnitude=magnitude,
            extrapolation=extrapolation,
            beta_fast=self.number("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=self.number("rope.scaling.yarn_beta_slow", 1.0),
            original_context=original,
        )
        if (
            factor <= 0
            or rope.base <= (1 if extrapolation else 0)
            or min(rope.beta_fast, rope.beta_slow) <= 0
        ):
            raise ModelError(
                f"{self.architecture}.rope: expected positive numbers, got freq_base {rope.base:g}, "
                f"scaling.factor {factor:g}, betas {rope.beta_fast:g} and {rope.beta_slow:g}"
            )
        return rope

    def _factor_names(self, context: int | None, original: int) -> list[str]:
        is_long = (self.n_ctx_train if context is None else context) > original
        return ["rope_freqs.weight", f"rope_factors_{'long' if is_long else 'short'}.weight"]


def _magnitude(factor: float, multiplier: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1.0


_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
