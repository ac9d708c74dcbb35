"""A file under its final name is complete, whatever happens."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kquant.errors import KQuantError, OutputError
from kquant.gguf import Metadata, TensorSpec, Writer, layout, read
from kquant.gguf.part_file import PartFile
from kquant.types import TensorType

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


def fill(path: Path, data: bytes = b"new") -> None:
    part = PartFile(path, len(data))
    part.write(0, data)
    part.commit()


def write_abc(path: Path) -> None:
    with Writer(path, layout(Metadata(), [TensorSpec("a", (3,), TensorType.I8)])) as writer:
        writer.write(0, 0, b"abc")
        writer.commit()


def test_replaces_only_on_commit(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    part = PartFile(path, 3)
    part.write(0, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir() if p != path] == [next(tmp_path.glob(".out.*.part")).name]
    part.commit()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out"
    part = PartFile(path, 3)
    part.abort()
    part.abort()
    assert not list(tmp_path.iterdir())
    for action in (part.commit, lambda: part.write(0, b"x")):
        with pytest.raises(
            OutputError, match="out: expected an open file, got one that is committed or aborted"
        ):
            action()


def test_abort_after_commit_does_nothing(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "out", 0)
    part.commit()
    part.abort()
    assert (tmp_path / "out").read_bytes() == b""
    with pytest.raises(OutputError, match="committed"):
        part.commit()


@POSIX
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_as_open_gives_them(umask: int, tmp_path: Path) -> None:
    """The umask is the process's: a process of its own sets it."""
    code = (
        "import os, sys; from pathlib import Path; from kquant.gguf.part_file import PartFile\n"
        f"os.umask({umask}); folder = Path(sys.argv[1])\n"
        "(folder / 'plain').write_bytes(b''); p = PartFile(folder / 'ours', 0); p.commit()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    plain, ours = ((tmp_path / name).stat().st_mode for name in ("plain", "ours"))
    assert stat.filemode(ours) == stat.filemode(plain)


@POSIX
def test_keeps_the_permissions_of_what_it_replaces(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"private")
    path.chmod(0o600)
    fill(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@POSIX
def test_writes_through_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "out", tmp_path / "disk" / "file"
    link.symlink_to(target)
    for data in (b"first", b"second"):
        fill(link, data)
        assert link.is_symlink()
        assert target.read_bytes() == data


def test_a_long_name(tmp_path: Path) -> None:
    name = "é" * 120
    fill(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"new"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (lambda folder: folder, "expected a regular file or a new name"),
        (lambda folder: Path(folder.anchor), "expected a regular file or a new name"),
        (lambda folder: folder / "missing" / "out", os.strerror(errno.ENOENT)),
        (lambda folder: folder / "file" / "out", os.strerror(errno.ENOTDIR)),
        pytest.param(lambda _: Path("/dev/null"), "expected a regular file or a new name", marks=POSIX),
    ],
    ids=["directory", "root", "no directory", "file as directory", "device"],
)
def test_targets_that_cannot_be(target: Callable[[Path], Path], reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = target(tmp_path)
    with pytest.raises(OutputError) as caught:
        PartFile(path, 10)
    assert str(caught.value) == f"{path}: cannot write 10 bytes: {reason}"
    assert isinstance(caught.value, KQuantError)
    assert isinstance(caught.value, OSError)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@POSIX
@pytest.mark.parametrize("read_only", ["directory", "file"])
def test_read_only_target(read_only: str, tmp_path: Path) -> None:
    """In a process of its own, which drops the rights of root if it has them."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "out"
    path.write_bytes(b"old")
    folder.chmod(0o555 if read_only == "directory" else 0o777)
    path.chmod(0o666 if read_only == "directory" else 0o444)
    code = (
        "import os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from kquant.errors import OutputError; from kquant.gguf.part_file import PartFile\n"
        "os.chdir(os.path.dirname(sys.argv[1]))\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try: PartFile('out', 3)\n"
        "except OutputError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(path), *sys.path]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout == "out: cannot write 3 bytes: Permission denied\n"
    folder.chmod(0o755)
    assert path.read_bytes() == b"old"
    assert list(folder.iterdir()) == [path]


def full_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@POSIX
@pytest.mark.parametrize("function", ["posix_fallocate", "ftruncate", "fsync", "pwrite"])
def test_full_disk(function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the disk turns out to be full: the old file stays, the new one goes."""
    path = tmp_path / "out.gguf"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, function, full_disk, raising=False)
    with pytest.raises(OutputError, match=r"out\.gguf: cannot write 96 bytes: No space left on device"):
        write_abc(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@POSIX
def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    """A real refusal of the system, in a process of its own."""
    code = (
        "import resource, signal, sys; from kquant.errors import OutputError\n"
        "from kquant.gguf.part_file import PartFile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: PartFile(sys.argv[1], 8192)\n"
        "except OutputError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout == f"{tmp_path / 'out'}: cannot write 8192 bytes: File too large\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EINVAL])
def test_file_systems_that_cannot_claim_space(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    fill(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"new"


def test_systems_without_the_functions_of_posix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no posix_fallocate, Windows no pwrite either."""
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.delattr(os, "pwrite", raising=False)
    part = PartFile(tmp_path / "out", 800)
    threads = [threading.Thread(target=part.write, args=(8 * i, bytes([i]) * 8)) for i in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    part.commit()
    assert (tmp_path / "out").read_bytes() == b"".join(bytes([i]) * 8 for i in range(100))


@POSIX
def test_a_system_that_takes_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, position: pwrite(fd, data[:3], position))
    fill(tmp_path / "out", b"more than three")
    assert (tmp_path / "out").read_bytes() == b"more than three"


@POSIX
def test_abort_waits_for_writes_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the bytes could end up in another file that gets the same number."""
    writing, go_on = threading.Event(), threading.Event()
    pwrite = os.pwrite
    closed_while_writing = []

    def slow(fd: int, data: bytes, position: int) -> int:
        writing.set()
        go_on.wait(10)
        os.fstat(fd)  # fails if the file is closed
        return pwrite(fd, data, position)

    monkeypatch.setattr(os, "pwrite", slow)
    part = PartFile(tmp_path / "out", 3)

    def write() -> None:
        try:
            part.write(0, b"new")
        except OutputError as error:
            closed_while_writing.append(error)

    writer, aborter = threading.Thread(target=write), threading.Thread(target=part.abort)
    writer.start()
    writing.wait(10)
    aborter.start()
    aborter.join(0.05)
    assert aborter.is_alive()
    go_on.set()
    for thread in (writer, aborter):
        thread.join(10)
    assert not closed_while_writing
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for target in ("ftruncate", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, target, interrupt)
            with pytest.raises(KeyboardInterrupt):
                write_abc(tmp_path / "out")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("when", [1, 2])
def test_an_interrupt_in_the_middle_of_a_write_leaves_nothing(when: int, tmp_path: Path) -> None:
    """Python may raise it where the write is noted: before or after the bytes, within the lock's own code."""

    class Interrupted(threading.Condition):
        left = when

        def __exit__(self, *_: object) -> None:
            self.release()
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    part = PartFile(tmp_path / "out", 3)
    part._changed = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        part.write(0, b"abc")
    part.abort()
    assert not list(tmp_path.iterdir())


@POSIX
def test_an_interrupt_while_the_file_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.open

    def interrupted(*given: Any) -> int:
        os.close(make(*given))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        PartFile(tmp_path / "out", 3)
    assert not list(tmp_path.iterdir())


def test_a_file_that_nobody_holds_any_more_is_gone(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "out", 3)
    assert list(tmp_path.iterdir())
    del part
    assert not list(tmp_path.iterdir())


@POSIX
def test_a_fork_leaves_the_file_alone(tmp_path: Path) -> None:
    code = (
        "import os, sys; from kquant.gguf.part_file import PartFile\n"
        "part = PartFile(sys.argv[1], 3)\n"
        "if not (child := os.fork()):\n    del part\n    os._exit(0)\n"
        "os.waitpid(child, 0); part.write(0, b'new'); part.commit()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=True)
    assert (tmp_path / "out").read_bytes() == b"new"


def test_a_temporary_name_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose file it is stays."""
    monkeypatch.setattr(secrets, "token_hex", lambda n: "0" * n)
    other = PartFile(tmp_path / "out", 3)
    with pytest.raises(OutputError, match="File exists"):
        PartFile(tmp_path / "out", 3)
    other.write(0, b"new")
    other.commit()
    assert (tmp_path / "out").read_bytes() == b"new"


def test_kill_in_the_middle_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    """kill -9, then a second run: what the first one left next to the target does no harm."""
    path = tmp_path / "out.gguf"
    code = (
        "import sys; from kquant.gguf import *; from kquant.types import TensorType\n"
        "plan = layout(Metadata(), [TensorSpec('a', (64, 1000), TensorType['I8'])])\n"
        "with Writer(sys.argv[1], plan) as writer:\n"
        "    for row in range(1000):\n"
        "        writer.write(0, 64 * row, bytes([row % 256]) * 64)\n"
        "        if row == 500 and sys.argv[2] == 'wait':\n"
        "            print('half', flush=True); sys.stdin.read()\n"
        "    writer.commit()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen([*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    subprocess.run([*command, "go on"], check=True)
    with read(path) as file:
        assert file.data(file.tensors["a"])[:, 0].tolist() == [row % 256 for row in range(1000)]
