"""Every recorded run of llama-quantize: the same files, byte for byte, or the refusal that kquant owes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

import kquant
from kquant.errors import (
    GGUFError,
    ImatrixError,
    KQuantError,
    OptionError,
    UnknownTypeError,
    UnsupportedTypeError,
)
from support.runs import Run, is_file_type, runs

GOLDEN = [run for run in runs("gguf") if not run.is_dry]
WRITTEN = [run for run in GOLDEN if run.rc == 0 and not run.uses_other_types]
WITHOUT_CODEC = [run for run in GOLDEN if run.rc == 0 and run.uses_other_types]
REFUSED = [run for run in GOLDEN if run.rc]
IN_NUMPY = (
    "llama-odd-f16/Q3_K_M",
    "llama-odd-f16/Q4_K_M+imatrix",
    "llama-odd2-f32/Q5_0",
    "opt/full-imatrix-dat",
)
SMOLLM2 = [run for run in runs("smollm2") if not run.is_dry]


def parametrize(chosen: list[Run]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("run", chosen, ids=lambda run: run.id)


def requantize(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """Carries a run out where it was recorded: a path given to --imatrix is written into the result."""
    monkeypatch.chdir(run.directory)
    kquant.requantize(run.source, folder / "OUT.gguf", run.words[1], **run.options(), **more)


def digests(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def recorded(run: Run) -> dict[str, str]:
    """What llama-quantize left behind, as `digests` has it."""
    if "files_out" in run.record:
        return {file["file"]: file["sha256"] for file in run.record["files_out"]}
    return {"OUT.gguf": run.record["sha256"]}


def test_every_run_of_the_record_has_its_test() -> None:
    assert len(WRITTEN) + len(WITHOUT_CODEC) + len(REFUSED) == len(GOLDEN)
    assert (len(WRITTEN), len(WITHOUT_CODEC), len(REFUSED)) == (446, 217, 85)
    assert {run.words[1].upper() for run in WRITTEN} >= set(kquant.FileType.__members__) - {"Q3_K"}


@parametrize(WRITTEN)
def test_the_file_is_llama_quantizes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requantize(run, tmp_path, monkeypatch)
    assert digests(tmp_path) == recorded(run)


@pytest.mark.slow
@parametrize([run for run in WRITTEN if run.id in IN_NUMPY])
def test_the_file_is_the_same_in_the_other_execution(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KQUANT_EXECUTION", "numpy")
    requantize(run, tmp_path, monkeypatch)
    assert digests(tmp_path) == recorded(run)


@pytest.mark.slow
@pytest.mark.demo
@parametrize(SMOLLM2)
def test_a_real_model(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requantize(run, tmp_path, monkeypatch)
    assert digests(tmp_path) == recorded(run)


@parametrize(WITHOUT_CODEC)
def test_a_type_without_codec_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error: type[KQuantError] = UnsupportedTypeError
    message = r": cannot quantize to (IQ|NVFP|MXFP|TQ|Q[12]_0).*no codec"
    if not is_file_type(run.words[1]):
        error, message = UnsupportedTypeError, rf"^kquant cannot make {run.words[1]} files yet; it makes F32"
    with pytest.raises(error, match=message):
        requantize(run, tmp_path, monkeypatch)
    assert not digests(tmp_path)


# what llama-quantize said -> what kquant raises
REFUSALS: dict[str, tuple[type[KQuantError], str]] = {
    "this quantization requires an imatrix": (
        ImatrixError,
        r"^blk\.0\..* more tensors: Q2_K in a Q2_K_S file needs importance weights, got none; give an ",
    ),
    "imatrix size 512 is different from tensor size 256": (
        ImatrixError,
        r"^blk\.0\.attn_k\.weight: expected 256 importance weights, got 512 in imatrix/llama-mha\.gguf; are ",
    ),
    "failed to open imatrix/none.gguf": (ImatrixError, r"imatrix/none\.gguf: .*No such file"),
    "invalid ftype": (UnknownTypeError, r"^unknown file type 'Q9_Z'; known: F32, "),
    "requantizing from type q8_0 is disabled": (
        OptionError,
        r" requantizing from Q8_0 is disabled, .*--allow-",
    ),
    "requantizing from type q4_K is disabled": (
        OptionError,
        r" requantizing from Q4_K is disabled, .*--allow-",
    ),
    "illegal split file idx: 1": (
        GGUFError,
        r"expected the first of the 3 shards of the model, got number 2 ",
    ),
}
# where llama-quantize only prints its usage
REFUSED_OPTIONS: dict[str, tuple[type[KQuantError], str]] = {
    "opt/include+exclude": (OptionError, r"include_weights"),
    "opt/bad-output-type": (UnknownTypeError, r"^unknown tensor type 'q9'; known: F32, "),
    "opt/bad-tensor-type": (UnknownTypeError, r"^unknown tensor type 'q9'; known: F32, "),
}


@parametrize(REFUSED)
def test_what_llama_quantize_refuses_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error: type[KQuantError]
    if run.words[1] != "Q9_Z" and not is_file_type(run.words[1]):
        error, message = UnsupportedTypeError, rf"^kquant cannot make {run.words[1]} files yet"
    elif run.id in REFUSED_OPTIONS:
        error, message = REFUSED_OPTIONS[run.id]
    else:
        error, message = next(to for said, to in REFUSALS.items() if said in run.record["error"])
    with pytest.raises(error, match=message):
        requantize(run, tmp_path, monkeypatch)
    assert not digests(tmp_path)
