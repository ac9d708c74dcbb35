"""Whatever happens, a file under the final name is whole, the source is untouched, and the error is clear."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.errors import (
    GGUFError,
    GGUFTruncatedError,
    InvalidDataError,
    OptionError,
    OutOfRangeError,
    OutputError,
    UnsupportedTypeError,
)
from support.processes import interruptible
from support.small_models import heavy_tailed, packed, raw, write_model

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX only")
ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to mount")

TENSORS = ("blk.0.attn_q.weight", "blk.0.ffn_down.weight", "blk.0.ffn_up.weight")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model of 768 rows, in a folder of its own."""
    folder = tmp_path / "source"
    folder.mkdir()
    tensors = {name: packed(heavy_tailed(256, 256, seed=i), "F16") for i, name in enumerate(TENSORS)}
    return write_model(folder / "in.gguf", tensors)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where something that is worth keeping already is."""
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "out.gguf").write_bytes(b"precious")
    return folder / "out.gguf"


@pytest.fixture(autouse=True)
def nothing_is_lost(source: Path, target: Path) -> Iterator[None]:
    """Holds for every test of this file that does not say otherwise."""
    before = source.read_bytes()
    yield
    assert not list(source.parent.glob(".*"))
    assert not list(target.parent.glob(".*.part"))
    if target.read_bytes() != b"precious":
        with kquant.open(target) as model:
            assert tuple(model.tensors) == TENSORS
    assert source.read_bytes()[: len(before)] == before[: source.stat().st_size]


def assert_kept(target: Path) -> None:
    assert target.read_bytes() == b"precious"
    assert list(target.parent.iterdir()) == [target]


def stop_at(n_bytes: int, error: BaseException | type[BaseException]) -> Callable[[int, int], None]:
    """Progress that raises when so many bytes are done."""

    def progress(done: int, _: int) -> None:
        if done >= n_bytes:
            raise error

    return progress


# ---------------------------------------------------------------- it works, first of all


def test_the_result_replaces_what_was_there(source: Path, target: Path) -> None:
    kquant.requantize(source, target, "Q8_0")
    with kquant.open(target) as model:
        assert [t.type.name for t in model.tensors.values()] == ["Q8_0"] * 3


def test_paths_may_be_texts(source: Path, target: Path) -> None:
    kquant.requantize(str(source), str(target), "Q8_0")


def test_an_open_file_is_a_source_and_stays_open(source: Path, target: Path) -> None:
    with kquant.open(source) as model:
        kquant.requantize(model.file, target, "Q8_0")
        assert model.tensors[TENSORS[0]].numpy().shape == (256, 256)


# ---------------------------------------------------------------- stopped in the middle


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize("name", ["out.gguf", "new.gguf"])
def test_kill_9(name: str, source: Path, target: Path) -> None:
    """The process is killed when a third is done; what was there stays, a second run succeeds."""
    path = target.with_name(name)
    code = (
        "import sys, kquant\n"
        "def progress(done, total):\n"
        "    if done > total // 3 and sys.argv[3] == 'wait': print('third', flush=True); sys.stdin.read()\n"
        "kquant.requantize(*sys.argv[1:3], 'Q8_0', threads=1, slab_elements=4096, progress=progress)"
    )
    command = [sys.executable, "-c", code, str(source), str(path)]
    with subprocess.Popen([*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"third\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"precious"
    left = set(target.parent.iterdir()) - {target}
    assert len(left) == 1  # nobody can clean up after a kill; the name says what it is
    assert next(iter(left)).match(f".{name}.*.part")
    subprocess.run([*command, "go on"], check=True)
    with kquant.open(path) as model:
        assert len(model.tensors) == 3
    next(iter(left)).unlink()


@pytest.mark.slow
@POSIX
def test_an_interrupt_of_the_process(source: Path, target: Path) -> None:
    """Ctrl-C while the work goes on: the process cleans up, and ends as Python ends."""
    code = (
        "import sys, time, kquant\n"
        "def progress(done, total):\n"
        "    if done > total // 3: print('third', flush=True); time.sleep(60)\n"
        "kquant.requantize(*sys.argv[1:3], 'Q8_0', threads=1, slab_elements=4096, progress=progress)"
    )
    command = [sys.executable, "-c", code, str(source), str(target)]
    with interruptible(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"third\n"
        process.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert process.returncode == -signal.SIGINT
    assert_kept(target)


@pytest.mark.parametrize("when", [0, 1, 200_000, 3 * 256 * 512], ids="{} bytes".format)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("the caller's own"), SystemExit], ids=repr)
def test_what_progress_raises(
    error: BaseException | type[BaseException], when: int, source: Path, target: Path
) -> None:
    expected = error if isinstance(error, type) else type(error)
    with pytest.raises(expected):
        kquant.requantize(source, target, "Q8_0", slab_elements=4096, progress=stop_at(when, error))
    assert_kept(target)


def test_an_executor_that_gives_up(source: Path, target: Path) -> None:
    with ThreadPoolExecutor(1) as executor:

        def progress(done: int, _: int) -> None:
            if done:
                executor.shutdown(wait=False)

        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            kquant.requantize(
                source, target, "Q8_0", executor=executor, threads=1, slab_elements=4096, progress=progress
            )
    assert_kept(target)


# ---------------------------------------------------------------- no space, no place


@POSIX
@pytest.mark.parametrize("function", ["posix_fallocate", "ftruncate", "pwrite", "fsync"])
def test_full_disk(
    function: str, source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, function, full, raising=False)
    with pytest.raises(
        OutputError, match=r"out\.gguf: cannot write \d+ bytes: No space left on device$"
    ) as caught:
        kquant.requantize(source, target, "Q8_0", slab_elements=4096)
    assert str(caught.value).startswith(f"{target}: ")
    assert_kept(target)


@POSIX
def test_a_disk_that_fills_up_during_the_run(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, pwrite = [0], os.pwrite

    def fills_up(fd: int, data: Any, offset: int) -> int:
        written[0] += len(data)
        if written[0] > 50_000:
            raise OSError(28, os.strerror(28))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", fills_up)
    with pytest.raises(OutputError, match="No space left on device"):
        kquant.requantize(source, target, "Q8_0", slab_elements=4096)
    assert_kept(target)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@LINUX
@ROOT
def test_a_disk_that_is_full_indeed(source: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=100k") as disk:
        (disk / "out.gguf").write_bytes(b"precious")
        with pytest.raises(
            OutputError, match=r"disk/out\.gguf: cannot write \d+ bytes: No space left on device$"
        ):
            kquant.requantize(source, disk / "out.gguf", "Q8_0")
        assert_kept(disk / "out.gguf")


@POSIX
def test_a_limit_on_the_size_of_files(source: Path, target: Path) -> None:
    """A real refusal of the system for everyone, in a process of its own."""
    code = (
        "import resource, signal, sys, kquant\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: kquant.requantize(sys.argv[1], sys.argv[2], 'Q8_0')\n"
        "except kquant.OutputError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(source), str(target)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"{target}: cannot write ")
    assert done.stdout.endswith(" bytes: File too large\n")
    assert_kept(target)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "expected a regular file or a new name"),
        ("missing/out.gguf", "expected a file in a folder that exists, got no folder .*missing"),
        ("out.gguf/out.gguf", "expected a file in a folder that exists, got no folder .*out.gguf"),
        pytest.param("n" * 300, "cannot be written: File name too long", marks=POSIX),
        pytest.param("loop", "cannot be written: Too many levels of symbolic links", marks=POSIX),
    ],
    ids=["directory", "no directory", "file as directory", "long name", "loop of links"],
)
def test_targets_that_cannot_be(path: str, reason: str, source: Path, target: Path) -> None:
    if path == "loop":
        (target.parent / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match=rf": {reason}$") as caught:
        kquant.requantize(source, target.parent / path, "Q8_0")
    assert str(caught.value).startswith(f"{target.parent / path}: ")
    assert target.read_bytes() == b"precious"


@POSIX
def test_a_folder_that_may_not_be_written_to(source: Path) -> None:
    """In a process of its own, which drops the rights of root if it has them."""
    code = (
        "import os, sys; sys.path[:0] = sys.argv[3:]\n"
        "import kquant.convert.run\n"
        "with kquant.open(sys.argv[1]) as model:\n"
        "    kquant.plan(model.file, 'Q8_0')  # has loaded what root alone may read\n"
        "    if os.geteuid() == 0: os.seteuid(65534)\n"
        "    try: kquant.requantize(model.file, sys.argv[2], 'Q8_0')\n"
        "    except kquant.OutputError as error: print(error)"
    )
    with tempfile.TemporaryDirectory() as folder:  # one that others may enter
        path = Path(folder, "out.gguf")
        path.write_bytes(b"precious")
        path.chmod(0o666)
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", code, str(source), str(path), *sys.path]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        Path(folder).chmod(0o755)
        assert done.stdout.startswith(f"{path}: expected a folder that can be written to, got {folder}: ")
        assert_kept(path)


@LINUX
@ROOT
def test_a_disk_that_is_read_only(source: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        (disk / "out.gguf").write_bytes(b"precious")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for name in ("new.gguf", "out.gguf"):
            with pytest.raises(OutputError, match=rf"disk/{name}: expected a folder that can be written to"):
                kquant.requantize(source, disk / name, "Q8_0")
        assert_kept(disk / "out.gguf")


# ---------------------------------------------------------------- originals as the target


@pytest.mark.parametrize("type_name", ["F16", "BF16", "F32"])
def test_an_original_is_replaced_only_if_asked(
    type_name: str, source: Path, target: Path, tmp_path: Path
) -> None:
    original = write_model(tmp_path / "g2.gguf", {"w.weight": packed(heavy_tailed(256, 256), type_name)})
    before = original.read_bytes()
    message = rf"^{original}: expected a new name .*: 100.0 % of its bytes are {type_name}; .*--overwrite"
    with pytest.raises(OutputError, match=message):
        kquant.requantize(source, original, "Q8_0")
    assert original.read_bytes() == before
    kquant.requantize(source, original, "Q8_0", overwrite=True)
    kquant.requantize(source, target, "Q8_0")
    assert original.read_bytes() == target.read_bytes()


def test_a_download_of_an_original_is_one(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "g2.gguf"
    other.write_bytes(source.read_bytes()[:1000])
    with pytest.raises(OutputError, match="got an original"):
        kquant.requantize(source, other, "Q8_0")


@pytest.mark.parametrize("file_type", ["Q8_0", "F16", "BF16", "F32", "COPY"])
def test_results_of_earlier_runs_are_replaced(file_type: str, source: Path, tmp_path: Path) -> None:
    """As llama-quantize does it, also where most of them is not quantized."""
    result = tmp_path / "result.gguf"
    kquant.requantize(source, result, file_type)
    first = result.read_bytes()
    kquant.requantize(source, result, file_type)
    assert result.read_bytes() == first
    kquant.requantize(source, result, "Q4_0", overwrite=file_type != "Q8_0")
    assert len(result.read_bytes()) < len(first)


def test_a_target_with_a_nul(source: Path) -> None:
    with pytest.raises(OutputError, match="expected a path without a NUL, got '"):
        kquant.requantize(source, "a\0b", "Q8_0")


def test_a_shard_of_an_original_is_kept(source: Path, tmp_path: Path) -> None:
    shard = tmp_path / "out-00001-of-00001.gguf"
    write_model(shard, {"w.weight": packed(heavy_tailed(256, 256), "F16")})
    with pytest.raises(OutputError, match=f"^{shard}: .* got an original"):
        kquant.requantize(source, tmp_path / "out.gguf", "Q8_0", keep_split=True)


# ---------------------------------------------------------------- the source as the target


def same(source: Path) -> Path:
    return source


def roundabout(source: Path) -> Path:
    return source.parent / ".." / source.parent.name / source.name


def symbolic_link(source: Path) -> Path:
    link = source.with_name("symlink.gguf")
    link.symlink_to(source)
    return link


def hard_link(source: Path) -> Path:
    link = source.with_name("hardlink.gguf")
    link.hardlink_to(source)
    return link


@POSIX
@pytest.mark.parametrize("alias", [same, roundabout, symbolic_link, hard_link])
def test_the_source_itself(alias: Callable[[Path], Path], source: Path) -> None:
    path = alias(source)
    before = sorted(source.parent.iterdir())
    with pytest.raises(
        OutputError, match=r": expected another file than the source, got the source itself$"
    ) as caught:
        kquant.requantize(source, path, "Q8_0")
    assert str(caught.value).startswith(f"{path}: ")
    assert sorted(source.parent.iterdir()) == before


@POSIX
@pytest.mark.parametrize("alias", [same, symbolic_link])
def test_the_importance_matrix(alias: Callable[[Path], Path], tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden/gguf"
    before = (golden / "imatrix/llama-slim.gguf").read_bytes()
    imatrix = tmp_path / "weights.gguf"
    imatrix.write_bytes(before)
    refusal = ": expected another file than the importance matrix, got the importance matrix itself$"
    with pytest.raises(OutputError, match=refusal):
        kquant.requantize(golden / "models/llama-slim-f16.gguf", alias(imatrix), "Q4_K_M", imatrix=imatrix)
    assert imatrix.read_bytes() == before


def test_a_shard_of_the_source(tmp_path: Path) -> None:
    split = Path(__file__).parents[1] / "golden/gguf/split"
    for shard in split.iterdir():
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
    first = tmp_path / "llama-slim-f16-00001-of-00003.gguf"
    for path, keep_split in (
        (tmp_path / "llama-slim-f16-00002-of-00003.gguf", False),
        (tmp_path / "llama-slim-f16.gguf", True),
    ):
        with pytest.raises(OutputError, match="got the source itself"):
            kquant.requantize(first, path, "Q8_0", keep_split=keep_split)
    for shard in split.iterdir():
        assert (tmp_path / shard.name).read_bytes() == shard.read_bytes()


# ---------------------------------------------------------------- a source that is not what it seems


def test_no_source(target: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.gguf"):
        kquant.requantize(target.with_name("missing.gguf"), target, "Q8_0")
    assert_kept(target)


@pytest.mark.parametrize("kept", [0, 3, 20, 100, 0.5, 0.999], ids=str)
def test_a_source_that_is_cut_off(kept: float, source: Path, target: Path, tmp_path: Path) -> None:
    whole = source.read_bytes()
    short = tmp_path / "short.gguf"
    short.write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(GGUFTruncatedError if kept else GGUFError, match=r"short\.gguf: ") as caught:
        kquant.requantize(short, target, "Q8_0")
    assert "expected" in str(caught.value)
    assert "got" in str(caught.value)
    assert_kept(target)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [False, True])
def test_a_source_that_shrinks_during_the_run(processes: bool, source: Path, target: Path) -> None:
    with kquant.open(source) as model:
        end = model.file.tensors[TENSORS[-1]].offset + 100

    def cut_off(done: int, _: int) -> None:
        if done:
            os.truncate(source, end)

    message = (
        rf"in\.gguf: tensor '{TENSORS[-1]}': expected 8192 bytes from byte \d+, got \d+: .* has shrunk since"
    )
    with (
        ProcessPoolExecutor(1, spawn()) if processes else ThreadPoolExecutor(1) as executor,
        pytest.raises(GGUFTruncatedError, match=message),
    ):
        kquant.requantize(
            source, target, "Q8_0", executor=executor, threads=1, slab_elements=4096, progress=cut_off
        )
    assert source.stat().st_size == end
    assert_kept(target)


def spawn() -> Any:
    return multiprocessing.get_context("spawn")


@POSIX
def test_a_source_that_vanishes_during_the_run(source: Path, target: Path) -> None:
    kept = source.read_bytes()

    def remove(done: int, _: int) -> None:
        if done:
            source.unlink(missing_ok=True)

    with pytest.raises(FileNotFoundError, match=r"in\.gguf"):
        kquant.requantize(source, target, "Q8_0", threads=1, slab_elements=4096, progress=remove)
    assert_kept(target)
    source.write_bytes(kept)


# ---------------------------------------------------------------- numbers that are none

ROW = 512


def model_with(path: Path, type_name: str, value: float, at: tuple[int, int], n_rows: int = 40) -> Path:
    """A sound tensor, and one with that value."""
    x = heavy_tailed(n_rows, ROW)
    tensors = {"blk.0.attn_q.weight": packed(x, type_name)}
    x = x.astype({"F16": "f2", "F32": "f4"}.get(type_name, "f4"))
    x[at] = value
    if type_name == "BF16":
        x = (x.view(np.uint32) >> 16).astype(np.uint16)
    tensors["blk.0.ffn_up.weight"] = raw(x, type_name)
    return write_model(path, tensors)


@pytest.mark.parametrize("slab_elements", [100, 1 << 17])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("to", ["Q4_K", "F16", "F32", "COPY"])
def test_a_value_that_is_no_number(
    type_name: str, value: float, to: str, slab_elements: int, target: Path, tmp_path: Path
) -> None:
    """Also where the tensor is only copied."""
    path = model_with(tmp_path / "in.gguf", type_name, value, (33, 300))
    with pytest.raises(
        InvalidDataError,
        match=r"/in\.gguf: tensor 'blk\.0\.ffn_up\.weight': "
        rf"{type_name}: expected finite numbers, got NaN or infinity for x in row 33, block 300$",
    ):
        kquant.requantize(path, target, to, slab_elements=slab_elements)
    assert_kept(target)


@pytest.mark.parametrize("slab_elements", [100, 1 << 17])
def test_a_scale_that_is_no_number(slab_elements: int, target: Path, tmp_path: Path) -> None:
    data, t = packed(heavy_tailed(40, ROW), "Q8_0")
    data[33, 34 * 9 : 34 * 9 + 2] = 0x00, 0x7C
    path = write_model(tmp_path / "in.gguf", {"blk.0.ffn_up.weight": (data, t)})
    with pytest.raises(
        InvalidDataError,
        match=r"'blk\.0\.ffn_up\.weight': Q8_0: .* NaN or infinity for d in row 33, block 9$",
    ):
        kquant.requantize(path, target, "Q4_K", allow_requantize=True, slab_elements=slab_elements)
    assert_kept(target)


@pytest.mark.parametrize("slab_elements", [100, 1 << 17])
@pytest.mark.parametrize(
    ("value", "to", "limit"),
    [
        (1e6, "F16", "which ends at 65504; Q8_0, BF16 or F32 can hold it"),
        (1e38, "Q8_0", "whose blocks end at about 8.385e+06 (d is fp16); BF16 or F32 can hold it"),
        (-1e8, "Q4_0", "whose blocks end at about 5.24e+05 (d is fp16); BF16 or F32 can hold it"),
        (1e10, "Q6_K", "whose blocks end at about 2.683e+08 (d is fp16); BF16 or F32 can hold it"),
    ],
)
def test_a_value_that_the_result_cannot_hold(
    value: float, to: str, limit: str, slab_elements: int, target: Path, tmp_path: Path
) -> None:
    """llama-quantize finds it by ggml_validate_row_data, too."""
    path = model_with(tmp_path / "in.gguf", "F32", value, (33, 300))
    sentence = re.escape(f"{value:.5g} in row 33, column 300 is beyond {to}, {limit}")
    with pytest.raises(OutOfRangeError, match=rf"/in\.gguf: tensor 'blk\.0\.ffn_up\.weight': {sentence}$"):
        kquant.requantize(path, target, to, slab_elements=slab_elements)
    assert_kept(target)


@pytest.mark.slow
def test_an_error_in_another_process(target: Path, tmp_path: Path) -> None:
    path = model_with(tmp_path / "in.gguf", "F16", np.nan, (33, 300))
    with (
        ProcessPoolExecutor(1, spawn()) as executor,
        pytest.raises(InvalidDataError, match=r"for x in row 33, block 300$"),
    ):
        kquant.requantize(path, target, "Q8_0", executor=executor)
    assert_kept(target)


# ---------------------------------------------------------------- before anything is written


@pytest.mark.parametrize(
    ("file_type", "options", "error"),
    [
        ("Q4_K_M", {"override_kv": ["nonsense"]}, OptionError),
        ("Q4_K_M", {"output_tensor_type": "IQ2_XXS", "tensor_types": ["ffn=iq4_xs"]}, UnsupportedTypeError),
        ("Q2_K_S", {}, kquant.ImatrixError),
        ("Q9_K", {}, kquant.UnknownTypeError),
    ],
)
def test_a_plan_that_cannot_be(
    file_type: str, options: Any, error: type[Exception], source: Path, target: Path
) -> None:
    with pytest.raises(error):
        kquant.requantize(source, target, file_type, **options)
    assert_kept(target)
