"""Memory grows with the slab, not with the model nor with its largest tensor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kquant.gguf import Metadata, TensorSpec, Writer, layout
from kquant.types import TensorType

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"), pytest.mark.slow]

MB = 1 << 20
THREADS = 2
SLABS = 4 + 1
"""Slabs in progress for each thread: those in the queue, and the one that it works on."""
SLACK = 8 * MB
"""What the allocator keeps, and what does not depend on slabs."""

# quantizes a first time, so that all is loaded; then says by how many bytes the second time needed more
MEASURE = """
import json, sys, threading, time
import kquant

def resident(kind):
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))

def sample():
    while not done.wait(0.001):
        peaks.append(resident("RssAnon:"))

small, large, target, file_type, options = *sys.argv[1:5], json.loads(sys.argv[5])
kquant.requantize(small, target, file_type, overwrite=True, **options)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before, before_peak, peaks, done = resident("RssAnon:"), resident("VmHWM:"), [], threading.Event()
sampler = threading.Thread(target=sample, daemon=True)
sampler.start()
kquant.requantize(large, target, file_type, overwrite=True, **options)
done.set()
sampler.join()
print(json.dumps([max(peaks, default=before) - before, resident("VmHWM:") - before_peak, resident("VmHWM:")]))
"""


def model_of_zeros(path: Path, n_rows: int, n_per_row: int = 4096) -> Path:
    """A model with one tensor in F16; a hole in the file, where the file system has holes."""
    plan = layout(Metadata(), [TensorSpec("blk.0.ffn_up.weight", (n_per_row, n_rows), TensorType.F16)])
    with Writer(path, plan) as writer:
        for first in range(0, n_rows, 1024):
            rows = np.zeros((min(1024, n_rows - first), n_per_row), np.float16)
            writer.write(0, first * n_per_row * 2, rows)
        writer.commit()
    return path


def growth(folder: Path, large: Path, file_type: str, **options: Any) -> int:
    """Bytes of memory by which a process grows when it requantizes `large` after something small."""
    small = model_of_zeros(folder / "small.gguf", 2)
    arguments = [str(small), str(large), str(folder / "out.gguf"), file_type]
    command = [sys.executable, "-c", MEASURE, *arguments, json.dumps({"threads": THREADS, **options})]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    anonymous, peak, total = json.loads(done.stdout)
    assert total < 300 * MB
    return max(int(anonymous), int(peak))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose one tensor has 64 MB: 128 MB of floats."""
    return model_of_zeros(tmp_path_factory.mktemp("memory") / "large.gguf", 8192)


@pytest.mark.parametrize("slab_elements", [1 << 14, 1 << 17, 1 << 20])
def test_memory_follows_the_slab(slab_elements: int, large: Path, tmp_path: Path) -> None:
    n_bytes = 2 + 4 + 4  # an element in the source, as a float, and at most twice in the result
    assert growth(tmp_path, large, "Q8_0", slab_elements=slab_elements) < (
        THREADS * SLABS * slab_elements * n_bytes + SLACK
    )


@pytest.mark.parametrize("file_type", ["Q8_0", "F32", "COPY"])
def test_memory_of_a_tensor_that_is_larger_than_what_is_allowed(
    file_type: str, large: Path, tmp_path: Path
) -> None:
    assert growth(tmp_path, large, file_type) < 24 * MB < large.stat().st_size
