"""How probable each token was, and which others were likely: OpenAI's `logprobs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from kquant.llama_cpp.steps import Steps

__all__ = ["Logprobs"]


class Logprobs:
    """Tokens with their natural logarithms of probability, and the `n` most likely ones beside each."""

    def __init__(self, llama: Steps, n: int, offset: int) -> None:
        self._llama, self._n, self._offset = llama, n, offset
        self._bytes = b""
        self.tokens: list[str] = []
        self.offsets: list[int] = []
        self.each: list[float | None] = []
        self.top: list[dict[str, float] | None] = []

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, token: int, logits: npt.NDArray[np.float32] | None) -> None:
        """A token, and the logits, float32 (n_vocab,), that it was chosen by; None for a first one."""
        text = self._text(token)
        self.tokens.append(text)
        self.offsets.append(self._offset + len(self._bytes.decode("utf-8", "ignore")))
        self._bytes += self._llama.detokenize([token])
        if logits is None:
            self.each.append(None)
            self.top.append(None)
            return
        x = logits.astype(np.float64)
        x -= x.max()
        x -= np.log(np.exp(x).sum())
        order = np.argsort(-x, kind="stable")[: self._n]
        self.each.append(float(x[token]))
        self.top.append({**{self._text(int(i)): float(x[i]) for i in order}, text: float(x[token])})

    def add_prompt(self, tokens: Sequence[int], first: int) -> None:
        """The tokens of a prompt from the first on, whose logits the model still has."""
        for i in range(first, len(tokens)):
            self.add(tokens[i], None if i == first else self._llama.scores[i - 1])

    def extend(self, more: Logprobs) -> None:
        """The tokens that come after."""
        self.tokens += more.tokens
        self.offsets += more.offsets
        self.each += more.each
        self.top += more.top

    def as_dict(self) -> dict[str, Any]:
        """OpenAI's dictionary."""
        return {
            "tokens": self.tokens,
            "text_offset": self.offsets,
            "token_logprobs": self.each,
            "top_logprobs": self.top,
        }

    def _text(self, token: int) -> str:
        return self._llama.detokenize([token]).decode("utf-8", "ignore")
