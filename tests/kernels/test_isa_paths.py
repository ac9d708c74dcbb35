"""What kernels compute does not depend on the instruction set that they are compiled for.

Each path runs in a process of its own: kernels are compiled one way or the other, once for all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import TypeAlias

import llvmlite.binding as llvm
import numpy as np
import pytest

import kquant
from kquant.formats import format_of, has_format
from kquant.kernels.execute import WHOLE, Execution, aligned_empty
from support import golden
from support.compare import assert_same_bytes, assert_same_floats
from support.statements import counted

Statement: TypeAlias = tuple[str, int]

BOTH: tuple[Execution, ...] = ("numba", "numpy")
LOWERING = Path(kquant.__file__).parent / "kernels" / "lowering"
HOST = llvm.get_host_cpu_features()
NEEDED = {"vnni": ("avx512bw", "avx512vnni"), "avx2": ("avx2",)}

COMPILED = (
    "_nearest_quotient_as_it_stands",
    "_update_as_it_stands",
    "_update_rows_as_it_stands",
    "float_of_half",
    "half_bits_of_number",
)
"""Functions of the lowerings that Numba compiles: Python does not run them."""

pytestmark = [pytest.mark.processors, pytest.mark.slow]

CHILD = """
import json, sys
from support.statements import count_statements
job, name, compiled = sys.argv[1:]
ran = count_statements("kquant.kernels.lowering", compiled.split(","))
from kquant.kernels.lowering.isa import tuning
if name != "own":  # before anything asks
    found = getattr(tuning, name)
    tuning.of_processor = lambda processor: found
from kernels import test_isa_paths
getattr(test_isa_paths, job)()
print(json.dumps(sorted(ran)))
"""


@cache
def statements_of(job: str, isa: str, tuning: str, folder: Path, **environment: str) -> frozenset[Statement]:
    """Run a function of this module in a process of its own: the statements of the lowerings that ran.

    Kernels are compiled, not taken from the cache on disk.  The answer is kept in the folder, for tests in
    other processes.
    """
    kept = folder / f"{job}-{isa}-{tuning}.json"
    if not kept.exists():
        tests = Path(__file__).parents[1]
        folders = os.pathsep.join([str(tests.parent), str(tests)])
        done = subprocess.run(
            [sys.executable, "-c", CHILD, job, tuning, ",".join(COMPILED)],
            env={
                **os.environ,
                "KQUANT_ISA": isa,
                "KQUANT_CACHE_DIR": "",
                "PYTHONPATH": folders,
                **environment,
            },
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(done.stdout)
        part.replace(kept)
    return frozenset((name, line) for name, line in json.loads(kept.read_text()))


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


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
        numba, numpy = (kquant.vec_dot(*rows, execution=execution) for execution in BOTH)
        assert_same_floats(numba, numpy, name)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((20, 512), np.float32)
    x = rng.standard_normal((512, 23), np.float32)
    for name in TYPES:
        w = kquant.QuantizedTensor.from_numpy(weights, name)
        for columns in (x, x[:, 0]):
            numba, numpy = (kquant.matmul(w, columns, execution=execution) for execution in BOTH)
            assert_same_floats(numba, numpy, name)
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
                assert_same_bytes(packed[0], packed[1], t.name)
        for large in (False, True):
            unpacked = [aligned_empty(x.shape, np.float32) for _ in BOTH]
            for values, execution in zip(unpacked, BOTH, strict=True):
                own.decoder(t, packed[0], values, execution, large=large)
            assert_same_floats(unpacked[0], unpacked[1], t.name)


def run_operations() -> None:
    """The tests of the kernel language: every operation beside its NumPy meaning."""
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    language = str(Path(__file__).parent / "language")
    with redirect_stdout(sys.stderr):
        code = pytest.main([language, "-q", "-x", "-p", "no:cacheprovider", "-k", "not a_processor_without"])
    assert code == pytest.ExitCode.OK


JOBS = ["compare_products", "compare_formats", "run_operations"]


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(("isa", "tuning"), PATHS)
def test_a_path_gives_the_bits_of_numpy(isa: str, tuning: str, job: str, folder: Path) -> None:
    if not all(HOST.get(feature) for feature in NEEDED.get(isa, ())):
        pytest.skip(f"this processor has no {isa}")
    statements_of(job, isa, tuning, folder)


# ---------------------------------------------------------------- every statement


def convert_halves() -> None:
    """On a processor that cannot convert fp16."""
    from kquant.kernels.lowering.isa.facts import CONVERTS_HALVES

    assert not CONVERTS_HALVES
    x = np.array([[0.1, 65504, 1e-8]], np.float32)
    assert_same_floats(kquant.dequantize(kquant.quantize(x, "F16"), "F16"), x.astype("f2").astype("f4"))


def test_every_statement_of_the_lowerings_runs_on_any_processor(folder: Path) -> None:
    """Models, portable code and a processor that knows little: together they leave nothing out."""
    ran: set[Statement] = set()
    for job in JOBS:
        for isa, tuning in PATHS:
            if isa.endswith("model") or isa == "portable":
                ran |= statements_of(job, isa, tuning, folder)
    ran |= statements_of(
        "convert_halves", "portable", "own", folder, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=""
    )
    left: dict[str, str] = {}
    for path in sorted(LOWERING.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        _, statements = counted(source, path.name, COMPILED)
        lines = source.splitlines()
        left |= {f"{name}:{n}": lines[n - 1].strip() for name, n in sorted(statements - ran)}
    assert left == {}
