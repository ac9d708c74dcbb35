"""Which instruction set is chosen, what follows from it, and what is said where it cannot be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from kquant.errors import OptionError
from kquant.kernels.lowering.isa import tuning
from kquant.kernels.lowering.isa.choice import CHOICE, decide
from kquant.kernels.lowering.isa.target import limited

HASWELL = "+avx,+avx2,-avx512f,+f16c"
SKYLAKE = "+avx,+avx2,+avx512f,+avx512bw,-avx512vnni,+f16c"
ICE_LAKE = "+avx,+avx2,+avx512f,+avx512bw,+avx512vnni,+f16c,+gfni"
OWN = llvm.get_host_cpu_features()


@pytest.mark.parametrize(
    ("asked", "features", "name", "is_model", "allowed"),
    [
        ("native", ICE_LAKE, "vnni", False, ICE_LAKE),
        ("vnni", ICE_LAKE, "vnni", False, ICE_LAKE),
        ("native", SKYLAKE, "avx2", False, SKYLAKE),
        ("native", HASWELL, "avx2", False, HASWELL),
        ("avx2", HASWELL, "avx2", False, HASWELL),
        ("avx2", ICE_LAKE, "avx2", False, ICE_LAKE.replace("+avx512", "-avx512")),
        ("native", "+neon,+fp-armv8", "portable", False, "+neon,+fp-armv8"),
        ("native", "", "portable", False, ""),
        ("portable", ICE_LAKE, "portable", False, ICE_LAKE),
        ("vnni-model", HASWELL, "vnni", True, HASWELL),
        ("avx2-model", ICE_LAKE, "avx2", True, ICE_LAKE),
        ("avx2-model", "+neon", "avx2", True, "+neon"),
    ],
)
def test_choices(asked: str, features: str, name: str, is_model: bool, allowed: str) -> None:
    choice = decide(asked, "a processor", features)
    assert (choice.name, choice.is_model, choice.features) == (name, is_model, allowed)
    assert choice.is_limited == (allowed != features)
    assert choice.tuning is tuning.OTHERS


def test_what_was_measured_on_zen_holds_for_zen() -> None:
    assert decide("native", "znver4", ICE_LAKE).tuning is tuning.ZEN
    assert decide("native", "icelake-server", ICE_LAKE).tuning is tuning.OTHERS


@pytest.mark.parametrize(
    ("asked", "features", "message"),
    [
        ("sse9", HASWELL, "expected one of native, vnni, avx2, portable, vnni-model, avx2-model, got 'sse9'"),
        ("portable-model", HASWELL, "expected one of native"),
        ("AVX2", HASWELL, "expected one of native"),
        ("vnni", HASWELL, r"\(native, avx2, portable\) or one that runs on any \(vnni-model, avx2-model\)"),
        ("avx2", "+neon", r"that this processor has \(native, portable\)"),
    ],
)
def test_what_cannot_be_is_one_clear_error(asked: str, features: str, message: str) -> None:
    with pytest.raises(OptionError, match=f"^KQUANT_ISA: .*{message}"):
        decide(asked, "a processor", features)


def run(isa: str, code: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "KQUANT_ISA": isa, "PYTHONPATH": path, **more}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True)


def test_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(32, np.float32))
    code = "import sys, kquant.cli; sys.exit(kquant.cli.main(['warmup', 'F16']))"
    done = run("sse9", code, KQUANT_CACHE_DIR=str(tmp_path))
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    assert "KQUANT_ISA: expected one of native" in " ".join(done.stderr.split())


def test_an_error_is_the_same_when_it_is_asked_again() -> None:
    code = """
import numpy as np, kquant
for _ in range(2):
    try:
        kquant.quantize(np.zeros(32, np.float32), "Q8_0")
    except kquant.errors.OptionError as error:
        print(error)
"""
    done = run("sse9", "import kquant.errors" + code)
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.startswith("KQUANT_ISA: expected one of native")


def test_the_empty_variable_is_native() -> None:
    code = "from kquant.kernels.lowering.isa.choice import CHOICE; print(CHOICE.name, CHOICE.is_model)"
    assert run("", code).stdout == run("native", code).stdout != ""


@pytest.mark.processors
def test_each_choice_has_a_cache_of_its_own(tmp_path: Path) -> None:
    code = "from kquant.kernels.cache import cache_folder; print(cache_folder())"
    every = ["native", "portable", "vnni-model", "avx2-model"]
    folders = [run(isa, code, KQUANT_CACHE_DIR=str(tmp_path)).stdout for isa in every]
    assert all(folders)
    assert len(set(folders)) == len(every) - (decide("native", "", CHOICE.features).name == "portable")


# ---------------------------------------------------------------- what the other lowerings know

LOWERING = Path(limited.__code__.co_filename).parents[1]
PROCESSOR = re.compile(
    r"vnni|gfni|avx|znver|\bzen\b|llvm\.x86|\.asm\(|nontemporal|\.fence\(|prefetch\.", re.I
)


@pytest.mark.parametrize("path", sorted(LOWERING.glob("*.py")), ids=lambda path: path.stem)
def test_no_other_lowering_names_a_processor_or_an_instruction(path: Path) -> None:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    assert not [f"{path.name}:{n}: {line.strip()}" for n, line in lines if PROCESSOR.search(line)]


# ---------------------------------------------------------------- what LLVM may use

ASSEMBLY = """
from kquant.formats import format_of
from kquant.types import TensorType
driver = format_of(TensorType.Q4_K).decoder.compiled(TensorType.Q4_K)
print(*driver.inspect_asm().values())
"""


@pytest.mark.processors
@pytest.mark.skipif(not OWN.get("avx512f"), reason="this processor has no AVX-512")
def test_avx2_has_no_instruction_of_avx512() -> None:
    wide = re.compile(r"%zmm|%[xy]mm(1[6-9]|2\d|3\d)|\{%k")
    native, narrow = (run(isa, ASSEMBLY, KQUANT_CACHE_DIR="").stdout for isa in ("native", "avx2"))
    assert "%ymm" in narrow
    assert wide.search(native)
    assert not wide.search(narrow)


def test_every_function_of_a_module_is_limited() -> None:
    text = """
@g = global i32 0

define i32 @"a(b)"(i32 dereferenceable(4) %x) local_unnamed_addr #0 {
  ret i32 0
}

define void @c() unnamed_addr {
  ret void
}

define linkonce_odr i32 @d(ptr %f) #1 personality ptr @e {
  ret i32 0
}

declare i32 @e(...)

attributes #0 = { nounwind }
attributes #1 = { noinline }
""".replace("i32 dereferenceable(4) %x", "ptr dereferenceable(4) %x")
    module = llvm.parse_assembly(limited(text, "+avx2,-avx512f"))
    module.verify()
    for function in module.functions:
        says = 'target-features"="+avx2,-avx512f"' in " ".join(str(a) for a in function.attributes)
        assert says != function.is_declaration
    kept = {f.name: [str(a) for a in f.attributes] for f in module.functions}
    assert any("nounwind" in a for a in kept["a(b)"])
    assert any("noinline" in a for a in kept["d"])
