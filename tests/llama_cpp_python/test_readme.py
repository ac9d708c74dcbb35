"""The first script of llama-cpp-python's README, with one import changed and the model's path.

Source: https://github.com/abetlen/llama-cpp-python#high-level-api
"""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from support.files import smollm2

pytestmark = [pytest.mark.demo, pytest.mark.slow]

SCRIPT = """
from llama_cpp import Llama

llm = Llama(
      model_path="./models/7B/llama-model.gguf",
      # n_gpu_layers=-1, # Uncomment to use GPU acceleration
      # seed=1337, # Uncomment to set a specific seed
      # n_ctx=2048, # Uncomment to increase the context window
)
output = llm(
      "Q: Name the planets in the solar system? A: ", # Prompt
      max_tokens=32, # Generate up to 32 tokens, set to None to generate up to the end of the context window
      stop=["Q:", "\\n"], # Stop generating just before the model would generate a new question
      echo=True # Echo the prompt back in the output
) # Generate a completion, can also call create_completion
print(output)
"""


def test_the_script_of_the_readme() -> None:
    script = SCRIPT.replace("from llama_cpp import", "from kquant.llama_cpp import")
    script = script.replace('"./models/7B/llama-model.gguf"', repr(str(smollm2())))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    output = ast.literal_eval(done.stdout)
    assert list(output) == ["id", "object", "created", "model", "choices", "usage"]
    assert output["choices"][0]["text"].startswith("Q: Name the planets in the solar system? A: ")
    assert [line.split("=")[0].strip() for line in done.stderr.splitlines()] == [
        "llama_perf_context_print:        load time",
        "llama_perf_context_print: prompt eval time",
        "llama_perf_context_print:        eval time",
        "llama_perf_context_print:       total time",
    ]
