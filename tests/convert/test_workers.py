"""The result is the same whoever does the work, in slabs of whatever size; progress tells the truth."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import kquant
from kquant.convert import slabs as conversion
from kquant.errors import OptionError
from support.runs import Run, run
from support.small_models import heavy_tailed, packed, write_model

RUNS = [run("llama-moe-f16/Q4_K_M+imatrix"), run("llama-odd-f16/Q2_K"), run("opt/prune-2+COPY")]
runs = pytest.mark.parametrize("run", RUNS, ids=lambda run: run.id)


class AtOnce(Executor):
    """Does the work when it is submitted, on the thread that submits it."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class LastFirst(AtOnce):
    """Finishes a few tasks at a time, the youngest of them first."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: function(*args, **kwargs)))
        if len(self.waiting) == 4:
            while self.waiting:
                late, task = self.waiting.pop()
                late.set_result(task())
        return future


@pytest.fixture
def expected(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The result of a run with the defaults; another test shows that it is llama-quantize's."""
    monkeypatch.chdir(run.directory)
    kquant.requantize(run.source, tmp_path / "plain.gguf", run.words[1], **run.options())
    return (tmp_path / "plain.gguf").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"threads": 1},
        {"threads": 2},
        {"threads": 5},
        {"slab_elements": 1},
        {"slab_elements": 4096},
        {"slab_elements": 1 << 40},
        {"slab_elements": 1000, "threads": 3},
    ],
    ids=str,
)
@runs
def test_threads_and_slabs(run: Run, how: dict[str, Any], expected: bytes, tmp_path: Path) -> None:
    kquant.requantize(run.source, tmp_path / "out.gguf", run.words[1], **run.options(), **how)
    assert (tmp_path / "out.gguf").read_bytes() == expected


@runs
def test_an_executor_of_the_callers(run: Run, expected: bytes, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as executor:
        for _ in range(2):  # it is left open
            kquant.requantize(
                run.source, tmp_path / "out.gguf", run.words[1], executor=executor, **run.options()
            )
            assert (tmp_path / "out.gguf").read_bytes() == expected


@runs
def test_a_pool_of_the_callers(run: Run, expected: bytes, tmp_path: Path) -> None:
    with kquant.Pool(3) as pool:
        hows: list[dict[str, Any]] = [{"threads": 2}, {}]
        for how in hows:  # it is left open
            kquant.requantize(
                run.source, tmp_path / "out.gguf", run.words[1], pool=pool, **how, **run.options()
            )
            assert (tmp_path / "out.gguf").read_bytes() == expected
        with pytest.raises(OptionError, match=r"^requantize: expected an executor or a pool, got both$"):
            kquant.requantize(run.source, tmp_path / "out.gguf", "Q8_0", pool=pool, executor=pool)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"pool": 2}, "pool: expected a kquant.Pool, got int"),
        ({"pool": pool, "threads": 1}, "pool: expected an open one, got one that is closed"),
        ({"threads": 1.5}, "threads: expected a whole number, got 1.5"),
        ({"slab_elements": "9"}, "slab_elements: expected a whole number, got '9'"),
    ]
    for given, message in wrong:
        with pytest.raises(OptionError, match=f"^{message}$"):
            kquant.requantize(run.source, tmp_path / "none.gguf", "Q8_0", **given)


@runs
def test_an_executor_without_threads(run: Run, expected: bytes, tmp_path: Path) -> None:
    executor = AtOnce()
    kquant.requantize(run.source, tmp_path / "out.gguf", run.words[1], executor=executor, **run.options())
    assert (tmp_path / "out.gguf").read_bytes() == expected
    assert executor.submitted > 10


