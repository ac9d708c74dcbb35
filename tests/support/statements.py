"""Counts the statements of some modules that run, without slowing anything else down."""

from __future__ import annotations

import ast
import builtins
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

RAN = "__ran__"
"""A set of (file name, line), among the builtins of a process that counts."""
BLOCKS = ("body", "orelse", "finalbody", "handlers")


def _counts(node: ast.stmt) -> bool:
    """Whether a statement can run and is not a mere refusal: `return None` says that types do not fit."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return False
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return False
    refuses = (
        isinstance(node, ast.Return) and isinstance(node.value, ast.Constant) and node.value.value is None
    )
    return not refuses


def counted(source: str, name: str, compiled: Sequence[str]) -> tuple[ast.Module, set[tuple[str, int]]]:
    """The syntax tree with a note before each statement, and all statements: (file name, line).

    compiled: functions that Numba compiles, so that Python never runs them.
    """
    tree, found = ast.parse(source), set()

    def visit(node: Any) -> None:
        for block in BLOCKS:
            statements = getattr(node, block, [])
            if not isinstance(statements, list):
                continue
            noted: list[ast.AST] = []
            for statement in statements:
                if isinstance(statement, ast.stmt) and _counts(statement):
                    found.add((name, statement.lineno))
                    noted += ast.parse(f"{RAN}.add(({name!r}, {statement.lineno}))").body
                if not (isinstance(statement, ast.FunctionDef) and statement.name in compiled):
                    visit(statement)
                noted.append(statement)
            setattr(node, block, noted)

    visit(tree)
    return ast.fix_missing_locations(tree), found


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, compiled: Sequence[str]) -> None:
        super().__init__(name, path)
        self.compiled = compiled

    def get_code(self, fullname: str) -> CodeType:
        tree, _ = counted(Path(self.path).read_text(encoding="utf-8"), Path(self.path).name, self.compiled)
        return compile(tree, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, package: str, compiled: Sequence[str]) -> None:
        self.package, self.compiled = package, compiled

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.rpartition(".")[0] != self.package:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or spec.submodule_search_locations is not None:
            return spec
        spec.loader = _Loader(fullname, spec.origin, self.compiled)
        return spec


def count_statements(package: str, compiled: Sequence[str]) -> set[tuple[str, int]]:
    """From now on, count those of the modules in a package, when they are imported; those that ran."""
    ran: set[tuple[str, int]] = set()
    setattr(builtins, RAN, ran)
    sys.meta_path.insert(0, _Finder(package, compiled))
    return ran
