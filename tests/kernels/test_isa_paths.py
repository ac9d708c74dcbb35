"""What kernels compute does not depend on the instruction set that they are compiled for.

Each path runs in a process of its own: kernels are compiled one way or the other, once for all.
"""

from __future__ import annotations

import dis
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

import kquant
from kquant.formats import format_of, has_format
from kquant.kernels.execute import WHOLE, Execution, aligned_empty
from support import golden
from support.compare import assert_same_bytes, assert_same_floats

BOTH: tuple[Execution, ...] = ("numba", "numpy")
LOWERING = Path(kquant.__file__).parent / "kernels" / "lowering"
HOST = llvm.get_host_cpu_features()
NEEDED = {"vnni": ("avx512bw", "avx512vnni"), "avx2": ("avx2",)}

pytestmark = [pytest.mark.processors, pytest.mark.slow]

CHILD = """
import sys
from kquant.kernels.lowering.isa import tuning
if sys.argv[2] != "own":  # before anything asks
    found = getattr(tuning, sys.argv[2])
    tuning.of_processor = lambda name: found
from kernels import test_isa_paths
getattr(test_isa_paths, sys.argv[1])(*sys.argv[3:])
"""


def in_a_process(job: str, tuning: str, *arguments: str, **environment: str) -> str:
    """Standard output of a function of this module."""
    tests = Path(__file__).parents[1]
    folders = os.pathsep.join([str(tests.parent), str(tests)])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, job, tuning, *arguments],
        env={**os.environ, **environment, "PYTHONPATH": folders},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------- equal bits

PATHS = [
    ("vnni", "own"),
    ("avx2", "own"),
    ("portable", "own"),
    ("vnni-model", "ZEN"),
    ("vnni-model", "OTHERS"),
    ("avx2-model", "OTHERS"),
]


def compare_products() -> None:
    """Recorded rows, many columns and one, and the largest magnitudes, beside NumPy's execution."""
    from products.test_integers import (
        TYPES,
        test_largest_magnitudes_do_not_overflow,
        test_largest_magnitudes_do_not_overflow_in_tiles,
    )

    for name, case in golden.document("vec_dot/index.json").items():
        pairs = golden.arrays(f"vec_dot/{name}.npz")
        rows = pairs["weights"], name, pairs["activations"], case["activation"]
        assert_same_floats(*(kquant.vec_dot(*rows, execution=execution) for execution in BOTH))
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((20, 512), np.float32)
    x = rng.standard_normal((512, 23), np.float32)
    for name in TYPES:
        w = kquant.QuantizedTensor.from_numpy(weights, name)
        for columns in (x, x[:, 0]):
            assert_same_floats(*(kquant.matmul(w, columns, execution=execution) for execution in BOTH))
        test_largest_magnitudes_do_not_overflow(name, "numba")
        test_largest_magnitudes_do_not_overflow_in_tiles(name, "numba")


def compare_formats() -> None:
    """Rows quantized, with importance weights and without, and unpacked: in the cache and past it."""
    rng = np.random.default_rng(0)
    x = (rng.standard_t(4, (9, 512)) * np.exp(rng.standard_normal(512) / 2) * 0.02).astype(np.float32)
    importance = np.exp(rng.standard_normal(512)).astype(np.float32)
    for t in filter(has_format, kquant.TensorType):
        own = format_of(t)
        for weights in (None, importance) if own.weighted else (None,):
            for large in (False, True):
                packed = [aligned_empty((len(x), t.row_bytes(x.shape[1])), np.uint8) for _ in BOTH]
                for out, execution in zip(packed, BOTH, strict=True):
                    assert own.quantize_rows(x, weights, out, execution, large=large) == WHOLE
                assert_same_bytes(*packed, t.name)
        for large in (False, True):
            unpacked = [aligned_empty(x.shape, np.float32) for _ in BOTH]
            for values, execution in zip(unpacked, BOTH, strict=True):
                own.decoder(t, packed[0], values, execution, large=large)
            assert_same_floats(*unpacked)


@pytest.mark.parametrize("job", ["compare_products", "compare_formats"])
@pytest.mark.parametrize(("isa", "tuning"), PATHS)
def test_a_path_gives_the_bits_of_numpy(isa: str, tuning: str, job: str) -> None:
    if not all(HOST.get(feature) for feature in NEEDED.get(isa, ())):
        pytest.skip(f"this processor has no {isa}")
    in_a_process(job, tuning, KQUANT_ISA=isa)


# ---------------------------------------------------------------- every statement


def lines_of(code: CodeType) -> Iterator[tuple[CodeType, int]]:
    """The statements of a file, function by function, by the line on which each begins."""
    for _, line in dis.findlinestarts(code):
        if line:
            yield code, line
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from lines_of(constant)


def compile_kernels(*types: str) -> None:
    """Print the lines of the lowerings that run while kernels of these types are compiled."""
    ran: dict[str, set[int]] = {}
    folder = str(LOWERING)

    def on_line(frame: FrameType, event: str, arg: Any) -> Any:
        ran[frame.f_code.co_filename].add(frame.f_lineno)
        return on_line

    def on_call(frame: FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(folder):
            return None
        ran.setdefault(name, set()).add(frame.f_lineno)
        return on_line

    sys.settrace(on_call)
    for name in types:
        w = kquant.QuantizedTensor.from_numpy(np.ones((16, 256), np.float32), name)
        np.asarray(w)
        for x in (np.ones(256, np.float32), np.ones((256, 20), np.float32)):
            kquant.matmul(w, x)
    sys.settrace(None)
    print(json.dumps({Path(name).name: sorted(lines) for name, lines in ran.items()}))
