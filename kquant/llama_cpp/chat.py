"""Chat completions: conversations to prompts, and completions to OpenAI's chat dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kquant.errors import OptionError
from kquant.llama_cpp.formats import FORMATS
from kquant.llama_cpp.grammar import LlamaGrammar
from kquant.llama_cpp.options import OWN_TEMPLATE
from kquant.llama_cpp.processors import StoppingCriteriaList
from kquant.runtime.chat import render_chat

if TYPE_CHECKING:
    from kquant.llama_cpp.llama import Llama

__all__ = ["Tools", "complete", "grammar_of"]


def grammar_of(response_format: Mapping[str, Any] | None) -> LlamaGrammar | None:
    """What {"type": "json_object"} asks for.

    >>> grammar_of({"type": "json_object"})
    LlamaGrammar(json_schema={'type': 'object'})
    """
    if response_format is None or response_format.get("type") == "text":
        return None
    if response_format.get("type") != "json_object":
        kind = response_format.get("type")
        raise OptionError(f'response_format: expected a "type" of json_object or text, got {kind!r:.60}')
    return LlamaGrammar(json_schema=response_format.get("schema", {"type": "object"}))


@dataclass(frozen=True)
class Tools:
    """The functions that a model may call, in their older and newer words."""

    functions: Sequence[Mapping[str, Any]] | None = None
    function_call: Any = None
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: Any = None

    @property
    def all(self) -> list[Mapping[str, Any]] | None:
        """In the newer words."""
        if self.functions is not None:
            return [{"type": "function", "function": function} for function in self.functions]
        return None if self.tools is None else list(self.tools)

    @property
    def chosen(self) -> Mapping[str, Any] | None:
        """The function that must be called; None if the model is free.  Raises `OptionError`."""
        choice = self.tool_choice
        if isinstance(self.function_call, Mapping):
            choice = {"type": "function", "function": self.function_call}
        if not isinstance(choice, Mapping):
            return None
        name = choice.get("function", {}).get("name")
        for tool in self.all or ():
            if tool["function"]["name"] == name:
                function: Mapping[str, Any] = tool["function"]
                return function
        raise OptionError(f"Tool choice {name!r} not found in tools.")


def complete(
    llama: Llama,
    messages: Sequence[Mapping[str, Any]],
    tools: Tools,
    *,
    stop: list[str],
    grammar: LlamaGrammar | None,
    stream: bool,
    **options: Any,
) -> Any:
    """What `Llama.create_chat_completion` gives."""
    prompt, stops = _prompt(llama, messages, tools)
    function = tools.chosen
    if function is not None:
        grammar = LlamaGrammar(json_schema=function["parameters"])
    eos = llama.token_eos()
    completion = llama.create_completion(
        prompt,
        stop=stop + stops,
        grammar=grammar,
        stream=stream,
        stopping_criteria=StoppingCriteriaList([lambda tokens, _: len(tokens) > 0 and tokens[-1] == eos])
        if llama.chat_format == OWN_TEMPLATE
        else None,
        **options,
    )
    if function is None:
        return _parts(completion) if stream else _whole(completion)
    name = function["name"]
    return _call_parts(completion, name) if stream else _call(completion, name)


def _prompt(llama: Llama, messages: Sequence[Mapping[str, Any]], tools: Tools) -> tuple[list[int], list[str]]:
    """Its tokens, and the texts that end an answer."""
    tokenizer = llama.llm.tokenizer
    bos, eos = ("" if i is None else tokenizer.token_text(i) for i in (tokenizer.bos_id, tokenizer.eos_id))
    name, own = llama.chat_format, tokenizer.chat_template
    if name == OWN_TEMPLATE and own is not None:
        template, stops, add_bos = own, [eos] if eos else [], False
    elif name in FORMATS:
        template, stops = FORMATS[name]
        add_bos = True
    else:
        known = ", ".join([OWN_TEMPLATE, *FORMATS] if own else FORMATS)
        raise OptionError(f"chat_format: expected one of {known}, got {name!r:.40}")
    text = render_chat(
        template, messages, bos_token=bos, eos_token=eos, tools=tools.all, tool_choice=tools.tool_choice,
        functions=tools.functions, function_call=tools.function_call,
    )  # fmt: skip
    return llama.tokenize(text.encode(), add_bos, True), stops


# ------------------------------------------------------------ dictionaries


def _whole(completion: dict[str, Any], message: dict[str, Any] | None = None) -> dict[str, Any]:
    (choice,) = completion["choices"]
    return {
        "id": "chat" + completion["id"],
        "object": "chat.completion",
        "created": completion["created"],
        "model": completion["model"],
        "choices": [
            {
                "index": 0,
                "message": message or {"role": "assistant", "content": choice["text"]},
                "logprobs": _logprobs(choice["logprobs"]),
                "finish_reason": "tool_calls" if message else choice["finish_reason"],
            }
        ],
        "usage": completion["usage"],
    }


def _part(
    chunk: dict[str, Any], delta: dict[str, Any], logprobs: Any = None, finish: Any = None
) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return {
        "id": "chat" + chunk["id"],
        "model": chunk["model"],
        "created": chunk["created"],
        "object": "chat.completion.chunk",
        "choices": [choice],
    }


def _parts(chunks: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for i, chunk in enumerate(chunks):
        if i == 0:
            yield _part(chunk, {"role": "assistant"})
        (choice,) = chunk["choices"]
        finish = choice["finish_reason"]
        delta = {"content": choice["text"]} if finish is None else {}
        yield _part(chunk, delta, _logprobs(choice["logprobs"]), finish)


def _call(completion: dict[str, Any], name: str) -> dict[str, Any]:
    function = {"name": name, "arguments": completion["choices"][0]["text"]}
    call = {"id": f"call__0_{name}_{completion['id']}", "type": "function", "function": dict(function)}
    message = {"role": "assistant", "content": None, "function_call": function, "tool_calls": [call]}
    return _whole(completion, message)


def _call_parts(chunks: Iterator[dict[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    nothing = {"role": None, "content": None, "function_call": None, "tool_calls": None}
    for i, chunk in enumerate(chunks):
        if i == 0:
            yield _part(chunk, {**nothing, "role": "assistant"})
        (choice,) = chunk["choices"]
        if choice["finish_reason"] is not None:
            yield _part(chunk, nothing, finish="tool_calls")
            return
        function = {"name": name, "arguments": choice["text"]}
        call = {
            "index": 0,
            "id": f"call__0_{name}_{chunk['id']}",
            "type": "function",
            "function": dict(function),
        }
        delta = {**nothing, "function_call": function, "tool_calls": [call]}
        yield _part(chunk, delta, _logprobs(choice["logprobs"]))


def _logprobs(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """OpenAI's other form of log probabilities."""
    if told is None:
        return None
    rows = zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True)
    content = [
        {
            "token": token,
            "bytes": None,
            "logprob": each,
            "top_logprobs": [{"token": t, "logprob": p, "bytes": None} for t, p in (top or {}).items()],
        }
        for token, each, top in rows
    ]
    return {"content": content, "refusal": None}
