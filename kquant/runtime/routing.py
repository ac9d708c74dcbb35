"""Which experts a token is sent to, and with which weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kquant.models.operations import Routing
from kquant.runtime.functions import sigmoid, softmax

__all__ = ["route"]

LEAST_SUM = np.float32(6.103515625e-5)
"""Weights are not divided by less: the smallest normal number of F16."""

_Floats = npt.NDArray[np.float32]


def route(
    logits: _Floats, routing: Routing, selection_bias: _Floats | None = None
) -> tuple[npt.NDArray[np.intp], _Floats]:
    """The experts of each token, the best first, and their weights.

    Args:
        logits: float32 (n_tokens, n_expert).
        routing: How to choose.
        selection_bias: float32 (n_expert,), added for the choice.

    Returns:
        intp and float32, both (n_tokens, n_used).  Of equal experts the one with the lower number is first.

    Source: `llm_graph_context::build_moe_ffn` in
    https://github.com/ggml-org/llama.cpp/blob/master/src/llama-graph.cpp

    >>> import numpy as np
    >>> from kquant.models.operations import Routing
    >>> route(np.array([[0, 1, 0.5]], np.float32), Routing(2, "softmax", is_normalized=True))[0]
    array([[1, 2]])
    """
    if routing.gating == "softmax":
        scores = softmax(logits)
    else:
        scores = sigmoid(logits) if routing.gating == "sigmoid" else logits
    chances = scores if selection_bias is None else scores + selection_bias
    if routing.by_logits:
        chances = logits
    if routing.n_groups > 1:
        chances = _of_best_groups(chances, routing)
    chosen = np.argsort(-chances, axis=1, kind="stable")[:, : routing.n_used]
    weights = np.take_along_axis(scores, chosen, axis=1)
    if routing.gating == "softmax_of_chosen":
        weights = softmax(weights)
    if routing.is_normalized:
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True, dtype=np.float32), LEAST_SUM)
    return chosen, weights * np.float32(routing.factor)


def _of_best_groups(chances: _Floats, routing: Routing) -> _Floats:
    """Minus infinity for experts outside the groups whose best two are best."""
    groups = chances.reshape(len(chances), routing.n_groups, -1)
    best = np.sort(groups, axis=2)[:, :, -2:].sum(axis=2)
    kept = np.argsort(-best, axis=1, kind="stable")[:, : routing.n_groups_used]
    mask = np.full(best.shape, -np.inf, np.float32)
    np.put_along_axis(mask, kept, 0, axis=1)
    return (groups + mask[:, :, None]).reshape(chances.shape)