def test_results_in_any_order(tmp_path: Path) -> None:
    tensors = {f"blk.0.{name}.weight": packed(heavy_tailed(16, 256), "F16") for name in ("attn_q", "ffn_up")}
    source = write_model(tmp_path / "in.gguf", tensors)
    kquant.requantize(source, tmp_path / "plain.gguf", "Q8_0")
    executor = LastFirst()
    kquant.requantize(source, tmp_path / "out.gguf", "Q8_0", executor=executor, slab_elements=1024, threads=1)
    assert executor.submitted == 8
    assert (tmp_path / "out.gguf").read_bytes() == (tmp_path / "plain.gguf").read_bytes()


@pytest.mark.slow
def test_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs and results travel: this is how a cluster would do it."""
    case = run("opt/moe-imatrix-dat")
    monkeypatch.chdir(case.directory)
    kquant.requantize(case.source, tmp_path / "plain.gguf", case.words[1], **case.options())
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        kquant.requantize(
            case.source, tmp_path / "out.gguf", case.words[1], executor=executor, **case.options()
        )
    assert (tmp_path / "out.gguf").read_bytes() == (tmp_path / "plain.gguf").read_bytes()


@pytest.mark.parametrize("threads", [0, -2])
def test_no_threads(threads: int, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=rf"^threads: expected at least 1, got {threads}$"):
        kquant.requantize(RUNS[0].source, tmp_path / "out.gguf", "Q8_0", threads=threads)
    assert not list(tmp_path.iterdir())


def test_no_slabs(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^slab_elements: expected at least 1, got 0$"):
        kquant.requantize(RUNS[0].source, tmp_path / "out.gguf", "Q8_0", slab_elements=0)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- progress


@pytest.mark.slow
@pytest.mark.parametrize("slab_elements", [1, 4096, 1 << 40])
@runs
def test_progress(run: Run, slab_elements: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.directory)
    seen: list[tuple[int, int]] = []
    plan = kquant.requantize(
        run.source,
        tmp_path / "out.gguf",
        run.words[1],
        progress=lambda done, total: seen.append((done, total)),
        slab_elements=slab_elements,
        **run.options(),
    )
    assert seen[0] == (0, plan.bytes)
    assert seen[-1] == (plan.bytes, plan.bytes)
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {plan.bytes}


def test_progress_of_nothing(tmp_path: Path) -> None:
    source = write_model(tmp_path / "in.gguf", {})
    seen: list[tuple[int, int]] = []
    kquant.requantize(source, tmp_path / "out.gguf", "Q4_K_M", progress=lambda *bytes_: seen.append(bytes_))
    assert set(seen) == {(0, 0)}
    with kquant.open(tmp_path / "out.gguf") as model:
        assert len(model.tensors) == 0
        assert model.metadata["general.file_type"] == 15


# ---------------------------------------------------------------- reading ahead

needs_fadvise = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no such advice")


@needs_fadvise
@runs
def test_what_will_be_read_is_asked_for_before(
    run: Run, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never more than so many bytes ahead, and everything once."""
    asked: list[tuple[int, int]] = []
    read = []

    def advise(file: int, offset: int, n_bytes: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        asked.append((offset, n_bytes))

    class Reader(AtOnce):
        def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            read.append((args[0].offset, args[0].nbytes))
            assert asked[: len(read)] == read
            assert sum(n for _, n in asked[len(read) :]) <= 20_000 + asked[-1][1]
            return super().submit(function, *args, **kwargs)

    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr(conversion, "READ_AHEAD", 20_000)
    target = tmp_path / "result.gguf"
    kquant.requantize(run.source, target, run.words[1], executor=Reader(), slab_elements=256, **run.options())
    assert target.read_bytes() == expected
    assert asked == read


@needs_fadvise
@runs
def test_advice_that_is_not_taken(
    run: Run, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    kquant.requantize(run.source, tmp_path / "result.gguf", run.words[1], **run.options())
    assert (tmp_path / "result.gguf").read_bytes() == expected


@runs
def test_a_system_that_takes_no_advice(
    run: Run, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    kquant.requantize(run.source, tmp_path / "result.gguf", run.words[1], **run.options())
    assert (tmp_path / "result.gguf").read_bytes() == expected
