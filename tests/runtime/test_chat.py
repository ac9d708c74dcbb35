"""Chat templates: the text that models expect, and templates that want more than to render it."""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import pytest

import kquant
from kquant.errors import ChatTemplateError, KQuantError, MissingDependencyError, OptionError
from kquant.runtime import _templates
from kquant.runtime.chat import CHATML, render_chat
from support.files import smollm2

USER = [{"role": "user", "content": "Hello"}]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hi "},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "<é> {{ 1 }}\n"},
]
TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells <the> weather in Zürich"}}

# ---------------------------------------------------------------- templates of models, shortened

LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN_2_5 = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}
{%- else %}
    {%- set system = 'You are a helpful assistant.' %}
{%- endif %}
{{- '<|im_start|>system\\n' + system }}
{%- if tools %}
    {{- "\\n\\n# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>" }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first)
        or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""
PHI_3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

EXPECTED = {
    LLAMA_3: (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<é> {{ 1 }}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    CHATML: (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
        "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\n<é> {{ 1 }}\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    QWEN_2_5: (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
        "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\n<é> {{ 1 }}\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    MISTRAL: "<s>[INST]  Hi [/INST] Yes?</s>[INST] Be brief.\n\n<é> {{ 1 }}\n[/INST]",
    PHI_3: (
        "<|system|>\nBe brief.<|end|>\n<|user|>\n Hi <|end|>\n<|assistant|>\nYes?<|end|>\n"
        "<|user|>\n<é> {{ 1 }}\n<|end|>\n<|assistant|>\n"
    ),
    ZEPHYR: (
        "<|system|>\nBe brief.</s>\n<|user|>\n Hi </s>\n<|assistant|>\nYes?</s>\n"
        "<|user|>\n<é> {{ 1 }}\n</s>\n<|assistant|>\n"
    ),
}
NAMES = ["llama-3", "chatml", "qwen-2.5", "mistral", "phi-3", "zephyr"]


def render(template: str, messages: Any = USER, **more: Any) -> str:
    return render_chat(template, messages, **{"bos_token": "<s>", "eos_token": "</s>", **more})


@pytest.mark.parametrize("template", EXPECTED, ids=NAMES)
def test_a_conversation_becomes_the_text_of_its_model(template: str) -> None:
    assert render(template, TALK) == EXPECTED[template]


def test_gemma_has_no_system_and_says_so() -> None:
    assert render(GEMMA, TALK[1:]) == (
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n"
        "<start_of_turn>user\n<é> {{ 1 }}<end_of_turn>\n<start_of_turn>model\n"
    )
    with pytest.raises(ChatTemplateError) as error:
        render(GEMMA, TALK)
    assert str(error.value) == "chat template, line 1: System role not supported"


def test_without_the_beginning_of_an_answer() -> None:
    assert render(PHI_3, USER, add_generation_prompt=False) == "<|user|>\nHello<|end|>\n</s>"


def test_tools_and_calls_are_json_that_hides_nothing() -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich"}}}
    messages = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sun"},
    ]
    text = render(QWEN_2_5, messages, tools=[TOOL])
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.\n\n# Tools\n<tools>\n"
        '{"type": "function", "function": {"name": "weather", '
        '"description": "Tells <the> weather in Zürich"}}'
        "\n</tools><|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n'
        "</tool_call>"
        "<|im_end|>\n<|im_start|>user\n<tool_response>\nsun\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.demo
def test_the_template_of_smollm2() -> None:
    template = kquant.open(smollm2()).metadata["tokenizer.chat_template"]
    assert render(template) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(template, TALK) == EXPECTED[CHATML]


# ---------------------------------------------------------------- Jinja as Hugging Face sets it up


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "13"),
        ("{% for x in [1, 2, 3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "1"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "Hello!"),
        ("a\n  {% if true %}\n  b\n  {% endif %}\nc", "a\n  b\nc"),
        ("{{ messages | tojson(indent=1) }}", '[\n {\n  "role": "user",\n  "content": "Hello"\n }\n]'),
        (
            "{{ {'b': 1, 'a': '<é>'} | tojson(sort_keys=true, ensure_ascii=true) }}",
            '{"a": "<\\u00e9>", "b": 1}',
        ),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ ('[1, 2]' | from_json)[1] }}", "2"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ missing }}{{ missing is defined }}{{ enable_thinking }}", "Falsehigh"),
        (
            "{% for x in [1, 2] %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}",
            "1/2,2/2",
        ),
        ("{% for k, v in {'a': 1}.items() recursive %}{{ k }}{{ v }}{% else %}none{% endfor %}", "a1"),
        (
            "{% for x in [[1], [[2]]] recursive %}<{{ loop(x) if x is not number else x }}>{% endfor %}",
            "<<1>><<<2>>>",
        ),
        (
            "{% macro m(x, y=2) %}{{ x }}{{ y }}{{ caller() }}{% endmacro %}{% call m(1) %}!{% endcall %}",
            "12!",
        ),
        ("{% set a, b = 1, 'x' %}{% set c %}{{ a }}{{ b }}{% endset %}{{ c * 2 ~ c }}", "1x1x1x"),
        ("{{ 'a-b'.split('-')[-1] + 'x' * 2 + '%s' % 'y' + '{}{a}'.format(1, a=2) }}", "bxxy12"),
        ("{{ ' a '.strip().replace('a', 'b').upper() }}{{ ['a', 'b'] | join(', ') }}", "Ba, b"),
        ("{{ 'a\nb' | indent(2) }}{{ [3, 1] | sort | first }}{{ 2 ** 3 }}{{ 3 * 4 }}", "a\n  b1812"),
        (
            "{{ messages | map(attribute='role') | join }}{{ {'b': 1, 'a': 2} | dictsort | list }}",
            "user[('a', 2), ('b', 1)]",
        ),
    ],
)
def test_what_templates_use(template: str, text: str) -> None:
    assert render(template, enable_thinking="high") == text


