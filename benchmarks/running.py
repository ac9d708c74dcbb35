"""`python -m benchmarks.running MODEL.gguf...`: tokens per second of kquant beside llama.cpp, by turns.

Each measurement is a process of its own, which reads a prompt, and then tokens one by one.
llama.cpp is that of the package llama-cpp-python (the extra `peer`); without it kquant is measured alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec
from statistics import median
from time import perf_counter
from typing import Any

PROMPT, GENERATED = 192, 40


def reader(program: str, path: str, threads: int) -> tuple[Any, Any]:
    """What reads tokens, and what forgets all of them."""
    if program == "kquant":
        import kquant

        session = kquant.LanguageModel(path, context=1024, threads=threads).session()
        return session.read, lambda: session.truncate(0)
    from llama_cpp import Llama

    llm = Llama(path, n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False)
    return llm.eval, llm.reset


def measure(program: str, path: str, threads: int) -> tuple[float, float]:
    """Tokens per second of the prompt and of generating, after a warm-up."""
    read, forget = reader(program, path, threads)
    prompt = list(range(1000, 1000 + PROMPT))
    read(prompt)
    read([1000])
    forget()
    start = perf_counter()
    read(prompt)
    middle = perf_counter()
    for i in range(GENERATED):
        read([1000 + i])
    return PROMPT / (middle - start), GENERATED / (perf_counter() - middle)


def main() -> None:
    """Print a line for each model and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL.gguf")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--one", choices=("kquant", "llama.cpp"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(*measure(given.one, given.models[0], given.threads[0]))
        return
    programs = ["kquant", "llama.cpp"] if find_spec("llama_cpp") else ["kquant"]
    for path in given.models:
        for threads in given.threads:
            found: dict[str, list[tuple[float, ...]]] = {program: [] for program in programs}
            for _ in range(given.turns):
                for program in programs:
                    words = [path, "--threads", str(threads), "--one", program]
                    command = [sys.executable, "-m", "benchmarks.running", *words]
                    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                    found[program].append(tuple(map(float, output.split())))
            speeds = {p: [median(run[i] for run in runs) for i in (0, 1)] for p, runs in found.items()}
            for i, what in enumerate(("prompt", "generation")):
                each = ", ".join(f"{p} {speeds[p][i]:.1f}" for p in programs)
                ratio = f", ratio {speeds['kquant'][i] / speeds['llama.cpp'][i]:.2f}" if programs[1:] else ""
                print(f"{path} {threads} threads {what}: {each} tokens per second{ratio}", flush=True)


if __name__ == "__main__":
    main()
