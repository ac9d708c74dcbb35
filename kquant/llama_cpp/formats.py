"""Chat formats by name: how models of some families are spoken to, as Jinja templates.

Each is what the family's own documentation says.  A file's own template, which most files have, is better.
Source: https://huggingface.co/docs/transformers/chat_templating
"""

from __future__ import annotations

__all__ = ["FORMATS"]

TURNS = """\
{% for message in messages %}BEGIN{{ message.role }}MIDDLE{{ message.content }}END{% endfor %}\
{% if add_generation_prompt %}BEGINassistantMIDDLE{% endif %}"""
INSTRUCTIONS = """\
{% set ns = namespace(system="") %}\
{% for message in messages %}\
{% if message.role == "system" %}{% set ns.system = "SYSTEM_BEGIN" + message.content + "SYSTEM_END" %}\
{% elif message.role == "user" %}[INST] {{ ns.system }}{{ message.content }} [/INST]{% set ns.system = "" %}\
{% else %}ANSWER_BEGIN{{ message.content }}</s>{% endif %}\
{% endfor %}"""


def _turns(begin: str, middle: str, end: str, assistant: str = "assistant") -> str:
    text = TURNS.replace("BEGIN", begin).replace("MIDDLE", middle).replace("END", end)
    if assistant == "assistant":
        return text
    text = text.replace("in messages", 'in messages if message.role != "system"')  # Gemma has none
    text = text.replace(begin + "assistant", begin + assistant)
    return text.replace("message.role", f'"{assistant}" if message.role == "assistant" else message.role')


def _instructions(begin: str, end: str, answer: str) -> str:
    text = INSTRUCTIONS.replace("SYSTEM_BEGIN", begin).replace("SYSTEM_END", end)
    return text.replace("ANSWER_BEGIN", answer)


def _labels(user: str, assistant: str, between: str, after: str) -> str:
    return (
        '{% for message in messages %}{% if message.role == "system" %}{{ message.content }}'
        f'{between}{{% elif message.role == "user" %}}{user} {{{{ message.content }}}}{between}'
        f"{{% else %}}{assistant} {{{{ message.content }}}}{after}{{% endif %}}{{% endfor %}}{assistant}"
    )


FORMATS: dict[str, tuple[str, list[str]]] = {
    "chatml": (_turns("<|im_start|>", r"{{ '\n' }}", r"<|im_end|>{{ '\n' }}"), ["<|im_end|>"]),
    "qwen": (_turns("<|im_start|>", r"{{ '\n' }}", r"<|im_end|>{{ '\n' }}"), ["<|im_end|>", "<|endoftext|>"]),
    "llama-2": (_instructions(r"<<SYS>>\n", r"\n<</SYS>>\n\n", " "), []),
    "llama-3": (
        _turns("<|start_header_id|>", r"<|end_header_id|>{{ '\n\n' }}", "<|eot_id|>"),
        ["<|eot_id|>"],
    ),
    "mistral-instruct": (_instructions("", r"\n\n", ""), ["</s>"]),
    "gemma": (
        _turns("<start_of_turn>", r"{{ '\n' }}", r"<end_of_turn>{{ '\n' }}", "model"),
        ["<end_of_turn>"],
    ),
    "zephyr": (_turns("<|", r"|>{{ '\n' }}", r"</s>{{ '\n' }}"), ["</s>"]),
    "vicuna": (_labels("USER:", "ASSISTANT:", " ", "</s>"), []),
    "alpaca": (_labels("### Instruction:", "### Response:", r"{{ '\n\n' }}", "</s>"), []),
}
"""Name -> template, and texts that end an answer."""
