"""Signals while threads work: they wait for the next report, and the second one for nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import kquant
from kquant.cli import show
from kquant.cli.signals import Postponed
from support.small_models import heavy_tailed, packed, write_model


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Where the shell ignores SIGINT, as under `nohup`, Python installs no handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_one_waits() -> None:
    postponed = Postponed()
    postponed.begin()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        postponed.check()
    postponed.check()  # it was answered
    postponed.end()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_until_the_end_of_a_block() -> None:
    with Postponed() as postponed:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            postponed.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_is_answered_at_once() -> None:
    postponed = Postponed()
    postponed.begin()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    postponed.end()


def test_what_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    postponed = Postponed()
    postponed.begin()
    signal.raise_signal(signal.SIGINT)
    postponed.check()
    postponed.end()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_have_no_signals() -> None:
    postponed = Postponed()
    thread = threading.Thread(target=postponed.begin)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_progress_answers_between_two_pieces_of_work(tmp_path: Path) -> None:
    """The signal comes while a slab is on its way; the next report ends the work, and nothing is left."""
    source, target = tmp_path / "in.gguf", tmp_path / "out.gguf"
    write_model(source, {"w.weight": packed(heavy_tailed(64, 256), "F16")})
    progress = show.Progress("in.gguf")
    came: list[int] = []

    def report(done: int, total: int) -> None:
        progress(done, total)
        if not came:
            came.append(done)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), progress:
        kquant.requantize(source, target, "Q8_0", slab_elements=4096, progress=report)
    assert came == [0]
    assert list(tmp_path.iterdir()) == [source]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
