"""The interface of llama-cpp-python on kquant: a script that was written for it runs with one import changed.

::

    from kquant.llama_cpp import Llama      # was: from llama_cpp import Llama

    llm = Llama(model_path="model.gguf", n_ctx=2048)
    answer = llm("Q: Name the planets in the solar system? A: ", max_tokens=32, stop=["Q:"])
    print(answer["choices"][0]["text"])

Methods, options and dictionaries are those of llama-cpp-python 0.3.36
(https://llama-cpp-python.readthedocs.io/en/latest/api-reference/); `docs/llama-cpp-python.md` tells what is
there, what is not, and where answers differ.  Numbers for `type_k` and `type_v` bear ggml's names:

>>> import kquant.llama_cpp as llama_cpp
>>> llama_cpp.GGML_TYPE_Q8_0
8
"""

from __future__ import annotations

from kquant.llama_cpp.grammar import LlamaGrammar
from kquant.llama_cpp.llama import Llama
from kquant.llama_cpp.processors import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from kquant.llama_cpp.steps import LlamaState
from kquant.types import TensorType

__all__ = [
    "Llama",
    "LlamaGrammar",
    "LlamaState",
    "LogitsProcessor",
    "LogitsProcessorList",
    "StoppingCriteria",
    "StoppingCriteriaList",
]

LLAMA_POOLING_TYPE_UNSPECIFIED = -1
LLAMA_POOLING_TYPE_NONE = 0
LLAMA_POOLING_TYPE_MEAN = 1
LLAMA_POOLING_TYPE_CLS = 2
LLAMA_POOLING_TYPE_LAST = 3


def __getattr__(name: str) -> int:
    """``GGML_TYPE_Q8_0`` and the like, as llama-cpp-python has them."""
    prefix, _, rest = name.partition("GGML_TYPE_")
    if prefix or rest not in TensorType.__members__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return int(TensorType[rest].value)
