"""Histograms against `np.histogram`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kquant
from kquant.analysis.slabs import SLAB_ELEMENTS
from kquant.gguf import read
from kquant.reporting.histogram import BINS, REACH, histogram
from support.small_models import heavy_tailed, packed, raw, write_model

NAME = "blk.0.ffn_up.weight"


@pytest.mark.parametrize("threads", [1, 3])
def test_against_numpy(tmp_path: Path, threads: int) -> None:
    x = heavy_tailed(5, SLAB_ELEMENTS // 2)
    data = packed(x, "Q4_K")
    source = write_model(tmp_path / "a.gguf", {NAME: raw(x, "F32")})
    file = write_model(tmp_path / "b.gguf", {NAME: data})
    calls: list[tuple[int, int]] = []
    with read(source) as a, read(file) as b:
        found = histogram(b, NAME, a, threads=threads, progress=lambda *call: calls.append(call))
    assert found.limit == pytest.approx(REACH * np.sqrt((x.astype(np.float64) ** 2).mean()))
    assert found.largest == np.abs(x).max()
    assert found.before
    assert np.allclose(found.edges, np.linspace(-found.limit, found.limit, BINS + 1))
    for counts, values in ((found.before, x), (found.after, kquant.dequantize(data[0], "Q4_K"))):
        assert sum(counts.bins) + counts.outside == x.size
        expected, _ = np.histogram(values.astype(np.float64), BINS, (-found.limit, found.limit))
        assert (
            np.abs(np.array(counts.bins) - expected).sum() <= 2
        )  # of a value on an edge, either may be right
    assert calls[-1] == (2 * x.nbytes + data[0].nbytes,) * 2


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_all_values_are_one(tmp_path: Path, value: float) -> None:
    path = write_model(tmp_path / "a.gguf", {NAME: raw(np.full((2, 32), value, np.float32), "F32")})
    with read(path) as model:
        found = histogram(model, NAME)
    assert (sum(found.after.bins), max(found.after.bins), found.after.outside) == (64, 64, 0)
    assert found.largest == value


def test_zero_is_in_the_middle(tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.gguf", {NAME: raw(np.array([[-1, 0, 0, 1]], np.float32), "F32")})
    with read(path) as model:
        bins = histogram(model, NAME).after.bins
    assert (bins[0], bins[BINS // 2], bins[-1]) == (1, 2, 1)
