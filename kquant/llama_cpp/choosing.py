"""From logits to the next token, with what a caller has asked for on the way."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kquant.errors import OptionError
from kquant.llama_cpp.grammar import LlamaGrammar
from kquant.llama_cpp.processors import LogitsProcessorList
from kquant.runtime.sampling import Sampler

if TYPE_CHECKING:
    from kquant.llama_cpp.steps import Steps

__all__ = ["Chooser"]


class Chooser:
    """Logits to tokens, one after the other: grammar, processors, and penalties for what was generated."""

    def __init__(
        self,
        llama: Steps,
        sampler: Sampler,
        processors: LogitsProcessorList | None,
        grammar: LlamaGrammar | None,
    ) -> None:
        self._llama, self._sampler, self._processors = llama, sampler, processors
        if grammar is not None and not isinstance(grammar, LlamaGrammar):
            raise OptionError(f"grammar: expected a LlamaGrammar, got {type(grammar).__name__}")
        self._constraint = None if grammar is None else grammar.constraint(llama.llm)
        self._chosen: list[int] = []

    @property
    def finished(self) -> bool:
        """Whether the grammar allows nothing more."""
        return self._constraint is not None and self._constraint.finished

    def __call__(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token; the logits stay as they are."""
        start, timings = perf_counter(), self._llama.llm.timings
        if self._processors is not None:
            logits = self._processors(self._llama.input_ids[: self._llama.n_tokens], logits.copy())
        if self._constraint is not None:
            logits = logits.copy()
            self._constraint.mask(logits)
        token = self._sampler.sample(logits, self._chosen)
        if self._constraint is not None:
            self._constraint.accept(token)
        self._chosen.append(token)
        timings.sampling_ms += 1000 * (perf_counter() - start)
        timings.sampled_tokens += 1
        return token
