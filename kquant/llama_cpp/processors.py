"""What a caller can have done between two tokens: change the logits, or end the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["LogitsProcessor", "LogitsProcessorList", "StoppingCriteria", "StoppingCriteriaList"]

LogitsProcessor: TypeAlias = Callable[
    [npt.NDArray[np.intc], npt.NDArray[np.float32]], npt.NDArray[np.float32]
]
"""(tokens so far, logits (n_vocab,)) -> logits."""
StoppingCriteria: TypeAlias = Callable[[npt.NDArray[np.intc], npt.NDArray[np.float32]], bool]
"""(tokens so far, logits (n_vocab,)) -> whether the text ends here."""


class LogitsProcessorList(list[LogitsProcessor]):
    """Each is given what the one before returns."""

    def __call__(
        self, input_ids: npt.NDArray[np.intc], scores: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """The logits after all of them."""
        for processor in self:
            scores = processor(input_ids, scores)
        return scores


class StoppingCriteriaList(list[StoppingCriteria]):
    """One that says yes is enough."""

    def __call__(self, input_ids: npt.NDArray[np.intc], logits: npt.NDArray[np.float32]) -> bool:
        """Whether one of them says so."""
        return any(criterion(input_ids, logits) for criterion in self)
