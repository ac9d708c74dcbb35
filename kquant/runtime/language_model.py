"""`LanguageModel`: a GGUF file that reads and writes text."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from kquant._given import count_of, texts_of
from kquant.errors import ModelError, OptionError
from kquant.kernels.execute import Execution
from kquant.model.model import open as open_model
from kquant.models.record import hyperparameters_of, record
from kquant.parallel.pool import Pool
from kquant.runtime.cache import Cache, cache_type
from kquant.runtime.chat import CHATML, render_chat
from kquant.runtime.constraints import Constraint, ConstraintVocabulary
from kquant.runtime.interpreter import Interpreter
from kquant.runtime.pieces import TextStream
from kquant.runtime.sampling import Sampler, Sampling
from kquant.runtime.session import Session, checked_ids
from kquant.runtime.timings import Timings
from kquant.runtime.watching import Watcher
from kquant.types import TensorType

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from kquant.tokenizers.tokenizer import Tokenizer

__all__ = ["LanguageModel", "Piece"]

POOLINGS: dict[int, Literal["mean", "cls", "last"]] = {0: "mean", 1: "mean", 2: "cls", 3: "last"}
"""`pooling_type` in the metadata; 0, which leaves a row for each token, counts as the mean."""

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """A part of a generated text."""

    text: str
    """Whole characters; may be empty, where a token is but a part of one."""
    token: int | None
    """The token that made it; None for what was held back until the end."""
    finish: Finish | None = None
    """Of the last piece: "stop" at the end of the text or a stop string, "length" at `max_tokens`."""


class LanguageModel:
    """A model that reads tokens and tells which may follow; its weights stay packed, and in the file.

    Args:
        path: A GGUF file, or the first shard of one.
        context: Tokens that a sequence may have; None for as many as the model was trained with.  Memory is
            taken as a sequence grows.
        threads: Threads that work at most; None for one per core.  Results do not depend on it.
        cache_type_k: Type of the keys in the cache: F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0 or IQ4_NL.
        cache_type_v: The same for the values.
        execution: As for `kquant.quantize`.

    Raises:
        GGUFError: The file is not valid GGUF.
        ModelError: Its architecture is not known, a tensor is missing or has another shape, or a key of the
            metadata is missing or has a value that cannot be.
        OptionError: An option is wrong, or the context does not fit in memory.
        OSError: The file cannot be opened.

    Source: https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h

    >>> import kquant
    >>> kquant.LanguageModel("model.gguf", cache_type_k="Q2_K")
    Traceback (most recent call last):
        ...
    kquant.errors.OptionError: cache_type_k: expected one of F32, F16, ..., got 'Q2_K'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        context: int | None = None,
        threads: int | None = None,
        cache_type_k: TensorType | str = "F16",
        cache_type_v: TensorType | str = "F16",
        *,
        execution: Execution | None = None,
    ) -> None:
        start = perf_counter()
        self._types = cache_type(cache_type_k, "cache_type_k"), cache_type(cache_type_v, "cache_type_v")
        self._execution: Execution | None = execution
        self._pool = Pool(threads)
        self.path = os.fspath(path)
        """Of the file."""
        self.model = open_model(path)
        """Its metadata and tensors."""
        shapes = {name: info.shape for name, info in self.model.tensors.items()}
        self.hyperparameters = hyperparameters_of(self.model.metadata, shapes)
        """The numbers of the model."""
        h = self.hyperparameters
        self.context = h.n_ctx_train if context is None else count_of("context", context)
        """Tokens that a sequence may have."""
        if context is not None:
            _check_memory(self._new_cache().bytes_at_most, context)
        self._watchers: list[tuple[str, Watcher]] = []
        self._interpreter = Interpreter(
            record(h, shapes, self.context), self.model.tensors, self._pool, execution, self._tell
        )
        self._session = self.session()
        self._tokenizer: Tokenizer | None = None
        self._forms: ConstraintVocabulary | None = None
        self.timings = Timings(load_ms=1000 * (perf_counter() - start))
        """How long loading, reading prompts and generating took."""

    # ------------------------------------------------------------ text

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary of the file, which is read when it is first needed."""
        if self._tokenizer is None:
            from kquant.tokenizers.tokenizer import Tokenizer

            made = Tokenizer(self.model)
            if len(made) > self.n_vocab:
                raise ModelError(
                    f"{self.path}: expected a vocabulary of at most {self.n_vocab} tokens, the rows of "
                    f"token_embd.weight, got {len(made)}"
                )
            self._tokenizer = made
        return self._tokenizer

    @property
    def n_vocab(self) -> int:
        """Tokens that logits tell of."""
        return self.hyperparameters.n_vocab

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a text; see `kquant.Tokenizer.tokenize`."""
        return self.tokenizer.tokenize(text, add_special, parse_special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids; see `kquant.Tokenizer.detokenize`."""
        return self.tokenizer.detokenize(ids)

    # ------------------------------------------------------------ tokens

    def _new_cache(self) -> Cache:
        h = self.hyperparameters
        widths = [(h.n_head_kv(i) * h.head_size, h.n_head_kv(i) * h.value_size) for i in range(h.n_layer)]
        return Cache(widths, self.context, *self._types, execution=self._execution)

    def session(self) -> Session:
        """An empty sequence of its own, which can be copied, cut, saved and loaded."""
        return Session(self._interpreter, self._new_cache(), self.n_vocab, self._fingerprint)

    def _fingerprint(self) -> str:
        """Tells models apart, and the same one with other factors of rotation, for sessions in files."""
        digest, file = sha256(repr(self._interpreter.program.operations).encode()), self.model.file
        for info in file.tensors.values():
            digest.update(file.data(info).reshape(-1)[:64].tobytes())
        return f"{self.hyperparameters.architecture}: {len(file.tensors)} tensors, {digest.hexdigest()[:16]}"

    def logits(self, ids: npt.ArrayLike | Sequence[int]) -> npt.NDArray[np.float32]:
        """What follows each token of a new sequence.

        Args:
            ids: Integers from 0, shape (n,).

        Returns:
            float32 (n, n_vocab).

        Raises `OptionError` if a token is none of the vocabulary, there is none, or they exceed the context.
        """
        self._expect_logits()
        return self.session().read(ids, every=True)

    def generate(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = None,
        *,
        sampling: Sampling | None = None,
        stop: str | Sequence[str] = (),
        session: Session | None = None,
        slide: bool = False,
        constraint: Constraint | None = None,
        parse_special: bool = True,
        **settings: Any,
    ) -> Iterator[Piece]:
        """The text that follows a prompt, piece by piece, as it is made.

        A prompt that begins as the last one did is read from where they differ; results are the same.  So are
        those of generations that take turns, or run in threads: but each turn reads again what differs,
        unless each has a session of its own.

        Args:
            prompt: A text, or token ids.
            max_tokens: Tokens to generate at most; None for as many as fit in the context.
            sampling: How to choose among tokens.
            stop: Texts that end the generation, and are not given.
            session: A sequence to go on with, in place of the model's own; the prompt follows what it has.
            slide: When the context is full, forget its older half, but for the beginning, and go on; else
                that is the end, or, before `max_tokens`, an `OptionError`.
            constraint: What `LanguageModel.constraint` has made: a form that the text keeps to.
            parse_special: Whether the texts of special tokens in the prompt stand for these tokens.
            **settings: Fields of `Sampling`, in place of `sampling`: temperature, top_k, seed and so on.

        Yields:
            `Piece`; the last one tells why it is the last.

        Raises `OptionError` if the prompt is empty or does not fit the context.
        """
        self._expect_logits()
        if sampling is not None and settings:
            raise OptionError(f"expected sampling or {', '.join(settings)}, got both")
        if max_tokens is not None:
            count_of("max_tokens", max_tokens, 0)
        sampler = Sampler(sampling or _sampling(settings))
        tokens = self.tokenizer
        ids = tokens.tokenize(prompt, True, parse_special) if isinstance(prompt, str) else prompt
        checked = checked_ids(ids, self.n_vocab).tolist()
        n = len(tokens)  # embeddings may have rows beyond the vocabulary

        def text_of(token: int) -> bytes:
            return tokens.token_bytes(token, special=False) if token < n else b""

        text = TextStream(text_of, texts_of("stop", stop))
        return self._generated(session, checked, max_tokens, sampler, text, slide, constraint)

    def _generated(
        self,
        session: Session | None,
        ids: list[int],
        max_tokens: int | None,
        sampler: Sampler,
        text: TextStream,
        slide: bool,
        constraint: Constraint | None,
    ) -> Iterator[Piece]:
        ends, reader = self.tokenizer.end_ids, object()
        tokens = [] if session is None else list(session.tokens)
        session = self._session if session is None else session
        begin = perf_counter()
        logits, n_read = session.read_after(tokens, ids, reader)
        self.timings.prompt_ms += 1000 * (perf_counter() - begin)
        self.timings.prompt_tokens += n_read
        tokens += ids
        n = 0
        while max_tokens is None or n < max_tokens:
            begin = perf_counter()
            if constraint is not None:
                logits = logits.copy()
                constraint.mask(logits)
            token = sampler.sample(logits, tokens)
            if constraint is not None:
                constraint.accept(token)
            self.timings.sampling_ms += 1000 * (perf_counter() - begin)
            self.timings.sampled_tokens += 1
            if token in ends:
                yield Piece(text.finish(), None, "stop")
                return
            n += 1
            piece = text.push(token)
            if text.stopped:
                yield Piece(piece, token, "stop")
                return
            if constraint is not None and constraint.finished:
                yield Piece(piece + text.finish(), token, "stop")
                return
            if n == max_tokens:
                yield Piece(piece + text.finish(), token, "length")
                return
            yield Piece(piece, token)
            begin = perf_counter()
            if len(tokens) == self.context:
                if max_tokens is None and not slide:
                    break
                if slide:
                    tokens, reader = _slid(tokens), object()
            logits, _ = session.read_after(tokens, [token], reader)
            tokens.append(token)
            self.timings.generation_ms += 1000 * (perf_counter() - begin)
            self.timings.generated_tokens += 1
        yield Piece(text.finish(), None, "length")

    def constraint(
        self,
        *,
        json_schema: Mapping[str, Any] | str | bool | None = None,
        regex: str | None = None,
        lark: str | None = None,
        gbnf: str | None = None,
    ) -> Constraint:
        """A form for the text that `generate` makes, for one use of it.

        Args:
            json_schema: A schema, as a dictionary or as text; True allows any JSON.
            regex: A regular expression, in Rust's syntax.
            lark: A grammar as llguidance reads it.
            gbnf: A grammar of llama.cpp.

        Raises `OptionError` if not exactly one of these is given or it is wrong, and `MissingDependencyError`
        without llguidance, which the extra `constrain` has.
        """
        if self._forms is None:
            tokens, n = self.tokenizer, len(self.tokenizer)
            texts = [tokens.token_bytes(token, special=False) for token in range(n)]
            special = [token for token, text in enumerate(texts) if not text]
            texts += [b""] * (self.n_vocab - n)
            self._forms = ConstraintVocabulary(texts, sorted(tokens.end_ids), special=special)
        return Constraint(self._forms, json_schema=json_schema, regex=regex, lark=lark, gbnf=gbnf)

    def chat(
        self,
        messages: Sequence[dict[str, Any]],
        max_tokens: int | None = None,
        *,
        template: str | None = None,
        tools: Sequence[dict[str, Any]] | None = None,
        **options: Any,
    ) -> Iterator[Piece]:
        """The answer to a conversation, by the file's own chat template.

        Args:
            messages: {"role": "system", "user" or "assistant", "content": text}, from the first on.
            max_tokens: As for `generate`.
            template: A Jinja template in place of the file's; a file without one is taken for ChatML.
            tools: Functions that the model may call, as the template expects them.
            **options: As for `generate`.

        Raises `ChatTemplateError` if messages or template are wrong, besides the errors of `generate`.
        """
        return self.generate(
            self.chat_tokens(messages, template=template, tools=tools), max_tokens, **options
        )

    def chat_tokens(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        template: str | None = None,
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> list[int]:
        """The prompt that a template makes of a conversation."""
        tokens = self.tokenizer
        bos = "" if tokens.bos_id is None else tokens.token_text(tokens.bos_id)
        eos = "" if tokens.eos_id is None else tokens.token_text(tokens.eos_id)
        text = render_chat(
            template or tokens.chat_template or CHATML, messages, bos_token=bos, eos_token=eos, tools=tools
        )
        return tokens.tokenize(text, not (bos and text.startswith(bos)), True)

    # ------------------------------------------------------------ embeddings

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        pooling: Literal["mean", "cls", "last"] | None = None,
        normalize: bool = False,
    ) -> npt.NDArray[np.float32]:
        """A vector for each text.

        Args:
            texts: One or several.
            pooling: Mean of all tokens, the first one's, or the last one's; None for what the file says, or
                the mean if it does not.
            normalize: Divide each vector by its length.

        Returns:
            float32 (n, n_embd); for a single text (n_embd,).

        Raises `OptionError` if a text has more tokens than the context.
        """
        if pooling is None:
            kind = self.hyperparameters.integer("pooling_type", 1, most=1 << 32)
            pooling = POOLINGS.get(kind, "mean")
        if pooling not in ("mean", "cls", "last"):
            raise OptionError(f"pooling: expected mean, cls or last, got {pooling!r:.40}")
        rows = [self._embedding(text, pooling) for text in texts_of("texts", texts)]
        found: Any = np.array(rows, np.float32).reshape(len(rows), self.hyperparameters.n_embd)
        if normalize:
            length = np.sqrt((found.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
            found = (found / np.maximum(length, 1e-12)).astype(np.float32)
        result: npt.NDArray[np.float32] = found[0] if isinstance(texts, str) else found
        return result

    def _embedding(self, text: str, pooling: str) -> npt.NDArray[np.float32]:
        each = self.session().read(self.tokenize(text), every=True, embeddings=True)
        if pooling == "mean":
            mean: npt.NDArray[np.float32] = each.mean(axis=0, dtype=np.float64).astype(np.float32)
            return mean
        row: npt.NDArray[np.float32] = each[0 if pooling == "cls" else -1]
        return row

    # ------------------------------------------------------------ looking on

    @contextmanager
    def watch(self, pattern: str, function: Watcher) -> Iterator[None]:
        """Have a function called before every linear layer whose weight's name fits a pattern.

        Args:
            pattern: As of file names: "blk.*.ffn_down.weight".
            function: Is given the name of the weight, its input, float32 (n_tokens, n_in), which cannot be
                written to, and for a stack of experts the number of the one, else None.

        A context manager: the function is called until the block ends.
        """
        entry = pattern, function
        self._watchers.append(entry)
        try:
            yield
        finally:
            self._watchers.remove(entry)

    def _tell(self, name: str, x: npt.NDArray[np.float32], expert: int | None) -> None:
        if not self._watchers:
            return
        seen = x.view()
        seen.flags.writeable = False
        for pattern, function in list(self._watchers):
            if fnmatch.fnmatchcase(name, pattern):
                function(name, seen, expert)

    # ------------------------------------------------------------ the end

    def close(self) -> None:
        """Releases the file and ends the threads; what reads tokens raises `OptionError` from then on."""
        self._interpreter.is_closed = True
        self._pool.close()
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        h = self.hyperparameters
        return f"LanguageModel({self.path!r}, {h.architecture}, {h.n_layer} layers, context {self.context})"

    def _expect_logits(self) -> None:
        if self._interpreter.program.logits is None:
            name = self.hyperparameters.architecture
            raise ModelError(f"{name}: expected a model that generates text; use embed")


def _slid(tokens: list[int]) -> list[int]:
    """What stays of a full context: its first tokens, and the newer half of the others."""
    kept = min(4, len(tokens) // 4)
    return tokens[:kept] + tokens[len(tokens) - (len(tokens) - kept) // 2 :]


def _sampling(settings: dict[str, Any]) -> Sampling:
    unknown = sorted(set(settings) - set(Sampling.__dataclass_fields__))
    if unknown:
        known = ", ".join(Sampling.__dataclass_fields__)
        raise OptionError(f"expected settings among {known}, got {', '.join(unknown)}")
    return Sampling(**settings)


def _check_memory(n_bytes: int, context: int) -> None:
    """Raises `OptionError` if the machine cannot hold a full cache."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows does not tell
        return
    if n_bytes > memory:
        raise OptionError(
            f"context: expected one whose keys and values fit in {memory / 2**30:.1f} GiB of memory, got "
            f"{context} tokens, which take {n_bytes / 2**30:.1f} GiB"
        )
