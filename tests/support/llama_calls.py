"""Calls of llama-cpp-python's `Llama` whose results were recorded, and are compared with kquant's.

python tests/support/llama_calls.py MODEL > tests/golden/runtime/llama_cpp_python.json

records them: in an environment with llama-cpp-python, without kquant.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

PLANETS = "Q: Name the planets in the solar system? A: "
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]

# each is called with a model that was opened with logits_all=True, n_ctx=256, verbose=False
CALLS: dict[str, Callable[[Any], Any]] = {
    "completion": lambda llm: llm(PLANETS, max_tokens=32, stop=["Q:", "\n"], echo=True, temperature=0),
    "length": lambda llm: llm.create_completion(PLANETS, max_tokens=4, temperature=0, model="planets"),
    "unlimited": lambda llm: llm.create_completion(
        [504, 253], max_tokens=0, temperature=0, repeat_penalty=1.3
    ),
    "suffix": lambda llm: llm("The capital of France", suffix=" Paris.", max_tokens=4, temperature=0),
    "stream": lambda llm: list(llm(PLANETS, max_tokens=6, temperature=0, stream=True)),
    "stream, stop": lambda llm: list(llm(PLANETS, max_tokens=20, temperature=0, stop="ars, J", stream=True)),
    "stop": lambda llm: llm(PLANETS, max_tokens=20, temperature=0, stop=["ars, J", "rcury"]),
    "logprobs": lambda llm: llm("The capital of France is", max_tokens=3, temperature=0, logprobs=2),
    "logprobs, echo": lambda llm: llm("The capital of", max_tokens=2, temperature=0, logprobs=2, echo=True),
    "logprobs, stream": lambda llm: list(
        llm("The capital", max_tokens=3, temperature=0, logprobs=1, stream=True)
    ),
    "logit bias": lambda llm: llm(PLANETS, max_tokens=4, temperature=0, logit_bias={"45": 100.0}),
    "repeat penalty": lambda llm: llm(
        "one two one two one two", max_tokens=8, temperature=0, repeat_penalty=1.5
    ),
    "chat": lambda llm: llm.create_chat_completion(MESSAGES, max_tokens=24, temperature=0),
    "chat, length": lambda llm: llm.create_chat_completion(MESSAGES, max_tokens=3, temperature=0),
    "chat, stream": lambda llm: list(
        llm.create_chat_completion(MESSAGES, max_tokens=4, temperature=0, stream=True)
    ),
    "chat, logprobs": lambda llm: llm.create_chat_completion(
        MESSAGES, max_tokens=2, temperature=0, logprobs=True, top_logprobs=2
    ),
    "tokenize": lambda llm: [
        llm.tokenize(b" Hello world"),
        llm.tokenize("<|im_start|>é".encode(), add_bos=False),
        llm.tokenize(b"<|im_start|>user", add_bos=False, special=True),
    ],
    "detokenize": lambda llm: [
        llm.detokenize(tokens, special=special).decode("latin-1")
        for tokens in ([1, 19556, 905], [28, 32, 7085], [155])
        for special in (False, True)
    ],
    "facts": lambda llm: [
        llm.n_ctx(),
        llm.n_vocab(),
        llm.n_embd(),
        llm.token_bos(),
        llm.token_eos(),
        llm.token_nl(),
        llm.n_batch,
        llm.pooling_type(),
        llm.chat_format,
    ],
    "metadata": lambda llm: {k: v for k, v in llm.metadata.items() if len(v) < 100},
    "steps": lambda llm: steps(llm),
    "generate": lambda llm: list(islice(llm.generate([504, 253], temp=0.0), 5)),
    "reset": lambda llm: [llm.reset(), llm.n_tokens, llm.scores[: llm.n_tokens].shape],
}

# each is called with a model that was opened with embedding=True, n_ctx=256, verbose=False
EMBEDDINGS: dict[str, Callable[[Any], Any]] = {
    "create_embedding": lambda llm: shortened(llm.create_embedding("Hello world")),
    "create_embedding, list": lambda llm: shortened(llm.create_embedding(["Hello", "world"], model="m")),
    "embed": lambda llm: [len(v) for v in llm.embed(["Hello", "world"])],
    "embed, normalized": lambda llm: describe(llm.embed("Hello", normalize=True)),
}

# calls that fail: (without logits_all)
ERRORS: dict[str, Callable[[Any], Any]] = {
    "empty": lambda llm: llm("", max_tokens=4, temperature=0),
    "too long": lambda llm: llm([504] * 300),
    "logprobs": lambda llm: llm("x", logprobs=2, max_tokens=1),
    "embed": lambda llm: llm.embed("x"),
    "option": lambda llm: llm("x", max_token=2),
    "chat option": lambda llm: llm.create_chat_completion(MESSAGES, temprature=2),
}


def steps(llm: Any) -> Any:
    llm.reset()
    llm.eval([504, 253])
    llm.eval([28])
    state = llm.save_state()
    found = [llm.n_tokens, str(llm.scores.dtype), list(llm.scores[: llm.n_tokens].shape)]
    found += [
        llm.scores[: llm.n_tokens].argmax(axis=1).tolist(),
        llm.sample(temp=0.0),
        llm.input_ids[:3].tolist(),
    ]
    llm.eval([11])
    llm.load_state(state)
    return [*found, llm.n_tokens, list(llm.eval_tokens)]


def error_of(call: Callable[[Any], Any], llm: Any) -> list[str]:
    """OptionError stands for the ValueError that it is."""
    try:
        call(llm)
    except Exception as error:
        kind = ValueError if isinstance(error, ValueError) else type(error)
        return [kind.__name__, str(error)]
    return ["none"]


def shortened(answer: Any) -> Any:
    """Vectors are per token where the model has no pooling: their lengths, and a few numbers."""
    for each in answer["data"]:
        each["embedding"] = describe(each["embedding"])
    return answer


def describe(value: Any) -> Any:
    if isinstance(value[0], list):
        return [len(value), *map(describe, value)]
    return [len(value), [round(float(x), 4) for x in value[:3]]]


def answers(Llama: Any, path: str) -> dict[str, Any]:
    """What all calls return; ids and times, which differ, are replaced.  NumPy's numbers become Python's."""
    found: dict[str, Any] = {}
    llm = Llama(model_path=path, n_ctx=256, logits_all=True, verbose=False)
    for name, call in CALLS.items():
        found[name] = call(llm)
    llm.close()
    llm = Llama(model_path=path, n_ctx=256, embedding=True, verbose=False)
    for name, call in EMBEDDINGS.items():
        found[name] = call(llm)
    llm.close()
    llm = Llama(model_path=path, n_ctx=256, verbose=False)
    for name, call in ERRORS.items():
        found["error: " + name] = error_of(call, llm)
    found["scores"] = list(llm.scores.shape)
    llm.close()
    text = json.dumps(found, default=float).replace(json.dumps(path), '"MODEL"')
    text = re.sub(r'("created": )\d+', r"\g<1>0", text)
    result: dict[str, Any] = json.loads(re.sub(r'((?:chat)?cmpl-)[0-9a-f-]{36}"', r'\1ID"', text))
    return result


@cache
def recorded() -> dict[str, Any]:
    """What llama-cpp-python answered with SmolLM2."""
    path = Path(__file__).parents[1] / "golden" / "runtime" / "llama_cpp_python.json"
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def shape_of(value: Any) -> Any:
    """Keys in their order, and types; of a list, the first."""
    if isinstance(value, dict):
        return {key: shape_of(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    return type(value).__name__


if __name__ == "__main__":
    from llama_cpp import Llama

    json.dump(answers(Llama, sys.argv[1]), sys.stdout, indent=1)
