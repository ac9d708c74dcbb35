"""How long loading, reading prompts and generating took."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Timings"]


@dataclass
class Timings:
    """Times in milliseconds, since the model was loaded or `reset`.

    >>> Timings(load_ms=12.0, prompt_ms=500.0, prompt_tokens=100).prompt_tokens_per_second
    200.0
    """

    load_ms: float = 0.0
    """From the file to a program that can be played."""
    prompt_ms: float = 0.0
    """Reading prompts."""
    prompt_tokens: int = 0
    generation_ms: float = 0.0
    """Reading generated tokens, one by one, which gives those that follow."""
    generated_tokens: int = 0
    sampling_ms: float = 0.0
    """Choosing tokens by their logits."""
    sampled_tokens: int = 0

    @property
    def prompt_tokens_per_second(self) -> float:
        """0 before there were any."""
        return _rate(self.prompt_tokens, self.prompt_ms)

    @property
    def generated_tokens_per_second(self) -> float:
        """0 before there were any."""
        return _rate(self.generated_tokens, self.generation_ms)

    def reset(self) -> None:
        """Begin again; the time of loading stays."""
        load_ms = self.load_ms
        self.__init__(load_ms=load_ms)  # type: ignore[misc]

    def lines(self) -> list[str]:
        """What llama.cpp prints when it is done.

        Source: `llama_perf_context_print` in
        https://github.com/ggml-org/llama.cpp/blob/master/src/llama-context.cpp
        """
        total, n = (
            self.load_ms + self.prompt_ms + self.generation_ms,
            self.prompt_tokens + self.generated_tokens,
        )
        return [
            f"llama_perf_context_print:        load time = {self.load_ms:10.2f} ms",
            _line("prompt eval time", self.prompt_ms, self.prompt_tokens, "tokens"),
            _line("eval time", self.generation_ms, self.generated_tokens, "runs  "),
            f"llama_perf_context_print:       total time = {total:10.2f} ms / {n:5d} tokens",
        ]


def _rate(n: int, ms: float) -> float:
    return 1000.0 * n / ms if ms else 0.0


def _line(what: str, ms: float, n: int, unit: str) -> str:
    each = ms / n if n else 0.0
    return (
        f"llama_perf_context_print: {what:>16} = {ms:10.2f} ms / {n:5d} {unit} "
        f"({each:8.2f} ms per token, {_rate(n, ms):8.2f} tokens per second)"
    )