def test_variables_of_the_caller_come_before_functions() -> None:
    assert render("{{ strftime_now('%d') }}", strftime_now=lambda pattern: "today") == "today"


def test_parts_of_a_message_are_lines() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "user", "content": parts}]
    assert render("{{ messages[0].content }}", messages) == "one\ntwo"
    assert messages[0]["content"] is parts


# ---------------------------------------------------------------- what a template may not

DOUBLING = (
    "{% set ns = namespace(x='aa') %}{% for a in range(60) %}{% set ns.x = WITH %}{% endfor %}{{ ns.x }}"
)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe."),
        ("{{ ''['__class__'] }}", "access to attribute '__class__' of 'str' object is unsafe."),
        ("{{ cycler.__init__.__globals__ }}", "access to attribute '__init__' of 'type' object is unsafe."),
        ("{{ '{0.__class__}'.format(1) }}", "access to attribute '__class__' of 'int' object is unsafe."),
        ("{{ ''|attr('__class__') }}", "No filter named 'attr'."),
        (
            "{{ raise_exception.__globals__ }}",
            "access to attribute '__globals__' of 'function' object is unsafe.",
        ),
        ("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe."),
        ("{{ 'a'.encode().hex() }}", "access to attribute 'hex' of 'bytes' object is unsafe."),
        ("{% include '/etc/passwd' %}", "no loader for this environment specified"),
        ("{% import 'os' as os %}", "no loader for this environment specified"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
    ],
)
def test_the_sandbox(template: str, message: str) -> None:
    with pytest.raises(ChatTemplateError) as error:
        render(f"\n{template}")
    assert str(error.value) == f"chat template, line 2: {message}"
    assert isinstance(error.value, KQuantError)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(100000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
        "{% set x %}{% for a in range(100000) %}aaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}{% endset %}",
        "{% macro m() %}{% for a in range(100000) %}aaaaaaaaaaaaaaaaa{% endfor %}{% endmacro %}{{ m()[:3] }}",
        DOUBLING.replace("WITH", "ns.x + ns.x"),
        DOUBLING.replace("WITH", "ns.x ~ ns.x"),
        DOUBLING.replace("WITH", "[ns.x, ns.x]"),
        DOUBLING.replace("WITH", "(ns.x, ns.x)"),
        DOUBLING.replace("WITH", "{'a': ns.x, 'b': ns.x}"),
        DOUBLING.replace("WITH", "dict(a=ns.x, b=ns.x)"),
        DOUBLING.replace("'aa'", "3").replace("WITH", "ns.x * ns.x"),
        "{{ 10 ** (10 ** 10) }}",
        "{{ 'a' * 10000000000 }}",
        "{{ 10000000000 * [1] }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 1000000000) }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ 'a'.ljust(width=1000000000) }}",
        "{{ 'a\nb'|indent(1000000000) }}",
        "{{ '\t'.expandtabs(1000000000) }}",
        "{{ ('a' * 100000).replace('a', 'a' * 100000) }}",
        "{{ ('a' * 100000)|replace('a', 'a' * 100000) }}",
        "{{ ['a' * 1000]|map('replace', 'a', 'a' * 100000)|list }}",
        "{{ ('a' * 10000).join('b' * 100000) }}",
        "{{ range(100000)|join('a' * 10000) }}",
        "{{ ('a' * 10000).join(range(100000)|map('string')) }}",
        "{{ ('%s' * 10000) % (('a' * 100000),) }}",
        "{{ ('{0}' * 10000).format('a' * 100000) }}",
        "{{ 5|round(-1000000000) }}",
        "{{ messages|tojson(indent=1000000000) }}",
    ],
)
def test_what_grows_without_limit(template: str) -> None:
    start = time.process_time()
    with pytest.raises(
        ChatTemplateError, match=r"^chat template.*: (more than|a value of more|a width that is)"
    ):
        render(template)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(2000) %}{% for b in range(2000) %}{% endfor %}{% endfor %}",
        "{% for x in [1] recursive %}{{ loop(range(500)) if loop.depth < 5 }}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    ],
)
def test_what_runs_without_end(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_templates, "ALLOWANCE", 1000)
    with pytest.raises(ChatTemplateError, match=r"line 1: more than [\d,]+ steps$"):
        render(template)


