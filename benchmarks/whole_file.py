"""`python -m benchmarks.whole_file IN.gguf [TYPE]`: kquant against llama-quantize, and where the time goes.

Each run is a process of its own; the files that come out are compared.  llama-quantize is the function
behind it, `llama_model_quantize` of the package llama-cpp-python, and is left out where that is not
installed.  `python -m benchmarks.make_model` makes a model for it.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any
from unittest.mock import patch

import kquant
from benchmarks import machine
from kquant.convert import slabs as conversion
from kquant.gguf import Writer
from kquant.parallel.slabs import available_threads

STAGES = {
    "reading": "_read",
    "dequantizing": "dequantize_rows",
    "quantizing": "quantize_rows",
    "checking": "check_finite",
}
"""What `kquant.convert.slabs.convert` calls."""


def run_kquant(source: Path, target: Path, file_type: str) -> None:
    kquant.requantize(source, target, file_type)


def run_llama_quantize(source: Path, target: Path, file_type: str) -> None:
    import ctypes

    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype = available_threads(), kquant.FileType[file_type].id
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, None)
    status = llama_cpp.llama_model_quantize(
        os.fsencode(source), os.fsencode(target), ctypes.byref(parameters)
    )
    if status:
        raise SystemExit(f"llama_model_quantize: status {status}")


RUNS = {"kquant": run_kquant, "llama-quantize": run_llama_quantize}


def measured(name: str, source: Path, target: Path, file_type: str) -> dict[str, float]:
    """Seconds of time and of processor time, and megabytes of memory, of a process of its own."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.whole_file", str(source), file_type, "--run", name]
    subprocess.run([*command, "--target", str(target)], check=True, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu}


def stages(source: Path, target: Path, file_type: str) -> dict[str, float]:
    """Processor seconds of the threads in each stage of one run in this process, and of all of it."""
    seconds: dict[str, float] = defaultdict(float)
    lock = Lock()

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*given)
            finally:
                with lock:
                    seconds[stage] += time.thread_time() - start

        return run

    with ExitStack() as stack:
        for stage, name in STAGES.items():
            stack.enter_context(patch.object(conversion, name, timed(stage, getattr(conversion, name))))
        stack.enter_context(patch.object(Writer, "write", timed("writing", Writer.write)))
        start = time.process_time()
        kquant.requantize(source, target, file_type)
    return {**seconds, "all": time.process_time() - start}


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was measured and write it as JSON; 1 if the files differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_file", description=__doc__)
    parser.add_argument("source", type=Path, metavar="IN.gguf")
    parser.add_argument("file_type", nargs="?", default="Q4_K_M", metavar="TYPE")
    parser.add_argument("--turns", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), help="folder for whole_file.json"
    )
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.run:
        RUNS[options.run](options.source, options.target, options.file_type)
        return 0
    names = [name for name in RUNS if name == "kquant" or find_spec("llama_cpp")]
    runs: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(dir=options.source.parent) as folder:
        targets = {name: Path(folder, f"{name}.gguf") for name in names}
        RUNS["kquant"](options.source, targets["kquant"], options.file_type)  # has the kernels ready
        for turn in range(options.turns):
            order = names if turn % 2 else names[::-1]
            runs.append({n: measured(n, options.source, targets[n], options.file_type) for n in order})
            print("   ".join(f"{n} {t['seconds']:.1f} s, {t['cpu']:.1f} of CPU" for n, t in runs[-1].items()))
        equal = all(filecmp.cmp(targets["kquant"], target, shallow=False) for target in targets.values())
        shares = stages(options.source, targets["kquant"], options.file_type)
    if len(names) > 1:
        ratios = sorted(r["llama-quantize"]["seconds"] / r["kquant"]["seconds"] for r in runs)
        verdict = "equal" if equal else "NOT EQUAL"
        print(f"kquant is {ratios[len(ratios) // 2]:.1f} times as fast; the files are {verdict}")
    whole = shares.pop("all")
    print(
        ", ".join(
            f"{stage} {seconds / whole:.0%}" for stage, seconds in sorted(shares.items(), key=lambda s: -s[1])
        )
    )
    options.out.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine.facts(), "runs": runs, "equal": equal, "stages": shares, "cpu": whole}
    (options.out / "whole_file.json").write_text(json.dumps(document, indent=2) + "\n")
    return int(not equal)


if __name__ == "__main__":
    raise SystemExit(main())
