"""Tokens step by step: read them, choose those that follow, go back."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kquant.errors import OptionError
from kquant.llama_cpp.choosing import Chooser
from kquant.llama_cpp.grammar import LlamaGrammar
from kquant.llama_cpp.options import OWN_TEMPLATE, POOLINGS, cache_type_of, check_others
from kquant.llama_cpp.processors import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from kquant.runtime.language_model import LanguageModel
from kquant.runtime.sampling import Sampler, Sampling
from kquant.runtime.session import Session

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["LlamaState", "Steps"]

DEFAULT_SEED = 0xFFFFFFFF
"""Of llama.cpp: another one each time, where no completion derives one from it."""

UNSPECIFIED = 0xFFFFFFFF
"""llama.cpp's -1 as a file stores it."""

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LlamaState:
    """What `Llama.save_state` has kept."""

    session: Session
    scores: _Floats
    """Logits of every token with `logits_all`, else none."""
    logits: _Floats | None
    """Of the last token."""
    seed: int

    @property
    def n_tokens(self) -> int:
        """Tokens that had been read."""
        return len(self.session)


class Steps:
    """What `Llama` does with tokens; its options are told there."""

    def __init__(
        self,
        model_path: str,
        *,
        n_ctx: int = 512,
        n_batch: int = 512,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        seed: int = DEFAULT_SEED,
        last_n_tokens_size: int = 64,
        logits_all: bool = False,
        embedding: bool = False,
        pooling_type: int = -1,
        chat_format: str | None = None,
        chat_handler: Callable[..., Any] | None = None,
        type_k: int | None = None,
        type_v: int | None = None,
        spm_infill: bool = False,
        verbose: bool = True,
        **others: Any,
    ) -> None:
        self.verbose = verbose
        unknown = check_others(others)
        types = cache_type_of(type_k, "type_k"), cache_type_of(type_v, "type_v")
        if pooling_type not in (-1, *POOLINGS):
            raise OptionError(f"pooling_type: expected -1 to 3, got {pooling_type!r:.40}")
        if not Path(model_path).exists():
            raise OptionError(f"Model path does not exist: {model_path}")
        self._llm = LanguageModel(model_path, n_ctx or None, n_threads or n_threads_batch, *types)
        self.model_path = model_path
        self.n_batch = min(self.n_ctx(), n_batch)
        self.last_n_tokens_size = last_n_tokens_size
        self.spm_infill = spm_infill
        self.embedding = embedding
        self._pooling = pooling_type
        self._seed = seed or DEFAULT_SEED
        self.logits_all = logits_all
        self._session = self._llm.session()
        self._logits: _Floats | None = None
        self.scores: _Floats = np.zeros((self.n_ctx() if logits_all else n_batch, self.n_vocab()), np.float32)
        """Logits, float32 (n, n_vocab): with `logits_all` row i tells what follows token i; else only the row
        of the last token is filled, the last row of all if there are more tokens than rows."""
        self.chat_handler = chat_handler
        self.chat_format = chat_format or (OWN_TEMPLATE if self._llm.tokenizer.chat_template else "llama-2")
        self._tell(f"options that are not known and do nothing: {', '.join(unknown)}" if unknown else "")

    # ------------------------------------------------------------ facts

    def n_ctx(self) -> int:
        """Tokens of the context."""
        return self._llm.context

    def n_vocab(self) -> int:
        """Tokens that logits tell of."""
        return self._llm.n_vocab

    def n_embd(self) -> int:
        """Elements of an embedding."""
        return self._llm.hyperparameters.n_embd

    def token_bos(self) -> int:
        """The token that begins a text, or -1."""
        found = self._llm.tokenizer.bos_id
        return -1 if found is None else found

    def token_eos(self) -> int:
        """The token that ends a text, or -1."""
        found = self._llm.tokenizer.eos_id
        return -1 if found is None else found

    def token_nl(self) -> int:
        """The token of a line's end, or -1."""
        found = self._llm.tokenize("\n", add_special=False)
        return found[-1] if found else -1

    def pooling_type(self) -> int:
        """How tokens become one embedding: 0 not at all, 1 mean, 2 first, 3 last token."""
        if self._pooling >= 0:
            return self._pooling
        found = self._llm.hyperparameters.integer("pooling_type", 0, most=UNSPECIFIED)
        return 0 if found == UNSPECIFIED else found

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file as text, but for its arrays."""
        found = self._llm.model.metadata
        return {key: _text_of(found[key]) for key in found if isinstance(found[key], str | int | float)}

    # ------------------------------------------------------------ text and tokens

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """The token ids of a text in UTF-8; `special` finds special tokens in it."""
        if not isinstance(text, bytes):
            raise OptionError(f"text: expected bytes, got {type(text).__name__}")
        return self._llm.tokenize(text.decode("utf-8", "replace"), add_bos, special)

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """The bytes of token ids; `special` shows special tokens."""
        pieces = b"".join(self._llm.tokenizer.token_bytes(token, special) for token in tokens)
        begins = len(tokens) > 0 and tokens[0] == self.token_bos()
        return pieces.removeprefix(b" ") if begins else pieces

    # ------------------------------------------------------------ step by step

    @property
    def n_tokens(self) -> int:
        """Tokens that have been read; set it to forget those after."""
        return len(self._session)

    @n_tokens.setter
    def n_tokens(self, n: int) -> None:
        self._session.truncate(n)
        self._logits = None

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The tokens that have been read, (n_ctx,): zeros after `n_tokens`."""
        found = np.zeros(self.n_ctx(), np.intc)
        found[: self.n_tokens] = self._session.tokens
        return found

    @property
    def eval_tokens(self) -> deque[int]:
        """The tokens that have been read."""
        return deque(self._session.tokens, maxlen=self.n_ctx())

    def reset(self) -> None:
        """Forget all tokens."""
        self.n_tokens = 0

    def eval(self, tokens: Sequence[int]) -> None:
        """Read tokens after those that are there."""
        if not len(tokens):
            return
        timings, start = self._llm.timings, perf_counter()
        read = self._session.read(tokens, every=self.logits_all)
        if self.logits_all:
            self.scores[self.n_tokens - len(tokens) : self.n_tokens] = read
        self._logits = read[-1] if self.logits_all else read
        self.scores[min(self.n_tokens, len(self.scores)) - 1] = self._logits
        passed = 1000 * (perf_counter() - start)
        if len(tokens) > 1:
            timings.prompt_ms += passed
            timings.prompt_tokens += len(tokens)
        else:
            timings.generation_ms += passed
            timings.generated_tokens += 1

    def sample(
        self,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.80,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_eta: float = 0.1,
        mirostat_tau: float = 5.0,
        penalize_nl: bool = True,
        logits_processor: LogitsProcessorList | None = None,
        grammar: LlamaGrammar | None = None,
        idx: int | None = None,
    ) -> int:
        """A token that may follow the last one that was read; with `logits_all` the one at `idx`."""
        sampler = Sampler(
            self.sampling(
                temperature=temp, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p,
                repeat_penalty=repeat_penalty, frequency_penalty=frequency_penalty,
                presence_penalty=presence_penalty, mirostat_mode=mirostat_mode,
            )
        )  # fmt: skip
        logits = self._logits if idx is None else self.scores[idx]
        if logits is None:
            raise OptionError("sample: expected tokens that have been read, got none since the last reset")
        choose = Chooser(self, sampler, logits_processor, grammar)
        return choose(logits)

    def generate(
        self,
        tokens: Sequence[int],
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.80,
        repeat_penalty: float = 1.0,
        reset: bool = True,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        penalize_nl: bool = True,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        grammar: LlamaGrammar | None = None,
    ) -> Generator[int, Sequence[int] | None, None]:
        """Tokens that follow, without end; tokens that are sent are read after the last one.

        With `reset` the sequence is `tokens`, of which a prefix that has been read is not read again; without
        it, they follow what is there.
        """
        sampling = self.sampling(
            temperature=temp, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p,
            repeat_penalty=repeat_penalty, frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty, mirostat_mode=mirostat_mode,
        )  # fmt: skip
        return self.follow(tokens, sampling, logits_processor, stopping_criteria, grammar, reset=reset)

    def follow(
        self,
        tokens: Sequence[int],
        sampling: Sampling,
        processors: LogitsProcessorList | None = None,
        criteria: StoppingCriteria | None = None,
        grammar: LlamaGrammar | None = None,
        *,
        reset: bool = True,
    ) -> Generator[int, Sequence[int] | None, None]:
        """`generate`, with all of kquant's `Sampling`."""
        choose = Chooser(self, Sampler(sampling), processors, grammar)
        rest = list(tokens)
        if reset:
            self._logits = None
            kept = self._session.keep_prefix_of(rest)
            rest = rest[kept:]
            if kept:
                self._tell(
                    f"Llama.generate: {kept} prefix-match hit, remaining {len(rest)} prompt tokens to eval"
                )
        if not rest and self._logits is None:
            raise OptionError("tokens: expected at least one, got none")
        while True:
            self.eval(rest)
            assert self._logits is not None
            token = choose(self._logits)
            if criteria is not None and criteria(np.array(self._session.tokens, np.intc), self._logits):
                return
            sent = yield token
            if choose.finished:
                return
            rest = [token, *(sent or ())]

    def sampling(self, *, temperature: float, mirostat_mode: int = 0, **settings: Any) -> Sampling:
        """kquant's settings: a temperature below 0 draws from all tokens, as llama-cpp-python has it."""
        if mirostat_mode:
            raise OptionError(
                f"mirostat_mode: expected 0, as kquant has no Mirostat, got {mirostat_mode!r:.40}"
            )
        if temperature < 0:
            temperature = 1.0
            settings |= {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}
        for name in ("top_p", "min_p", "typical_p"):  # beyond the bounds llama.cpp does as at them
            if name in settings:
                settings[name] = min(max(settings[name], 0.0), 1.0)
        seed = self._seed & DEFAULT_SEED  # llama.cpp has 32 bits
        return Sampling(
            temperature=temperature,
            repeat_last_n=self.last_n_tokens_size,
            seed=None if seed == DEFAULT_SEED else seed,
            **settings,
        )

    def set_seed(self, seed: int) -> None:
        """Of the random numbers."""
        self._seed = seed

    def next_seed(self) -> None:
        """Derive the seed of a completion that is given none from that of the last."""
        self._seed = random.Random(self._seed).randint(0, 2**32)  # noqa: S311 - no secret

    def save_state(self) -> LlamaState:
        """A copy of what has been read."""
        scores = self.scores[: self.n_tokens if self.logits_all else 0].copy()
        return LlamaState(self._session.copy(), scores, self._logits, self._seed)

    def load_state(self, state: LlamaState) -> None:
        """Go on from where `save_state` was called."""
        self._session = state.session.copy()
        self.scores[: len(state.scores)] = state.scores
        self._logits = state.logits
        self._seed = state.seed

    # ------------------------------------------------------------ for the modules of this package

    @property
    def llm(self) -> LanguageModel:
        """What does the work."""
        return self._llm

    def print_timings(self) -> None:
        """llama.cpp's lines, if `verbose`."""
        self._tell(*self._llm.timings.lines())

    def _tell(self, *lines: str) -> None:
        if self.verbose:
            for line in filter(None, lines):
                sys.stderr.write(line + "\n")

    # ------------------------------------------------------------ the end

    def close(self) -> None:
        """Release the file and end the threads."""
        self._llm.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _text_of(value: str | float) -> str:
    """As llama.cpp writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:f}" if isinstance(value, float) else str(value)
