"""`LanguageModel`: options, generation by token ids, what watches it, and files that cannot be run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kquant
from kquant import LanguageModel, ModelError, OptionError
from support.golden_models import model_path, recorded
from support.small_models import heavy_tailed, packed, write_model

TOKENS = recorded("llama-dense")["tokens"].tolist()


def test_every_linear_layer_is_watched() -> None:
    seen: dict[str, tuple[int, ...]] = {}

    def look(name: str, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]], expert: int | None) -> None:
        assert x.dtype == np.float32
        assert expert is None
        seen[name] = x.shape

    with LanguageModel(model_path("llama-dense")) as llm:
        with llm.watch("blk.1.*", look):
            llm.logits(TOKENS[:5])
        n = len(seen)
        llm.logits(TOKENS[:6])
    assert seen == {
        f"blk.1.{name}.weight": (5, width)
        for name, width in [
            ("attn_q", 128), ("attn_k", 128), ("attn_v", 128), ("attn_output", 128),
            ("ffn_gate", 128), ("ffn_up", 128), ("ffn_down", 192),
        ]
    }  # fmt: skip
    assert n == len(seen)


def test_experts_are_watched_one_by_one() -> None:
    rows: dict[str, int] = {}

    def count(name: str, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]], expert: int | None) -> None:
        assert expert is not None
        rows[name] = rows.get(name, 0) + len(x)

    with LanguageModel(model_path("llama-moe")) as llm, llm.watch("*_exps.weight", count):
        llm.logits(TOKENS[:10])
        used = llm.hyperparameters.n_expert_used
    assert set(rows.values()) == {10 * used}


def test_options_that_cannot_be() -> None:
    path = model_path("llama-dense")
    with pytest.raises(OptionError, match="context: expected at least 1, got 0"):
        LanguageModel(path, context=0)
    with pytest.raises(
        OptionError, match=r"context: expected one whose keys and values fit in .* GiB of memory"
    ):
        LanguageModel(path, context=1 << 40)
    with pytest.raises(OptionError, match="threads: expected at least 1, got 0"):
        LanguageModel(path, threads=0)
    with pytest.raises(OptionError, match="cache_type_k: expected one of"):
        LanguageModel(path, cache_type_k="Q6_K")
    with pytest.raises(FileNotFoundError):
        LanguageModel("no such file.gguf")
    with LanguageModel(path) as llm:
        with pytest.raises(OptionError, match="expected sampling or seed, got both"):
            llm.generate([1], sampling=kquant.Sampling(), seed=3)
        with pytest.raises(OptionError, match=r"expected settings among temperature, .*, got temprature"):
            llm.generate([1], temprature=3)
        with pytest.raises(OptionError, match="max_tokens: expected at least 0, got -1"):
            llm.generate([1], -1)
        with pytest.raises(OptionError, match="pooling: expected mean, cls or last, got 'sum'"):
            llm.embed("x", pooling="sum")  # type: ignore[arg-type]
        assert repr(llm).endswith("llama-dense.gguf', llama, 2 layers, context 256)")


def test_files_that_cannot_be_run(tmp_path: Path) -> None:
    other = write_model(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": packed(heavy_tailed(4, 256), "F16")})
    with pytest.raises(
        ModelError, match=r"expected a tensor token_embd.weight of shape .*, got a file without it"
    ):
        LanguageModel(other)
    some = write_model(tmp_path / "n.gguf", {"token_embd.weight": packed(heavy_tailed(4, 256), "F16")})
    with pytest.raises(
        ModelError, match=r"expected llama.embedding_length in the metadata, got a file without"
    ):
        LanguageModel(some)


def test_timings() -> None:
    timings = kquant.LanguageModel(model_path("llama-dense")).timings
    assert timings.load_ms > 0
    assert timings.prompt_tokens_per_second == 0
    timings.prompt_ms, timings.prompt_tokens = 100.0, 20
    lines = timings.lines()
    said = " ".join(lines[1].split(":")[1].split())
    assert said == "prompt eval time = 100.00 ms / 20 tokens ( 5.00 ms per token, 200.00 tokens per second)"
    assert len(lines) == 4
    timings.reset()
    assert timings.prompt_tokens == 0
    assert timings.load_ms > 0
