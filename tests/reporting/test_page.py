"""The page as HTML: complete, self-contained, escaped."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.errors import MissingDependencyError, OutputError
from support.files import GOLDEN, SHARDS, write_vocabulary
from support.hostile import IMAGE, SCRIPT, write_hostile
from support.pages import Page
from support.small_models import heavy_tailed, packed, write_model

SOURCE = GOLDEN / "models/llama-slim-f16.gguf"
FILE = GOLDEN / "outputs/llama-slim-f16.Q4_K_M.gguf"
ALL = {
    "size-by-role",
    "size-by-layer",
    "types-by-layer",
    "errors-by-layer",
    "errors-by-matrix",
    "rate-and-distortion",
    "histogram",
}


def page(*arguments: Any, **options: Any) -> Page:
    return Page(kquant.report(*arguments, **{"rows": 2, **options}).html())


@pytest.fixture(scope="module")
def full() -> Page:
    return page(FILE, against=SOURCE)


def test_all_pictures(full: Page) -> None:
    assert set(full.charts) == ALL
    for chart in full.charts.values():
        assert chart["width"] == "container"
        assert re.search(r"vega-lite/v\d", chart["$schema"])


def test_every_picture_has_words_and_a_table(full: Page) -> None:
    places = full.all("div", role="img")
    assert len(places) == len(ALL)
    assert all(len(place["aria-label"]) > 60 for place in places)
    assert {place["id"] for place in full.all("div", **{"aria-hidden": "true"})} == ALL
    assert len(full.all("details")) == len(ALL) + 1  # and the metadata
    assert full.words.count("The same as a table") == len(ALL)


def test_headings_and_ids(full: Page) -> None:
    ids = [attributes["id"] for _, attributes in full.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {a["aria-labelledby"] for _, a in full.elements if "aria-labelledby" in a}
    assert labels <= set(ids)
    levels = [int(tag[1]) for tag, _ in full.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_nothing_is_loaded(full: Page) -> None:
    assert not [a for _, a in full.elements if {"src", "srcset", "action", "data"} & a.keys()]
    ids = {a.get("id") for _, a in full.elements}
    targets = [a["href"] for _, a in full.elements if "href" in a]
    assert len(targets) == 6
    assert {target.removeprefix("#") for target in targets} <= ids
    assert not re.search(r"@import|url\(", full.source.partition("</style>")[0])
    (policy,) = full.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert full.allowed_scripts == full.script_hashes
    assert len(full.source) < 1_500_000


def test_figures_are_right(full: Page) -> None:
    inspection, comparison = kquant.inspect(FILE), kquant.compare(SOURCE, FILE)
    words = " ".join(full.words.split())
    for text in ("llama-slim", "300.4 KiB", "5.298", "Q4_K_M", "446,736", "32.8 %"):
        assert text in words
    worst = max((row for row in comparison.rows if len(row.shape) == 2), key=lambda r: r.sums.relative_rmse)
    assert f"{worst.name} {100 * worst.sums.relative_rmse:.2f} %" in words
    cells = full.rows("types-by-layer")
    types = {info.name: info.type.name for info in inspection.tensors}
    assert {(c["layer"], c["matrix"]): c["type"] for c in cells} == {
        (int(name.split(".")[1]), name.split(".")[2]): t
        for name, t in types.items()
        if name.startswith("blk.") and "norm" not in name
    }
    bars = full.rows("size-by-layer")
    assert sum(bar["amount"] for bar in bars) * 1024 == pytest.approx(
        sum(share.bytes for layer, share in inspection.layers.items() if layer is not None)
    )
    bins = full.rows("histogram", -1)
    assert sum(b["after"] for b in bins) == pytest.approx(100, abs=1.5)


def test_hostile_names_stay_words(tmp_path: Path) -> None:
    file, source = write_hostile(tmp_path / "a.gguf", "Q4_K"), write_hostile(tmp_path / "b.gguf")
    found = page(file, against=source)
    assert found.allowed_scripts == found.script_hashes
    assert not found.all("img")
    assert not found.all("b")
    assert {tag for tag, a in found.elements if any(name.startswith("on") for name in a)} == set()
    assert len(found.all("title")) == 1
    assert SCRIPT in found.words
    assert IMAGE in found.words
    assert "{{ 7 * 7 }}" in found.words
    assert "\\u202e" in found.words
    kinds = {cell["matrix"] for cell in found.rows("types-by-layer")}
    assert SCRIPT in kinds


def test_without_a_source(tmp_path: Path) -> None:
    found = page(FILE)
    assert set(found.charts) == {"size-by-role", "size-by-layer", "types-by-layer", "histogram"}
    assert "No source was given to compare with. Give one with --against SOURCE.gguf." in found.words
    assert "The file is quantized, and its source was not given" in found.words
    alone = page(SOURCE)
    assert "rate-and-distortion" in alone.charts
    assert "this file" not in alone.words


def test_shards(tmp_path: Path) -> None:
    words = page(SHARDS[0], rows=0).words
    assert all(path.name in words for path in SHARDS)
    assert "It was left out." in words


@pytest.mark.slow
def test_a_vocabulary_alone(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "v.gguf", "big")
    found = page(tmp_path / "v.gguf")
    assert set(found.charts) == {"size-by-role", "histogram"}
    assert "big endian" in found.words
    assert "so there is no map" in found.words
    empty = page(write_model(tmp_path / "e.gguf", {}))
    assert not empty.charts
    assert "The file holds no tensors: it may be a vocabulary alone." in empty.words


def test_types_without_a_codec(tmp_path: Path) -> None:
    unknown = (np.zeros((2, 66), np.uint8), kquant.TensorType["IQ2_XXS"])
    x = packed(heavy_tailed(2, 256), "F16")
    file = write_model(tmp_path / "a.gguf", {"blk.0.ffn_up.weight": unknown, "blk.0.ffn_down.weight": x})
    source = write_model(tmp_path / "b.gguf", {"blk.0.ffn_up.weight": x, "blk.0.ffn_down.weight": x})
    found = page(file, against=source)
    assert "Not compared (1)" in found.words
    assert "kquant has no codec for IQ2_XXS" in found.words
    assert "IQ2_XXS" in str(found.charts["types-by-layer"])
    iq = write_model(tmp_path / "c.gguf", {"blk.0.ffn_up.weight": unknown})
    words = page(iq, against=source).words
    assert "expected tensors to compare, got none in common." in words
    assert "--against" not in words
    same = page(source, against=source)  # no error at all
    assert "errors-by-matrix" in same.charts


def test_zeros(tmp_path: Path) -> None:
    zeros = packed(np.zeros((2, 256), np.float32), "F16")
    file = write_model(tmp_path / "a.gguf", {"blk.0.ffn_up.weight": packed(heavy_tailed(2, 256), "Q4_K")})
    source = write_model(tmp_path / "b.gguf", {"blk.0.ffn_up.weight": zeros})
    assert "inf %" in page(file, against=source).words
    assert "No type has an error that can be drawn." in page(source).words


def test_writing(tmp_path: Path) -> None:
    found = kquant.report(FILE, rows=0)
    target = tmp_path / "page.html"
    target.write_text("older")
    found.write(target)
    assert target.read_text(encoding="utf-8") == found.html()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_page_is_not_written_over_a_model(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", {"a": packed(heavy_tailed(2, 256), "Q4_K")})
    before = path.read_bytes()
    with pytest.raises(OutputError, match="expected another file than the model, got the model itself"):
        kquant.report(path, rows=0).write(path)
    assert path.read_bytes() == before


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no/page\.html: expected a file in a folder that exists"):
        kquant.report(FILE, rows=0).write(tmp_path / "no/page.html")


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = kquant.report(FILE, rows=0)

    def fail(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kquant.reporting.builder.PartFile.write", fail)
    with pytest.raises(KeyboardInterrupt):
        found.write(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_libraries_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = kquant.report(FILE, rows=0)
    monkeypatch.setattr("kquant.reporting.builder.find_spec", lambda name: None if name == "altair" else name)
    with pytest.raises(MissingDependencyError, match="needed to draw the report: altair"):
        found.html()


def test_more_kinds_of_matrices_than_a_map_can_show(tmp_path: Path) -> None:
    x = packed(heavy_tailed(2, 32), "Q8_0")
    path = write_model(tmp_path / "m.gguf", {f"blk.0.kind_{i}.weight": x for i in range(30)})
    found = page(path)
    assert len(found.rows("types-by-layer")) == 24
    assert "The 6 kinds of matrices with the fewest elements are left out." in found.words
