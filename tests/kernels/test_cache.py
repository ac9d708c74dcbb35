"""Kernels on disk: the second process compiles nothing, and none ever runs a stale or damaged kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.arrays import codec
from kquant.kernels import cache as kernel_cache
from kquant.kernels import compile as jit
from kquant.kernels.cache import SOURCES, cache_folder

pytestmark = pytest.mark.slow

PACKAGE = Path(kquant.__file__).parent
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX only")

BLOCK = np.array([0x00, 0x3C, *range(32)], np.uint8)  # Q8_0: d = 1
VALUES = list(range(32))

# what a process says about a block of Q8_0, and how many kernels it found and compiled
SAY = """
import json, sys
import numpy as np
from kquant.arrays import codec
from kquant.kernels import compile as jit
assert codec.__file__.startswith(sys.argv[1]), codec.__file__
if len(sys.argv) > 2:
    print("loaded", flush=True)
    sys.stdin.readline()
values = codec.dequantize(np.array([0, 0x3C, *range(32)], np.uint8), "Q8_0")
stats = [k.stats for k in jit._ready.values()]
found, made = (sum(sum(hits.values()) for hits in kind) for kind in list(zip(*stats))[1:])
print(json.dumps([values.tolist(), found, made]))
"""


def command(package: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", SAY, str(package), *arguments]


def environment(package: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(package.parent), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **more}


def say(cache: Path, package: Path = PACKAGE, **more: str) -> tuple[list[float], int, int]:
    """In a new process: the values of the block, kernels found in the cache, kernels compiled."""
    done = subprocess.run(
        command(package),
        env=environment(package, KQUANT_CACHE_DIR=str(cache), **more),
        cwd=cache.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    values, found, made = json.loads(done.stdout)
    return values, found, made


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below, with its size and time."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {str(path.relative_to(folder)): (s.st_size, s.st_mtime_ns) for path, s in found.items()}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, for this process too; sources that change meanwhile are not this test's matter."""
    monkeypatch.setenv("KQUANT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_cache, "LOADED", float("inf"))
    return tmp_path / "cache"


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """Dequantizes as a new process would: kernels found in the cache, kernels compiled."""

    def dequantize() -> tuple[int, int]:
        monkeypatch.setattr(jit, "_ready", {})
        assert codec.dequantize(BLOCK, "Q8_0", execution="numba").tolist() == VALUES
        (kernel,) = (k for k in jit._ready.values() if k._cache.name == "q8_0-dequantize")
        return sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())

    return dequantize


# ---------------------------------------------------------------- found again


def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert say(cache) == (VALUES, 0, 1)
    before = files(cache)
    assert len(before) == 1
    assert say(cache) == (VALUES, 1, 0)
    assert files(cache) == before


def test_each_kernel_has_a_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_ready", {})
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    for type_name in ("F16", "Q8_0"):
        codec.dequantize(codec.quantize(x, type_name, execution="numba"), type_name, execution="numba")
    names = {Path(name).name.rpartition("-")[0] for name in files(cache)}
    assert names == {"f16-quantize", "f16-dequantize", "q8_0-quantize", "q8_0-dequantize"}


def test_what_numpy_executes_is_not_compiled(cache: Path) -> None:
    codec.dequantize(BLOCK, "Q8_0", execution="numpy")
    assert not cache.exists()


