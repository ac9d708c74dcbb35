"""Every recorded run of llama-quantize: the plan has the same tensors, metadata, offsets and sizes."""

from __future__ import annotations

import pytest

import kquant
from kquant.errors import KQuantError
from kquant.planning.planner import Plan
from support.runs import Run, describe, runs

KNOWN = [run for folder in ("gguf", "smollm2") for run in runs(folder)]
WRITTEN = [run for run in KNOWN if run.rc == 0 and not run.is_dry and not run.uses_other_types]
DRY = [run for run in KNOWN if run.is_dry and not run.uses_other_types]
FAILED = [run for run in KNOWN if run.rc]


def parametrize(chosen: list[Run]) -> pytest.MarkDecorator:
    marked = [
        pytest.param(run, id=run.id, marks=pytest.mark.demo if run.folder == "smollm2" else ())
        for run in chosen
    ]
    return pytest.mark.parametrize("run", marked)


@pytest.fixture
def in_golden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of an importance matrix is written into the result as it was given."""
    monkeypatch.chdir(run.directory)


def plan_of(run: Run) -> Plan:
    return kquant.plan(run.source, run.words[1], **run.options())


def test_the_golden_runs_are_those_of_the_record() -> None:
    assert len(WRITTEN) > 400


@pytest.mark.usefixtures("in_golden")
@parametrize(WRITTEN)
def test_result_is_planned_to_the_byte(run: Run) -> None:
    plan = plan_of(run)
    plan.check()
    expected = run.expected_files()
    for output, file in zip(plan.outputs, expected, strict=True):
        assert describe(output.metadata) == file["kv"]
        assert output.layout.data_offset == file["data_offset"]
        assert str(output.path("OUT.gguf")) == file["file"]
    tensors = [
        [
            {
                "name": row.name,
                "type": row.new_type.name,
                "shape": list(row.shape[::-1]),
                "offset": row.offset - plan.outputs[row.output].layout.data_offset,
                "nbytes": row.new_bytes,
            }
            for row in plan.rows
            if row.output == index
        ]
        for index in range(len(expected))
    ]
    digests_left_out = [
        [{key: tensor[key] for key in tensor if key != "sha256"} for tensor in file["tensors"]]
        for file in expected
    ]
    assert tensors == digests_left_out
    assert plan.file_bytes == sum(f["bytes"] for f in run.record.get("files_out", [run.record]))
    check_figures(run, plan)


@pytest.mark.usefixtures("in_golden")
@parametrize(DRY)
def test_dry_run(run: Run) -> None:
    plan = plan_of(run)
    converted = [[row.name, row.new_type.name.lower()] for row in plan.rows if row.converts]
    assert converted == run.record["dry_run_types"]
    assert plan.requires_imatrix == run.record.get("will_require_imatrix", False)
    check_figures(run, plan)


def check_figures(run: Run, plan: Plan) -> None:
    record = run.record
    assert plan.size_lines == (
        f"model size  = {record['model_size_MiB']:>8} MiB ({record['model_bpw']} BPW)",
        f"quant size  = {record['quant_size_MiB']:>8} MiB ({record['quant_bpw']} BPW)",
    )
    assert len(plan.fallbacks) == record.get("fallback_tensors", 0)
    due_to_shape = [row for row in plan.fallbacks if row.new_type.name == "F16"]
    assert len(due_to_shape) == record.get("f16_due_to_shape", 0)
    if "types" in record:
        assert {type.name: count for type, count in plan.types.items()} == record["types"]


@pytest.mark.usefixtures("in_golden")
@parametrize(FAILED)
def test_what_llama_quantize_refuses_is_an_error(run: Run) -> None:
    with pytest.raises(KQuantError):
        plan_of(run).check()
