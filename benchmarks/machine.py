"""On what machine, with which versions."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("kquant-gguf", "numpy", "numba", "llvmlite", "gguf", "ggml-python", "libgguf")
FEATURES = ("sse4.2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512vnni", "neon", "sve")


def facts() -> dict[str, Any]:
    """What a reader of the figures needs to know."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return {
        "cpu": cpu_model(),
        "llvm_cpu": llvm.get_host_cpu_name(),
        "features": [name for name in FEATURES if features.get(name)],
        "cores": os.cpu_count(),
        "caches": caches(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        "versions": {name: installed(name) for name in PACKAGES},
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def cpu_model() -> str:
    """The name that the processor reports."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if match:
            return match[1]
    return platform.processor() or platform.machine()


def caches() -> dict[str, str]:
    """Sizes of the caches of the first core, where Linux tells them."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = (index / "type").read_text().strip()
        if kind != "Instruction":
            found[f"L{(index / 'level').read_text().strip()}"] = (index / "size").read_text().strip()
    return found


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
