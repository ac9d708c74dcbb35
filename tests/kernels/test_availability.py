"""Python without a compiler: NumPy carries the kernels out, with the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

CODE = """
import hashlib, kquant, numpy as np
x = np.random.default_rng(0).standard_normal((8, 512), dtype=np.float32)
digest = hashlib.sha256()
for name in ("Q4_K", "Q3_K", "Q5_1", "Q8_0", "BF16"):
    w = kquant.QuantizedTensor.from_numpy(x, name)
    digest.update(w.data)
    digest.update(w.numpy())
    digest.update(np.asarray(kquant.quantize(x, name, imatrix=np.arange(512) + 1) if name == "Q4_K" else 0))
    digest.update(kquant.matmul(w, x[:3].T).copy())
print(digest.hexdigest())
"""


def answer(code: str, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_compiler_the_bytes_are_the_same() -> None:
    assert answer(CODE, NUMBA_DISABLE_JIT="1") == answer(CODE)


@pytest.mark.parametrize(
    "call", ["kquant.quantize([[1.0] * 32], 'Q8_0', execution='numba')", "warm_up(jobs(['Q8_0']))"]
)
def test_who_asks_for_the_compiler_is_told_that_there_is_none(call: str) -> None:
    code = f"""
import kquant
from kquant.products.warming import jobs, warm_up
try:
    {call}
except kquant.OptionError as error:
    print(error)
"""
    assert answer(code, NUMBA_DISABLE_JIT="1").rstrip().endswith(", got NUMBA_DISABLE_JIT")
