"""The promises of the package as a whole: what an import does, which names there are, who may import whom."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

import kquant
from kquant import formats

ROOT = Path(__file__).parents[1]
PACKAGE = Path(kquant.__file__).parent
MODULES = sorted(m.name for m in pkgutil.walk_packages([str(PACKAGE)], "kquant."))
FORMATS = {f"kquant.formats.{name}" for name in formats.MODULES.values()}


def python(code: str, *arguments: str) -> str:
    """Standard output of a new interpreter that runs the code with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORTED = "import sys; print(*sorted({m.partition('.')[0] for m in sys.modules}))"


def test_import_loads_no_array_library_and_no_compiler() -> None:
    loaded = python(f"import kquant; {IMPORTED}").split()
    assert not {"numpy", "numba", "llvmlite", "gguf", "click", "rich"} & set(loaded)


def test_import_changes_nothing_global() -> None:
    python(
        """
import decimal, locale, logging, os, random, signal, sys, threading, warnings
import numpy as np, numba

def state():
    return (
        dict(os.environ), os.getcwd(), list(sys.path), sys.getrecursionlimit(), sys.excepthook,
        locale.setlocale(locale.LC_ALL), list(warnings.filters), random.getstate(), np.geterr(),
        np.random.get_state()[1].tolist(), np.get_printoptions(), logging.root.level,
        list(logging.root.handlers), threading.active_count(), signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM), numba.config.CACHE_DIR, numba.get_num_threads(),
    )

before = state()
import kquant
for name in kquant.__all__:
    getattr(kquant, name)
import kquant.cli
for was, now in zip(before, state()):
    assert was == now, (was, now)
"""
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["types"],
        ["types", "Q4_K"],
        ["inspect", str(ROOT / "tests/golden/gguf/outputs/llama-slim-f16.Q4_K_M.gguf")],
        ["verify", str(ROOT / "tests/golden/gguf/outputs/llama-slim-f16.Q4_K_M.gguf")],
        ["quantize", "--help"],
        ["report", "--help"],
        ["run", "--help"],
        ["bench", "--help"],
        ["quantize", "--dry-run", str(ROOT / "tests/golden/gguf/models/llama-slim-f16.gguf"), "Q4_K_M"],
    ],
    ids=lambda a: " ".join(a[:2]),
)
def test_the_command_answers_at_once_without_the_compiler(arguments: list[str]) -> None:
    answer = python(
        f"import time, kquant.cli, sys; assert kquant.cli.main(sys.argv[1:]) == 0; {IMPORTED};"
        "print(time.process_time())",
        *arguments,
    ).splitlines()
    assert not {"numba", "llvmlite", "altair", "vl_convert", "jinja2"} & set(answer[-2].split())
    assert float(answer[-1]) < (0.3 if arguments[0] == "--help" else 1)


def test_version() -> None:
    try:
        assert metadata.version("kquant-gguf") == kquant.__version__
    except metadata.PackageNotFoundError:
        pytest.skip("kquant is used from its folder, without being installed")


def test_the_changelog_speaks_of_this_version() -> None:
    assert f"## [{kquant.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_lazy_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse(inspect.getsource(kquant))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen == kquant._LAZY
    assert set(kquant.__all__) <= set(dir(kquant))


@pytest.mark.parametrize("name", [n for n in kquant.__all__ if n != "__version__"])
def test_public_names_are_documented_with_an_example(name: str) -> None:
    thing = getattr(kquant, name)
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        assert ">>>" in (inspect.getdoc(thing) or "")


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'kquant' has no attribute 'dequantise'"):
        kquant.dequantise  # noqa: B018