def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_templates, "SECONDS", 0.05)
    with pytest.raises(ChatTemplateError, match=r"line 1: more than 0\.05 seconds$"):
        render("{% for a in range(100000) %}{{ (range(100000)|list)[:0] }}{% endfor %}")


@pytest.mark.parametrize(
    "template",
    [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "not " * 50000 + "1 }}",
    ],
    ids=range(5),
)
def test_what_is_nested_without_end(template: str) -> None:
    with pytest.raises(ChatTemplateError, match="nested too deeply"):
        render(template)


def test_a_long_conversation_has_a_larger_allowance() -> None:
    content = "a" * (2 << 20)
    assert len(render(CHATML, [{"role": "user", "content": content}] * 3)) > 3 * len(content)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("\n\n{% for %}", "chat template, line 3: Expected an expression, got 'end of statement block'"),
        ("{{ ''|nope }}", "chat template, line 1: No filter named 'nope'."),
        ("\n{{ 1 / 0 }}", "chat template, line 2: division by zero"),
        ("{{ messages[0].a.b }}", "chat template, line 1: 'dict object' has no attribute 'a'"),
        ("{{ raise_exception('no\x1b[2J\n') }}", "chat template, line 1: no\\x1b[2J\\n"),
        ("{{ raise_exception('') }}", "chat template, line 1: TemplateError"),
        ("a" * ((1 << 20) + 1), "chat template: expected at most 1,048,576 characters, found 1,048,577"),
    ],
    ids=range(7),
)
def test_errors_name_the_line(template: str, message: str) -> None:
    with pytest.raises(ChatTemplateError) as error:
        render(template)
    assert str(error.value) == message


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("Hello", "messages: expected a list of messages, got 'Hello'"),
        ([], "messages: expected a list of messages, got []"),
        (None, "messages: expected a list of messages, got None"),
        (USER[0], "messages: expected a list of messages, got {'role': 'user', 'content': 'Hello'}"),
        (["Hello"], 'messages[0]: expected {"role": ..., "content": ...}, got \'Hello\''),
        ([*USER, {"content": "a"}], "messages[1]: expected a role, got None"),
        ([{"role": "user"}], "messages[0].content: expected a string, got None"),
        ([{"role": "user", "content": 7}], "messages[0].content: expected a string, got 7"),
        ([{"role": "user", "content": b"7"}], "messages[0].content: expected a string, got b'7'"),
        (
            [{"role": "user", "content": [{"type": "text", "text": ""}, {"type": "image", "url": "x" * 99}]}],
            'messages[0].content[1]: expected {"type": "text", "text": ...}, got '
            + repr({"type": "image", "url": "x" * 99})[:57]
            + "...",
        ),
    ],
    ids=range(10),
)
def test_messages_that_are_none(messages: Any, message: str) -> None:
    with pytest.raises(OptionError) as error:
        render(CHATML, messages)
    assert str(error.value) == message


def test_a_template_that_is_no_text() -> None:
    with pytest.raises(OptionError, match="template: expected a string, got None"):
        render_chat(None, USER)  # type: ignore[arg-type]


def test_without_jinja(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "kquant.runtime.chat.find_spec", lambda name: None if name == "jinja2" else find(name)
    )
    with pytest.raises(MissingDependencyError, match="not installed, but needed for chat templates: jinja2"):
        render(CHATML)
