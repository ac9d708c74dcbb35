"""Opening a file with a vocabulary of Llama 3's size, against gguf-py: `python -m benchmarks.gguf_open`.

The contestants open the same file alternately, in one process; what they read is compared first.  Memory
is measured in a process for each: what it keeps for itself, and its peak, the mapped file included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gguf import GGUFReader, GGUFValueType

from benchmarks import machine
from benchmarks.measure import by_turns
from kquant.gguf import Metadata, TensorSpec, Writer, layout, read, strings
from kquant.types import TensorType

N_TOKENS, N_MERGES = 128_256, 280_147


def write_model(path: Path) -> None:
    """Tokens and merges in the number and length of Llama 3's, the tensors of 32 layers, one row each."""
    md = Metadata()
    tokens = [f"Ġ{i * 2654435761 % 2**32:x}"[: 2 + i % 9] for i in range(N_TOKENS)]
    merges = [f"{tokens[i % N_TOKENS]} {tokens[i * 7919 % N_TOKENS]}" for i in range(N_MERGES)]
    md.set("general.architecture", "llama", GGUFValueType.STRING)
    for key, items in (("tokens", tokens), ("merges", merges)):
        md.set(f"tokenizer.ggml.{key}", items, GGUFValueType.ARRAY, element_type=GGUFValueType.STRING)
    types = [1] * N_TOKENS
    md.set("tokenizer.ggml.token_type", types, GGUFValueType.ARRAY, element_type=GGUFValueType.INT32)
    names = (
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
        "attn_norm",
        "ffn_norm",
    )
    specs = [TensorSpec(f"blk.{i}.{name}.weight", (8,), TensorType.F32) for i in range(32) for name in names]
    with Writer(path, layout(md, specs)) as writer:
        for index in range(len(specs)):
            writer.write(index, 0, bytes(32))
        writer.commit()


def kquant(path: Path) -> Any:
    """The reader as it is."""
    return read(path)


def kquant_one_by_one(path: Path) -> Any:
    """The reader without the guess: every string followed on its own."""
    few, strings._FEW = strings._FEW, sys.maxsize  # type: ignore[misc]
    try:
        return read(path)
    finally:
        strings._FEW = few  # type: ignore[misc]


def gguf_py(path: Path) -> Any:
    """The reader of gguf-py."""
    return GGUFReader(path)


CONTESTANTS: dict[str, Callable[[Path], Any]] = {
    "kquant": kquant,
    "kquant, string by string": kquant_one_by_one,
    "gguf-py": gguf_py,
}


def check_same(path: Path) -> None:
    """Every key, value and tensor offset that both readers show."""
    ours, theirs = read(path), GGUFReader(path)
    for key in ours.metadata:
        value, contents = ours.metadata[key], theirs.fields[key].contents()
        assert value == contents if isinstance(value, str) else list(value) == contents, key
    assert [info.offset for info in ours.tensors.values()] == [t.data_offset for t in theirs.tensors]


def memory(name: str, path: Path) -> dict[str, float]:
    """MB that opening the file adds to a new process: kept for itself, and at the peak in all."""
    command = [sys.executable, "-m", "benchmarks.gguf_open", "--memory-of", name, str(path)]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return figures


def measure_memory(name: str, path: Path) -> None:
    before = resident()
    file = CONTESTANTS[name](path)
    after = resident()
    print(
        json.dumps(
            {"kept_mb": after["RssAnon"] - before["RssAnon"], "peak_mb": after["VmHWM"] - before["VmHWM"]}
        )
    )
    del file


def resident() -> dict[str, float]:
    """MB of resident memory other than mapped files, and the peak of all of it, as Linux reports them."""
    status = Path("/proc/self/status")
    if not status.exists():
        return dict.fromkeys(("RssAnon", "VmHWM"), float("nan"))
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return {key: int(fields[key].split()[0]) * 1024 / 1e6 for key in ("RssAnon", "VmHWM")}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gguf_open", description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, help="a file to open instead of one made for this")
    parser.add_argument("--seconds", type=float, default=20, help="time to measure (default: 20)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), help="folder for gguf_open.json"
    )
    parser.add_argument("--memory-of", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.memory_of:
        measure_memory(options.memory_of, options.path)
        return 0
    with TemporaryDirectory() as folder:
        path = options.path or Path(folder, "llama3.gguf")
        if not options.path:
            write_model(path)
        check_same(path)
        times = by_turns({name: partial(run, path) for name, run in CONTESTANTS.items()}, options.seconds)
        rows: list[dict[str, Any]] = [
            {"name": name, "ms": times.of(name).median * 1e3, **memory(name, path)} for name in CONTESTANTS
        ]
        for row in rows:
            row["times_slower"] = times.ratio("kquant", row["name"]).median
        with read(path) as file:
            n_strings = sum(len(value) for value in file.metadata.values() if hasattr(value, "iter_raw"))
            print(f"{path.name}: {n_strings} strings, {len(file.tensors)} tensors")
    print(f"{'':26}{'ms':>9}{'times slower':>14}{'MB kept':>9}{'MB at the peak':>16}")
    for row in rows:
        print(
            f"{row['name']:26}{row['ms']:9.2f}{row['times_slower']:14.1f}{row['kept_mb']:9.1f}{row['peak_mb']:16.1f}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine.facts(), "strings": n_strings, "results": rows}
    (options.out / "gguf_open.json").write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
