"""Headers and padding to the byte: whole files in which no tensor is converted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import kquant
from kquant.gguf import read
from support.runs import GOLDEN, Run, runs

OUTPUTS = sorted((GOLDEN / "gguf" / "outputs").iterdir())
COPIES = [run for run in runs("gguf") if run.words[1] == "COPY" and run.rc == 0 and not run.is_dry]


@pytest.mark.parametrize("path", OUTPUTS, ids=lambda path: path.name)
def test_header_of_a_file_that_llama_quantize_wrote(path: Path) -> None:
    model, file_type, _ = path.name.split(".")
    [output] = kquant.plan(GOLDEN / "gguf" / "models" / f"{model}.gguf", file_type).outputs
    written = path.read_bytes()
    header = output.layout.header
    assert written[: len(header)] == header
    assert not any(written[len(header) : output.layout.data_offset])
    assert len(written) == output.layout.file_bytes


@pytest.mark.parametrize("run", COPIES, ids=lambda run: run.id)
def test_copies_are_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.directory)
    with read(run.source) as model:
        plan = kquant.plan(model, "COPY", **run.options())
        files = [bytearray(output.layout.file_bytes) for output in plan.outputs]
        for output, file in zip(plan.outputs, files, strict=True):
            file[: len(output.layout.header)] = output.layout.header
        for row in plan.rows:
            files[row.output][row.offset : row.offset + row.new_bytes] = model.data(row.source).tobytes()
    expected = [file["sha256"] for file in run.record.get("files_out", [run.record])]
    assert [hashlib.sha256(file).hexdigest() for file in files] == expected
