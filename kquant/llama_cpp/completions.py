"""Completions as OpenAI's dictionaries, whole or in parts."""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kquant.errors import OptionError
from kquant.llama_cpp.logprobs import Logprobs
from kquant.runtime.pieces import TextStream

if TYPE_CHECKING:
    from kquant.llama_cpp.steps import Steps

__all__ = ["Request"]

Tokens = Generator[int, Any, None]


class Request:
    """A completion that has been asked for: its prompt as tokens, and what its answer looks like.

    Raises `OptionError` if the prompt is empty or does not fit in the context.
    """

    def __init__(
        self,
        llama: Steps,
        prompt: str | Sequence[int],
        suffix: str | None,
        max_tokens: int | None,
        logprobs: int | None,
        echo: bool,
        stop: Sequence[str],
        model: str | None,
    ) -> None:
        self._llama, self._prompt, self._logprobs, self._echo = llama, prompt, logprobs, echo
        self._after = ""
        self.tokens = self._prompt_tokens(prompt, suffix)
        """Of the prompt."""
        context = llama.n_ctx()
        if not self.tokens:
            raise OptionError("prompt: expected at least one token, got none")
        if len(self.tokens) >= context:
            raise OptionError(f"Requested tokens ({len(self.tokens)}) exceed context window of {context}")
        room = context - len(self.tokens)
        self._max_tokens = min(max_tokens, room) if max_tokens and max_tokens > 0 else room
        self._text = TextStream(lambda token: llama.llm.tokenizer.token_bytes(token, False), stop, "ignore")
        self._generated: list[int] = []
        self._finish = "length"
        self._head = {
            "id": f"cmpl-{uuid.uuid4()}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": llama.model_path if model is None else model,
        }

    def _prompt_tokens(self, prompt: str | Sequence[int], suffix: str | None) -> list[int]:
        llama, tokenizer = self._llama, self._llama.llm.tokenizer
        if not isinstance(prompt, str) and suffix is None:
            return list(prompt)
        tokens = llama.llm.tokenize(prompt, False, True) if isinstance(prompt, str) else list(prompt)
        if suffix is not None:
            pre, suf, mid = (tokenizer.fim_ids[name] for name in ("pre", "suf", "mid"))
            if pre is None or suf is None or mid is None:
                self._after = suffix
            else:
                before, after = [pre, *tokens], [suf, *llama.llm.tokenize(suffix, False, False)]
                tokens = [*after, *before, mid] if llama.spm_infill else [*before, *after, mid]
        begin = tokenizer.cls_id if tokenizer.cls_id is not None else tokenizer.bos_id
        end = tokenizer.sep_id if tokenizer.sep_id is not None else tokenizer.eos_id
        if tokenizer.add_bos and begin is not None:
            if tokens[:1] == [begin]:
                text = tokenizer.token_text(begin)
                warnings.warn(
                    f'the prompt begins with "{text}", which is added anyway', RuntimeWarning, stacklevel=4
                )
            tokens = [begin, *tokens]
        if end is not None and (tokenizer.add_eos or end == tokenizer.sep_id):
            tokens = [*tokens, end]
        return tokens

    # ------------------------------------------------------------ answers

    def chunks(self, tokens: Tokens) -> Iterator[dict[str, Any]]:
        """Parts of the text as they are made; the last is empty and tells why it is the last."""
        for text, logprobs in self._parts(tokens):
            if text:
                yield {**self._head, "choices": [self._choice(text, logprobs, None)]}
        yield {**self._head, "choices": [self._choice("", None, self._finish)]}

    def answer(self, tokens: Tokens) -> dict[str, Any]:
        """The whole text."""
        parts = list(self._parts(tokens))
        text = self._shown_prompt() if self._echo else ""
        logprobs: Logprobs | None = None
        if self._logprobs is not None:
            logprobs = Logprobs(self._llama, self._logprobs, 0)
            if self._echo:
                logprobs.add_prompt(self.tokens, 1 if self.tokens[0] == self._llama.token_bos() else 0)
        for part, more in parts:
            text += part
            if logprobs is not None and more is not None:
                logprobs.extend(more)
        n, m = len(self.tokens), len(self._generated)
        return {
            **self._head,
            "choices": [self._choice(text + self._after, logprobs, self._finish)],
            "usage": {"prompt_tokens": n, "completion_tokens": m, "total_tokens": n + m},
        }

    def _shown_prompt(self) -> str:
        prompt = self._prompt
        return (
            prompt if isinstance(prompt, str) else self._llama.detokenize(prompt).decode("utf-8", "replace")
        )

    def _choice(self, text: str, logprobs: Logprobs | None, finish: str | None) -> dict[str, Any]:
        told = None if logprobs is None else logprobs.as_dict()
        return {"text": text, "index": 0, "logprobs": told, "finish_reason": finish}

    def _parts(self, tokens: Tokens) -> Iterator[tuple[str, Logprobs | None]]:
        """Texts that later tokens cannot change, with the tokens since the part before."""
        ends = self._llama.llm.tokenizer.end_ids
        offset = len(self._shown_prompt() if self._echo else self._prompt)
        logprobs, part = self._fresh(offset), ""
        self._finish = "stop"  # also where a stopping criterion ends the tokens
        for token in tokens:
            if token in ends:
                break
            if logprobs is not None:
                logprobs.add(token, self._llama.scores[self._llama.n_tokens - 1])
            self._generated.append(token)
            part = self._text.push(token)
            if self._text.stopped:
                break
            if len(self._generated) >= self._max_tokens:
                self._finish = "length"
                break
            if part:
                yield part, logprobs
                offset += len(part)
                logprobs, part = self._fresh(offset), ""
        tokens.close()
        part += self._text.finish()
        self._llama.print_timings()
        if part or logprobs:
            yield part, logprobs

    def _fresh(self, offset: int) -> Logprobs | None:
        return None if self._logprobs is None else Logprobs(self._llama, self._logprobs, offset)