def test_no_module_bears_the_name_of_a_public_function() -> None:
    """Importing it would set an attribute of its package that hides the function."""
    functions = {name for name in kquant.__all__ if inspect.isfunction(getattr(kquant, name))}
    assert not functions & {name.removeprefix("kquant.").partition(".")[0] for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_documented(name: str) -> None:
    assert inspect.getdoc(importlib.import_module(name))


# what others may build on; everything else may change with any version
PUBLIC_MODULES = [
    "kquant",
    "kquant.analysis.anatomy",
    "kquant.errors",
    "kquant.formats",
    "kquant.gguf",
    "kquant.llama_cpp",
    "kquant.policy",
    "kquant.reporting.facts",
    "kquant.reporting.histogram",
    "kquant.types",
]


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_public_modules_say_what_they_offer(name: str) -> None:
    module = importlib.import_module(name)
    assert all(hasattr(module, each) for each in module.__all__)
    assert f"`{name}`" in (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")


def test_examples_and_pages_use_public_modules_only() -> None:
    """A page about a format also shows the format's own module."""
    allowed = {*PUBLIC_MODULES, *FORMATS, *(name.rpartition(".")[0] for name in FORMATS)}
    allowed |= {f"{name}.{each}" for name in PUBLIC_MODULES for each in importlib.import_module(name).__all__}
    used = set()
    for path in (ROOT / "examples").glob("*.py"):
        used |= imports(ast.walk(parsed(path)))
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = path.read_text(encoding="utf-8")
        statements = re.findall(r"^(?:>>> )?((?:from|import) kquant\b.*)", text, re.MULTILINE)
        used |= imports(ast.walk(ast.parse("\n".join(statements))))
    assert "kquant.gguf" in used
    assert used & set(MODULES) <= allowed


# packages, from the ground up -> those that they may import besides their own; "" is kquant/__init__.py
FOUNDATION = {"errors", "types", "_floats", "_given", "_text", "parallel"}
LAYERS = [
    (FOUNDATION, set()),
    ({"gguf"}, FOUNDATION),
    ({"policy"}, FOUNDATION),
    ({"kernels"}, FOUNDATION),
    ({"formats"}, FOUNDATION | {"kernels"}),
    ({"arrays"}, FOUNDATION | {"kernels", "formats", ""}),  # "": `@` calls kquant.matmul by its public name
    ({"products"}, FOUNDATION | {"kernels", "formats", "arrays", ""}),  # "": the same of activations
    ({"imatrix"}, FOUNDATION | {"gguf"}),
    ({"planning"}, FOUNDATION | {"gguf", "policy", "imatrix", "formats"}),  # which types have a format
    ({"model"}, FOUNDATION | {"gguf", "arrays"}),
    ({"tokenizers"}, FOUNDATION | {"gguf"}),
    ({"convert"}, FOUNDATION | {"kernels", "formats", "arrays", "gguf", "imatrix", "planning"}),
    ({"analysis"}, FOUNDATION | {"kernels", "formats", "arrays", "gguf", "policy", "imatrix", "planning"}),
    ({"models"}, FOUNDATION),
    (
        {"runtime"},
        FOUNDATION
        | {"kernels", "formats", "arrays", "products", "gguf", "model", "models", "tokenizers", ""},
    ),
    ({"llama_cpp"}, FOUNDATION | {"runtime"}),
    ({"reporting"}, FOUNDATION | {"gguf", "policy", "analysis", ""}),  # "": the version
    ({"", "__main__", "cli"}, None),
]


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """What a program runs: all but the blocks that only type checkers read."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from nodes(child)


def imports(tree: Iterable[ast.AST]) -> set[str]:
    """What they import, by full names: modules, and what is taken from them, which may be modules, too."""
    names = set()
    for node in tree:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, ast.unparse(node)
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def file_of(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_no_module_imports_itself_by_way_of_others() -> None:
    """The import graph has no circle, be it at the top of modules or in their functions.

    `kquant` itself imports what its names stand for when they are used: by name, which is no import here.
    """
    names = {"kquant", *MODULES}
    graph = {name: imports(nodes(parsed(file_of(name)))) & names - {name} for name in names}
    assert graph["kquant"] == {"kquant.errors", "kquant.types"}
    assert "kquant" in graph["kquant.arrays.tensor"]
    TopologicalSorter(graph).prepare()  # its CycleError names the circle


def package_of(module: str) -> str:
    """`codec` for `kquant.arrays.codec`, `gguf` for `kquant.gguf.reader`."""
    return [*module.split("."), ""][1]


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_imports_run_one_way(path: Path) -> None:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    own = package_of(".".join(parts).removesuffix(".__init__"))
    packages, allowed = next((layer for layer in LAYERS if own in layer[0]), ({own}, set()))
    imported = imports(ast.walk(parsed(path)))
    if allowed is not None:
        assert {package_of(m) for m in imported & {"kquant", *MODULES}} <= packages | allowed
    others = {name.partition(".")[0] for name in imported}
    assert own == "kernels" or not others & {"numba", "llvmlite"}
    assert own == "cli" or not others & {"click", "rich"}
    assert own == "reporting" or not others & {"altair", "vl_convert"}
    assert own in ("reporting", "runtime") or "jinja2" not in others
    assert own == "tokenizers" or "tokenizers" not in others