# ---------------------------------------------------------------- never stale


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of kquant that a test may change."""
    return shutil.copytree(PACKAGE, tmp_path / "site/kquant", ignore=shutil.ignore_patterns("__pycache__"))


def edit(package: Path, file: str, old: str, new: str) -> None:
    path = package / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


DOUBLED = [2 * value for value in VALUES]
EDITS = {
    "format": ("formats/legacy/q8_0.py", "QS, 32)) * run_half(", "QS, 32)) * 2 * run_half("),
    "helper": (
        "kernels/language/lanes.py",
        "| (load_run(block, at + 1, 1) << 8)",
        "| ((load_run(block, at + 1, 1) + 4) << 8)",
    ),
    "lowering": ("kernels/lowering/lanes.py", "b.sitofp(x, out))", "b.sitofp(b.add(x, x), out))"),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_a_changed_source_is_compiled_anew(
    change: tuple[str, str, str], package: Path, tmp_path: Path
) -> None:
    """In the format, in a helper that is compiled into its kernel, in a lowering."""
    cache = tmp_path / "cache"
    file, old, new = change
    assert say(cache, package) == (VALUES, 0, 1)
    edit(package, file, old, new)
    assert say(cache, package) == (DOUBLED, 0, 1)
    assert say(cache, package) == (DOUBLED, 1, 0)
    edit(package, file, new, old)
    assert say(cache, package) == (VALUES, 1, 0)


def test_an_upgrade_under_a_running_process(package: Path, tmp_path: Path) -> None:
    """What has been loaded before goes on as it was, and leaves nothing to those that come after."""
    cache = tmp_path / "cache"
    with subprocess.Popen(
        command(package, "wait"),
        env=environment(package, KQUANT_CACHE_DIR=str(cache)),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "loaded\n"
        time.sleep(0.05)  # more than the grain of the clock of file systems
        file, old, new = EDITS["helper"]
        edit(package, file, old, new)
        values, found, made = json.loads(process.communicate("go on\n")[0])
    assert (values, found, made) == (VALUES, 0, 1)
    assert not cache.exists()
    assert say(cache, package) == (DOUBLED, 0, 1)


@pytest.mark.parametrize(
    ("module", "name"), [("numba", "__version__"), ("numpy", "__version__"), ("sys", "version")]
)
def test_other_versions_have_another_folder(
    module: str, name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_cache._digest.cache_clear()
    before = cache_folder()
    monkeypatch.setattr(sys.modules[module], name, "another")
    kernel_cache._digest.cache_clear()
    after = cache_folder()
    kernel_cache._digest.cache_clear()
    assert before
    assert after
    assert before.parent == after.parent == cache
    assert before != after


@pytest.mark.processors
def test_another_processor_has_another_folder_and_the_same_values(tmp_path: Path) -> None:
    """Also one that knows no fp16 and no wide registers."""
    cache = tmp_path / "cache"
    assert say(cache) == (VALUES, 0, 1)
    assert say(cache, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="") == (VALUES, 0, 1)
    assert say(cache, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="") == (VALUES, 1, 0)
    assert len({Path(name).parent for name in files(cache)}) == 2


def test_all_that_decides_the_code_decides_the_folder() -> None:
    """Drivers and formats import nothing that does not count."""
    known = {path.relative_to(PACKAGE).as_posix() for pattern in SOURCES for path in PACKAGE.glob(pattern)}
    assert known >= {f"kernels/{name}.py" for name in ("execute", "language/lanes", "lowering/lanes")}
    assert known >= {"types.py", "formats/legacy/q8_0.py"}
    code = "import sys, kquant.kernels.execute, kquant.kernels.cache, kquant.formats\n"
    code += "from kquant.formats import format_of, has_format\n"
    code += "for t in kquant.TensorType: has_format(t) and format_of(t)\n"
    code += "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('kquant')), sep=chr(10))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {Path(line).relative_to(PACKAGE).as_posix() for line in done.stdout.splitlines()}
    assert loaded - known <= {"__init__.py", "errors.py"}


# ---------------------------------------------------------------- damaged


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a byte of the digest": lambda path: flip(path, 3),
    "the first byte": lambda path: flip(path, 32),
    "a byte in the middle": lambda path: flip(path, path.stat().st_size // 2),
    "the last byte": lambda path: flip(path, -1),
    "cut off": lambda path: os.truncate(path, path.stat().st_size - 1),
    "cut off within the digest": lambda path: os.truncate(path, 20),
    "empty": lambda path: os.truncate(path, 0),
    "something else": lambda path: path.write_bytes(b"something else" * 1000),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "another kernel's": lambda path: path.write_bytes(bytes(32) + path.read_bytes()[32:]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_kernel_is_made_anew(
    damage: Callable[[Path], object], cache: Path, again: Callable[[], tuple[int, int]]
) -> None:
    assert again() == (0, 1)
    (path,) = (path for path in cache.rglob("*") if path.is_file())
    size = path.stat().st_size
    damage(path)
    assert again() == (0, 1)
    assert abs(path.stat().st_size - size) < size // 10
    assert again() == (1, 0)
    assert [p for p in cache.rglob("*") if p.is_file()] == [path]


def test_a_folder_in_the_place_of_a_kernel(cache: Path, again: Callable[[], tuple[int, int]]) -> None:
    again()
    (path,) = (path for path in cache.rglob("*") if path.is_file())
    path.unlink()
    (path / "folder").mkdir(parents=True)
    assert again() == (0, 1)
    assert files(cache) == {}


# ---------------------------------------------------------------- no place


def in_a_file(folder: Path) -> Path:
    (folder / "file").write_bytes(b"")
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return in_a_file(folder) / "cache"


def in_proc(_: Path) -> Path:
    return Path("/proc/kquant")


@pytest.mark.parametrize("place", [in_a_file, below_a_file, pytest.param(in_proc, marks=LINUX)])
def test_no_place_for_a_cache(
    place: Callable[[Path], Path],
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    again: Callable[[], tuple[int, int]],
) -> None:
    monkeypatch.setenv("KQUANT_CACHE_DIR", str(place(tmp_path)))
    assert again() == (0, 1)
    assert again() == (0, 1)
    assert set(files(tmp_path)) <= {"file"}


@POSIX
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(cache: Path, again: Callable[[], tuple[int, int]]) -> None:
    cache.mkdir(mode=0o555)
    assert again() == (0, 1)
    assert again() == (0, 1)


@LINUX
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to mount")
def test_a_disk_that_is_read_only(cache: Path, again: Callable[[], tuple[int, int]]) -> None:
    """What is there is used; what is not is compiled each time."""
    cache.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(cache)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        assert again() == (0, 1)
        subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
        assert again() == (1, 0)
        x = np.ones(32, np.float32)
        assert codec.quantize(x, "Q8_0", execution="numba").tolist() == [0x08, 0x20, *[127] * 32]
        assert len(files(cache)) == 1
    finally:
        subprocess.run(["umount", str(cache)], check=True)


@POSIX
@pytest.mark.parametrize("function", ["write_bytes", "replace", "mkdir"])
def test_a_full_disk(
    function: str, cache: Path, monkeypatch: pytest.MonkeyPatch, again: Callable[[], tuple[int, int]]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(Path, function, full)
        assert again() == (0, 1)
    assert files(cache) == {}
    assert again() == (0, 1)
    assert again() == (1, 0)


# ---------------------------------------------------------------- where it is


def test_turned_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, again: Callable[[], tuple[int, int]]
) -> None:
    monkeypatch.setenv("KQUANT_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert cache_folder() is None
    assert again() == (0, 1)
    assert again() == (0, 1)
    assert files(tmp_path) == {}


@LINUX
def test_where_the_system_keeps_caches(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, again: Callable[[], tuple[int, int]]
) -> None:
    monkeypatch.delenv("KQUANT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = cache_folder()
    assert folder
    assert folder.parent == tmp_path / "xdg/kquant"
    assert again() == (0, 1)
    assert len(list(folder.iterdir())) == 1


@LINUX
def test_a_folder_in_the_home_of_a_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, again: Callable[[], tuple[int, int]]
) -> None:
    """As in the settings of an image, where no shell makes a path of `~`."""
    monkeypatch.setenv("KQUANT_CACHE_DIR", "~/kernels")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = cache_folder()
    assert folder
    assert folder.parent == tmp_path / "home/kernels"
    assert again() == (0, 1)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setenv("KQUANT_CACHE_DIR", "~no-such-user/kernels")
    assert cache_folder() is None


@LINUX
def test_a_user_without_home(
    cache: Path, monkeypatch: pytest.MonkeyPatch, again: Callable[[], tuple[int, int]]
) -> None:

    def unknown(_: int) -> Any:
        raise KeyError

    for name in ("KQUANT_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert cache_folder() is None
    assert again() == (0, 1)


def test_a_home_that_is_not_found(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of platformdirs give a folder named ~ then."""
    monkeypatch.delenv("KQUANT_CACHE_DIR")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: "~/.cache/kquant")
    assert cache_folder() is None


# ---------------------------------------------------------------- several processes


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have loaded kquant and wait for the start."""
    environ = environment(PACKAGE, KQUANT_CACHE_DIR=str(tmp_path / "cache"))
    processes = [
        subprocess.Popen(
            command(PACKAGE, "wait"),
            env=environ,
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "loaded\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_several_processes_at_once(crowd: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    for process in crowd:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in crowd:
        values, found, made = json.loads(process.communicate()[0])
        assert (values, found + made) == (VALUES, 1)
    assert [Path(name).suffix for name in files(tmp_path / "cache")] == [".kernel"]
    assert say(tmp_path / "cache") == (VALUES, 1, 0)
