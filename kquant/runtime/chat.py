"""Conversations as the text that a model was trained on: the chat template of its file.

A chat template is a program in Jinja, a language for templates, in the metadata ``tokenizer.chat_template``.
It is rendered as Hugging Face's ``apply_chat_template`` does it
(https://huggingface.co/docs/transformers/chat_templating_writing). It came with a file that may be hostile:
therefore it runs in Jinja's sandbox, and its steps, its text and its time are limited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from kquant.errors import ChatTemplateError, MissingDependencyError, OptionError

__all__ = ["CHATML", "render_chat"]

CHATML = """\
{% for message in messages %}
<|im_start|>{{ message.role + "\\n" + message.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
"""The template for files that have none, as in llama.cpp: ChatML."""

LONGEST_TEMPLATE = 1 << 20


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    bos_token: str = "",
    eos_token: str = "",
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **more: Any,
) -> str:
    """The conversation as text, in which special tokens are written out.

    Each of `messages` has a ``role`` and a ``content``: a string, or parts of type ``text``, which become
    lines. A message with ``tool_calls`` needs no content. `add_generation_prompt` ends the text with the
    beginning of the assistant's answer. `tools` are functions in JSON Schema, for templates that know them;
    `more` are further variables, such as ``enable_thinking``.

    Raises `OptionError` for messages that are none, `ChatTemplateError` with the line of the template if it
    is not valid, refuses the messages, reaches for what the sandbox forbids, or exceeds its limits, and
    `MissingDependencyError` without Jinja, which the extra ``kquant-gguf[run]`` has.

    >>> print(render_chat(CHATML, [{"role": "user", "content": "Hello"}]))
    <|im_start|>user
    Hello<|im_end|>
    <|im_start|>assistant
    <BLANKLINE>
    >>> render_chat("{{ messages.__class__ }}", [{"role": "user", "content": "Hello"}])
    Traceback (most recent call last):
    ...
    kquant.errors.ChatTemplateError: chat template, line 1: access to attribute '__class__' of 'list' ...
    """
    if not isinstance(template, str):
        raise OptionError(f"template: expected a string, got {template!r}")
    if len(template) > LONGEST_TEMPLATE:
        raise ChatTemplateError(
            f"chat template: expected at most {LONGEST_TEMPLATE:,} characters, found {len(template):,}"
        )
    variables = {
        "messages": _checked(messages),
        "tools": tools,
        "bos_token": bos_token,
        "eos_token": eos_token,
        "add_generation_prompt": add_generation_prompt,
        **more,
    }
    if find_spec("jinja2") is None:
        raise MissingDependencyError("not installed, but needed for chat templates: jinja2")
    from kquant.runtime._templates import render

    return render(template, variables)


def _checked(messages: Any) -> list[dict[str, Any]]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise OptionError(f"messages: expected a list of messages, got {_short(messages)}")
    checked = []
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, Mapping):
            raise OptionError(f'{where}: expected {{"role": ..., "content": ...}}, got {_short(message)}')
        if not isinstance(message.get("role"), str):
            raise OptionError(f"{where}: expected a role, got {_short(message.get('role'))}")
        content = message.get("content")
        if isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
            content = "\n".join(_text_of(part, f"{where}.content[{j}]") for j, part in enumerate(content))
        elif not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            raise OptionError(f"{where}.content: expected a string, got {_short(content)}")
        checked.append({**message, "content": content})
    return checked


def _text_of(part: Any, where: str) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise OptionError(f'{where}: expected {{"type": "text", "text": ...}}, got {_short(part)}')


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
