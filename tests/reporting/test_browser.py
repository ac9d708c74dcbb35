"""The page in a real browser: drawn, readable on a phone, light and dark, without network or barriers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

import kquant
from kquant.reporting.colours import ERRORS, ROLES, SURFACES, TYPES, ramp
from support.browsers import installed_browser
from support.files import GOLDEN, write_vocabulary
from support.hostile import write_hostile

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SOURCE = GOLDEN / "models/llama-slim-f16.gguf"
FILE = GOLDEN / "outputs/llama-slim-f16.Q4_K_M.gguf"
Scheme = Literal["light", "dark"]
PHONE, DESKTOP = (360, 800), (1280, 900)

SCHEMES: tuple[Scheme, ...] = ("light", "dark")
VIEWS = {
    f"{name}, {scheme}": (size, scheme)
    for name, size in (("phone", PHONE), ("desktop", DESKTOP))
    for scheme in SCHEMES
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # without a sandbox of its own: in containers it may not make one, and the page is ours
        opened = playwright.chromium.launch(executable_path=installed_browser(), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    kquant.report(FILE, against=SOURCE, rows=4).write(path)
    return path


@dataclass
class Visit:
    """A page that was opened, and what happened meanwhile."""

    page: Page
    size: tuple[int, int]
    scheme: Scheme
    complaints: list[str]
    requests: list[str]

    def colours(self, place: str) -> dict[str, int]:
        """Each colour of a screenshot of a picture, and how many pixels have it."""
        image = Image.open(io.BytesIO(self.page.locator(f"#{place}").screenshot())).convert("RGB")
        colours, counts = np.unique(np.asarray(image).reshape(-1, 3), axis=0, return_counts=True)
        return {f"#{colour.tobytes().hex()}": int(n) for colour, n in zip(colours, counts, strict=True)}


Opener = Callable[..., Visit]


@pytest.fixture(scope="module")
def visit(browser: Browser) -> Iterator[Opener]:
    """Opens a page in a window of some size, in light or dark."""
    contexts = []

    def open_page(
        path: Path, size: tuple[int, int] = DESKTOP, scheme: Scheme = "light", **options: Any
    ) -> Visit:
        viewport = ViewportSize(width=size[0], height=size[1])
        contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme, **options))
        opened = Visit(contexts[-1].new_page(), size, scheme, [], [])
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            for chart in opened.page.locator(".chart").all():
                chart.locator("svg").wait_for()
        return opened

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module", params=VIEWS)
def view(request: pytest.FixtureRequest, visit: Opener, report: Path) -> Visit:
    """The report on a phone and on a desktop, in light and in dark, all of it unfolded."""
    opened = visit(report, *VIEWS[request.param])
    opened.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    return opened


def test_it_is_drawn(view: Visit) -> None:
    mode = ["light", "dark"].index(view.scheme)
    q4_k, q6_k, _ = ramp(TYPES[mode], 3)
    surfaces = {name: colours[mode] for name, colours in SURFACES.items()}
    expected = {
        "size-by-role": [q4_k, q6_k],
        "size-by-layer": [colours[mode] for role, colours in ROLES.items() if role.name.startswith("FFN")],
        "types-by-layer": [q4_k, q6_k],
        "errors-by-layer": [surfaces["accent"]],
        "errors-by-matrix": [ERRORS[mode][0], ERRORS[mode][-1]],
        "rate-and-distortion": [surfaces["mark"], surfaces["accent"]],
        "histogram": [surfaces["soft"], surfaces["accent"]],
    }
    assert view.page.locator(".chart svg").count() == len(expected)
    for place, colours in expected.items():
        seen = view.colours(place)
        for colour in [surfaces["card"], *colours]:
            assert seen.get(colour, 0) > 20, (place, colour)


def test_nothing_went_wrong_and_nothing_was_loaded(view: Visit, report: Path) -> None:
    assert view.complaints == []
    assert view.requests == [report.as_uri()]


def test_it_fits(view: Visit) -> None:
    page, width = view.page, view.size[0]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for chart in page.locator(".chart svg").all():
        box = chart.bounding_box()
        assert box
        left, right = box["x"], box["x"] + box["width"]
        assert 0 <= left < right <= width
        assert box["width"] > 0.8 * min(width, 1100)
        edges = chart.locator("text").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect()).map(box => [box.left, box.right])"
        )
        assert all(left - 1 <= start and end <= right + 1 for start, end in edges)


def test_every_kind_of_matrix_has_its_name(view: Visit) -> None:
    names = view.page.locator("#types-by-layer text").all_text_contents()
    kinds = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}
    assert kinds <= set(names)


def test_letters_are_large_enough(view: Visit) -> None:
    sizes = view.page.locator(".chart text").evaluate_all(
        "all => all.map(one => parseFloat(getComputedStyle(one).fontSize))"
    )
    assert min(sizes) >= 11


def test_there_are_no_barriers(view: Visit) -> None:
    found = Axe().run(view.page)
    assert found.violations_count == 0, found.generate_report()


def test_it_follows_the_window(visit: Opener, report: Path) -> None:
    page = visit(report, DESKTOP).page
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.wait_for_function("document.documentElement.scrollWidth == 360")
    page.wait_for_function("document.querySelector('#types-by-layer svg').clientWidth <= 330")


def test_values_on_pointing(visit: Opener, report: Path) -> None:
    page = visit(report).page
    page.locator("#types-by-layer svg .mark-rect path").first.hover()
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert tip.inner_text().split() == ["layer", "0", "matrix", "attn_q", "type", "Q4_K", "bits", "4.5"]


def test_values_on_touching(visit: Opener, report: Path) -> None:
    page = visit(report, PHONE, has_touch=True, is_mobile=True).page
    page.locator("#errors-by-matrix svg .mark-rect path").first.tap()
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert tip.inner_text().split()[:4] == ["layer", "0", "matrix", "attn_q"]
    box = tip.bounding_box()
    assert box
    assert 0 <= box["x"] <= box["x"] + box["width"] <= PHONE[0]
    page.locator("h1").tap()
    tip.wait_for(state="detached")


def test_without_scripts(visit: Opener, report: Path) -> None:
    page = visit(report, java_script_enabled=False).page
    assert "The pictures are drawn by a script" in page.locator("noscript").inner_text()
    page.locator("#types summary").click()
    assert page.locator("#types details table").inner_text().split()[:2] == ["layer", "attn_q"]


def test_hostile_names_do_nothing(visit: Opener, tmp_path: Path) -> None:
    file, source = write_hostile(tmp_path / "a.gguf", "Q4_K"), write_hostile(tmp_path / "b.gguf")
    kquant.report(file, against=source, rows=1).write(tmp_path / "report.html")
    opened = visit(tmp_path / "report.html", PHONE)
    assert opened.page.evaluate("window.hacked") is None
    opened.page.locator("#types-by-layer svg .mark-rect path").first.hover()
    tip = opened.page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert "</script>" in tip.inner_text()
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    assert opened.complaints == []
    assert opened.requests == [(tmp_path / "report.html").as_uri()]


def test_a_vocabulary_alone(visit: Opener, tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "v.gguf")
    kquant.report(tmp_path / "v.gguf").write(tmp_path / "report.html")
    opened = visit(tmp_path / "report.html", PHONE)
    assert opened.page.locator(".chart svg").count() == 2
    assert opened.complaints == []
