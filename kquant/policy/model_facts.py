"""The few facts of a model that decide tensor types, from its metadata.

llama.cpp's `load_hparams` (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-model.cpp and
src/models/) reads hundreds; these are the ones that its quantizer asks for.  An architecture that
llama.cpp does not know is no error here: its keys have the same names, and the general rules apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import index
from typing import Any, Final

from kquant.errors import GGUFError
from kquant.policy.roles import layer_of

__all__ = ["ModelFacts"]

# The number of layers by which llama.cpp recognizes a "70B" model.
_LAYERS_OF_70B: Final = {"llama": 80, "llama-embed": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the type rules know of a model.

    >>> ModelFacts.from_metadata({
    ...     "general.architecture": "llama",
    ...     "llama.block_count": 80,
    ...     "llama.attention.head_count": 64,
    ...     "llama.attention.head_count_kv": 8,
    ... })
    ModelFacts(architecture='llama', n_layer=80, n_expert=0, n_gqa=8, is_70b=True)
    """

    architecture: str = ""
    n_layer: int = 0
    """Layers, including those that predict further tokens (`nextn`)."""
    n_expert: int = 0
    n_gqa: int = 0
    """Query heads that share one key/value head in the first layer; 0 without attention."""
    is_70b: bool = False
    """One of the models of about 70B parameters whose attn_v is an eighth of the size of attn_q."""

    @classmethod
    def from_metadata(
        cls,
        metadata: Mapping[str, Any],
        *,
        overrides: Mapping[str, Any] | None = None,
        tensor_names: Iterable[str] = (),
    ) -> ModelFacts:
        """The facts that the metadata of a GGUF file states, as llama.cpp reads them.

        `overrides` replace metadata of the same kind, as `--override-kv` does.  Where the number of
        layers is not stated, it is one more than the highest layer of `tensor_names`.

        Raises `GGUFError` where a number is expected and something else is found.
        """
        reader = _Reader(metadata, overrides or {})
        architecture = reader.text("general.architecture")
        if architecture == "clip":  # an image encoder has several kinds of layers; llama.cpp reads none
            return cls(architecture)

        n_layer = reader.count(f"{architecture}.block_count")
        if n_layer is None:
            layers = (layer_of(name) for name in tensor_names)
            n_layer = 1 + max((layer for layer in layers if layer is not None), default=-1)
        n_main = n_layer - (reader.count(f"{architecture}.nextn_predict_layers") or 0)
        n_expert = reader.count(f"{architecture}.expert_count") or 0
        n_head = reader.of_first_layer(f"{architecture}.attention.head_count") or 0
        n_head_kv = reader.of_first_layer(f"{architecture}.attention.head_count_kv")
        if n_head_kv is None:
            n_head_kv = n_head

        is_70b = n_main == _LAYERS_OF_70B.get(architecture)
        if architecture in ("llama", "llama-embed"):
            is_70b &= n_expert != 8 and n_head != n_head_kv

        n_loops = reader.count(f"{architecture}.num_loops") or 1
        if architecture == "nanbeige" and n_loops > 1:  # the same layers, used several times
            n_layer = n_main * n_loops
        elif architecture == "graniteswitch":  # a router after the last layer
            n_layer = n_main + 1
        return cls(architecture, n_layer, n_expert, n_head // n_head_kv if n_head_kv else 0, is_70b)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Looks values up as `llama_model_loader::get_key` does."""

    metadata: Mapping[str, Any]
    overrides: Mapping[str, Any]

    def text(self, key: str) -> str:
        value = self.overrides.get(key)
        if not isinstance(value, str):
            value = self.metadata.get(key, "")
        if not isinstance(value, str):
            raise GGUFError(f"{key}: expected a string, got {value!r}")
        return value

    def count(self, key: str) -> int | None:
        value = self.overrides.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return abs(value)
        return _count(key, self.metadata[key]) if key in self.metadata else None

    def of_first_layer(self, key: str) -> int | None:
        """One number for all layers, or the first of a list with one for each.

        Overrides replace a number that exists, but neither a list nor a missing key.
        """
        value = self.metadata.get(key)
        if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
            return None if value is None else self.count(key)
        return _count(f"{key}[0]", value[0]) if len(value) else 0


def _count(key: str, value: Any) -> int:
    try:
        number = index(value)
    except TypeError:
        raise GGUFError(f"{key}: expected an integer, got {value!r}") from None
    if isinstance(value, bool) or number < 0:
        raise GGUFError(f"{key}: expected a count, got {value!r}")
    return number
