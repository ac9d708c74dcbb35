"""`Llama`: llama-cpp-python's class, on `kquant.LanguageModel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from kquant.errors import MissingDependencyError, OptionError
from kquant.llama_cpp.chat import Tools, complete, grammar_of
from kquant.llama_cpp.completions import Request
from kquant.llama_cpp.embeddings import embed
from kquant.llama_cpp.grammar import LlamaGrammar
from kquant.llama_cpp.processors import LogitsProcessorList, StoppingCriteriaList
from kquant.llama_cpp.steps import Steps

__all__ = ["Llama"]


class Llama(Steps):
    """A model with the methods of llama-cpp-python.

    Args:
        model_path: A GGUF file, or the first shard of one.
        n_ctx: Tokens of the context; 0 for as many as the model was trained with.
        n_batch: Tokens that an embedded text has at most.
        n_threads: Threads; None for one per core.
        seed: Of the random numbers.
        last_n_tokens_size: How many generated tokens the penalties look at.
        logits_all: Keep the logits of every token in `scores`, which `logprobs` needs.
        embedding: For `embed` and `create_embedding`.
        pooling_type: -1 for what the file says, 0 for a vector for each token, 1 mean, 2 first, 3 last token.
        chat_format: The name of a format, in place of the file's own chat template.
        chat_handler: A function that answers `create_chat_completion`.
        type_k: The number of the ggml type of keys in the cache; None for F16.
        type_v: The same for values.
        spm_infill: With `suffix`, give the suffix before the prompt.
        verbose: Tell times on standard error.
        **others: Options that say how llama.cpp works are accepted and do nothing.

    Raises:
        OptionError: An option is wrong, or one that kquant does not have; a `ValueError`.
        ValueError: There is no file of that name.
        ModelError: The file cannot be run.

    Source: https://llama-cpp-python.readthedocs.io/en/latest/api-reference/

    >>> Llama("model.gguf", type_k=99)
    Traceback (most recent call last):
        ...
    kquant.errors.OptionError: type_k: expected the number of a ggml type, such as 8 for Q8_0, got 99
    """

    # ------------------------------------------------------------ answers

    def create_completion(
        self,
        prompt: str | Sequence[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: str | list[str] | None = None,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        logits_processor: LogitsProcessorList | None = None,
        grammar: LlamaGrammar | None = None,
        logit_bias: Mapping[Any, float] | None = None,
    ) -> Any:
        """The text that follows a prompt.

        Args:
            prompt: A text, in which special tokens are found, or token ids.
            suffix: A text that is to follow; the model fills in what is between, if it can.
            max_tokens: Tokens at most; None or 0 for as many as fit in the context.
            temperature: Logits are divided by it; 0 takes the largest.
            top_p: Mass of the most likely tokens that are left.
            min_p: The least probability, as a share of the largest.
            typical_p: Mass of the most typical tokens that are left.
            logprobs: How many of the most likely tokens to tell of each token.
            echo: Give the prompt, too.
            stop: Texts that end the completion, and are not given.
            frequency_penalty: Is subtracted once for each time that a token was generated.
            presence_penalty: Is subtracted once if a token was generated.
            repeat_penalty: Divides the logits of tokens that were generated.
            top_k: How many tokens are left.
            stream: Give parts of the text as they are made.
            seed: Of the random numbers; None derives one from the last.
            tfs_z: Does nothing, as in llama-cpp-python.
            mirostat_mode: 0.
            mirostat_tau: Does nothing.
            mirostat_eta: Does nothing.
            model: Is told in the answer; the path if None.
            stopping_criteria: (tokens, logits) -> whether to end.
            logits_processor: (tokens, logits) -> logits.
            grammar: What the text keeps to.
            logit_bias: Token id -> what is added to its logit.

        Returns:
            The dictionary of OpenAI's completions; with `stream` an iterator of such dictionaries.

        Raises:
            OptionError: An option is wrong, or the prompt does not fit in the context; a `ValueError`.
        """
        settings: dict[str, Any] = {
            "temperature": temperature, "top_p": top_p, "min_p": min_p, "typical_p": typical_p,
            "top_k": top_k,
            "frequency_penalty": frequency_penalty, "presence_penalty": presence_penalty,
            "repeat_penalty": repeat_penalty, "mirostat_mode": mirostat_mode,
            "logit_bias": {int(token): float(bias) for token, bias in (logit_bias or {}).items()},
        }  # fmt: skip
        if logprobs is not None and not self.logits_all:
            raise OptionError("logprobs is not supported for models created with logits_all=False")
        request = Request(
            self,
            prompt,
            suffix,
            max_tokens,
            logprobs,
            echo,
            [stop] if isinstance(stop, str) else stop or [],
            model,
        )
        if seed is not None:
            self.set_seed(seed)
        else:
            self.next_seed()
        if self.verbose:
            self._llm.timings.reset()
        tokens = self.follow(
            request.tokens, self.sampling(**settings), logits_processor, stopping_criteria, grammar
        )
        return request.chunks(tokens) if stream else request.answer(tokens)

    __call__ = create_completion

    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        functions: Sequence[Mapping[str, Any]] | None = None,
        function_call: Any = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: Any = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        logits_processor: LogitsProcessorList | None = None,
        grammar: LlamaGrammar | None = None,
        logit_bias: Mapping[Any, float] | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
    ) -> Any:
        """The answer to a conversation.

        Args:
            messages: {"role": "system", "user" or "assistant", "content": text}, from the first on.
            functions: The older name of `tools`.
            function_call: The older name of `tool_choice`.
            tools: Functions that the model may call, as the template expects them.
            tool_choice: {"type": "function", "function": {"name": ...}} makes the model call that function.
            temperature: This and what follows as in `create_completion`.
            response_format: {"type": "json_object"}, with a "schema" if wanted.
            logprobs: Whether to tell the probabilities of tokens.
            top_logprobs: Of how many.

        Returns:
            The dictionary of OpenAI's chat completions; with `stream` an iterator of parts.

        Raises:
            OptionError: An option or a message is wrong; a `ValueError`.
            ChatTemplateError: The file's chat template is not valid, or refuses the messages; a `ValueError`.
        """
        options: dict[str, Any] = {
            "temperature": temperature, "top_p": top_p, "min_p": min_p, "typical_p": typical_p,
            "top_k": top_k,
            "stream": stream, "seed": seed, "max_tokens": max_tokens, "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty, "repeat_penalty": repeat_penalty, "model": model,
            "mirostat_mode": mirostat_mode, "logits_processor": logits_processor, "logit_bias": logit_bias,
        }  # fmt: skip
        if self.chat_handler is not None:
            return self.chat_handler(
                llama=self, messages=messages, functions=functions, function_call=function_call, tools=tools,
                tool_choice=tool_choice, response_format=response_format, grammar=grammar, stop=stop or [],
                logprobs=logprobs, top_logprobs=top_logprobs, tfs_z=tfs_z, mirostat_tau=mirostat_tau,
                mirostat_eta=mirostat_eta, **options,
            )  # fmt: skip
        return complete(
            self, messages,
            Tools(functions, function_call, tools, tool_choice),
            stop=[stop] if isinstance(stop, str) else list(stop or []),
            grammar=grammar_of(response_format) or grammar,
            logprobs=top_logprobs if logprobs else None,
            **options,
        )  # fmt: skip

    def embed(
        self,
        input: str | Sequence[str],
        normalize: bool = False,
        truncate: bool = True,
        return_count: bool = False,
    ) -> Any:
        """The embedding of a text, or a list of those of several.

        A list of n_embd numbers, or without pooling such a list for each token.  `truncate` cuts texts at
        `n_batch` tokens; `return_count` gives (embeddings, number of tokens).  `normalize` makes lengths 1.

        Raises:
            RuntimeError: The model was not opened with `embedding`.
            OptionError: A text is longer than `n_batch`; a `ValueError`.
        """
        texts = [input] if isinstance(input, str) else list(input)
        found, n = embed(self, texts, normalize=normalize, truncate=truncate)
        result = found[0] if isinstance(input, str) else found
        return (result, n) if return_count else result

    def create_embedding(self, input: str | list[str], model: str | None = None) -> dict[str, Any]:
        """The embeddings of texts in OpenAI's dictionary; see `embed`."""
        texts = input if isinstance(input, list) else [input]
        found, n = embed(self, texts, normalize=False, truncate=True)
        return {
            "object": "list",
            "data": [{"object": "embedding", "embedding": v, "index": i} for i, v in enumerate(found)],
            "model": self.model_path if model is None else model,
            "usage": {"prompt_tokens": n, "total_tokens": n},
        }

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str,
        local_dir: str | None = None,
        cache_dir: str | None = None,
        **options: Any,
    ) -> Llama:
        """A file of the Hugging Face Hub, by its name or a pattern such as ``*Q8_0.gguf``.

        Raises `MissingDependencyError` without the package huggingface_hub, and `OptionError` if not exactly
        one file has such a name.
        """
        try:
            hub = import_module("huggingface_hub")
        except ImportError:
            raise MissingDependencyError(
                "not installed, but needed to download models: huggingface_hub"
            ) from None
        names = [name for name in hub.list_repo_files(repo_id) if Path(name).match(filename)]
        if len(names) != 1:
            raise OptionError(
                f"filename: expected one file of {repo_id} that matches {filename}, got {names}"
            )
        path = hub.hf_hub_download(repo_id, names[0], local_dir=local_dir, cache_dir=cache_dir)
        return cls(str(path), **options)
