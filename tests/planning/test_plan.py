"""Plans beyond the recorded runs: huge files, shards, problems, notes, and their form for machines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kquant
from kquant.errors import (
    GGUFError,
    ImatrixError,
    KQuantError,
    OptionError,
    ShapeError,
    UnknownTypeError,
    UnsupportedTypeError,
)
from kquant.gguf import GGUFValueType, read
from kquant.imatrix.reading import Imatrix
from kquant.planning.planner import Plan, PlanRow
from kquant.policy import TensorFacts
from kquant.types import FileType, TensorType
from support.model_files import metadata_of, write_sparse
from support.models import LLAMA_2_7B, LLAMA_2_70B
from support.runs import GOLDEN, describe

SLIM = GOLDEN / "gguf" / "models" / "llama-slim-f16.gguf"
SPLIT = GOLDEN / "gguf" / "split" / "llama-slim-f16-00001-of-00003.gguf"
Q8_0 = GOLDEN / "gguf" / "outputs" / "llama-slim-f16.Q8_0.gguf"
LLAMA = {"general.architecture": "llama", "llama.block_count": 4}


def row_of(plan: Plan, name: str) -> PlanRow:
    return next(row for row in plan.rows if row.name == name)


# ---------------------------------------------------------------- large files


@pytest.mark.skipif(sys.platform == "win32", reason="a file made by truncation is not sparse there")
def test_a_file_of_140_gb_answers_in_under_a_second_without_being_touched(tmp_path: Path) -> None:
    pairs = {**LLAMA_2_70B.metadata, "tokenizer.ggml.tokens": [f"<{i}>" for i in range(32000)]}
    path = write_sparse(tmp_path / "llama-2-70b.gguf", pairs, LLAMA_2_70B.tensors)
    assert path.stat().st_size > 137_000_000_000
    started = time.perf_counter()
    plan = kquant.plan(path, "Q4_K_M")
    text = plan.to_json()
    assert time.perf_counter() - started < 1
    assert len(json.loads(text)["tensors"]) == 723
    assert plan.size_lines == (
        "model size  = 131565.03 MiB (16.00 BPW)",
        "quant size  = 39503.23 MiB (4.80 BPW)",
    )
    assert path.stat().st_blocks * 512 < 2_000_000


def test_planning_does_not_import_the_compiler() -> None:
    code = "import sys, kquant; kquant.plan(sys.argv[1], 'Q4_K_M').to_json(); print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(SLIM)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_source_may_be_open_already() -> None:
    with read(SLIM) as model:
        plan = kquant.plan(model, FileType.Q4_K_M)
        assert plan.rows == kquant.plan(SLIM, "Q4_K_M").rows
        row = row_of(plan, "output.weight")
        assert model.data(row.source).shape == (288, 512)


def test_a_plan_outlives_its_source() -> None:
    plan = kquant.plan(str(SLIM), "q4_k_m")
    assert plan.outputs[0].metadata["tokenizer.ggml.tokens"][0] == "<unk>"


# ---------------------------------------------------------------- what a row and a plan say


def test_a_row() -> None:
    plan = kquant.plan(SLIM, "Q4_K_M")
    row = row_of(plan, "blk.0.attn_v.weight")
    assert (row.source.name, row.shape, row.n_elements) == ("blk.0.attn_v.weight", (8, 256), 2048)
    assert (row.type, row.new_type, row.converts) == (TensorType.F16, TensorType.Q6_K, True)
    assert (row.bytes, row.new_bytes, row.output) == (4096, 1680, 0)
    assert (row.fallback_from, row.imatrix) == (None, None)
    assert row.reason == "attn_v in a layer that gets more bits"
    norm = row_of(plan, "blk.0.attn_norm.weight")
    assert not norm.converts
    assert norm.bytes == norm.new_bytes == 1024


def test_sums() -> None:
    plan = kquant.plan(SLIM, "Q4_K_M")
    assert plan.n_elements == plan.source_elements == sum(row.n_elements for row in plan.rows)
    assert plan.bits_per_weight == 8 * plan.bytes / plan.n_elements
    assert plan.new_bits_per_weight == 8 * plan.new_bytes / plan.n_elements
    assert plan.file_bytes == plan.outputs[0].layout.file_bytes
    assert sum(plan.types.values()) == len(plan.rows)
    assert list(plan.types.values()) == sorted(plan.types.values(), reverse=True)
    assert (plan.file_type, plan.architecture) == (FileType.Q4_K_M, "llama")
    assert (plan.problems, plan.notes, plan.requires_imatrix, plan.imatrix) == ((), (), False, None)
    plan.check()


def test_fallbacks() -> None:
    plan = kquant.plan(GOLDEN / "gguf" / "models" / "llama-odd-f16.gguf", "Q4_K_M")
    assert len(plan.fallbacks) == 22
    assert {(row.fallback_from, row.new_type) for row in plan.fallbacks} == {
        (TensorType.Q4_K, TensorType.Q5_0),
        (TensorType.Q6_K, TensorType.Q8_0),
    }
    share = plan.to_dict()["fallbacks"]
    assert share["tensors"] == 22
    assert share["share"] == share["new_bytes"] / plan.new_bytes


def test_for_machines() -> None:
    plan = kquant.plan(
        SLIM, "Q4_K_M", prune_layers=[0], imatrix=GOLDEN / "gguf" / "imatrix" / "llama-slim.gguf"
    )
    found = json.loads(plan.to_json())
    assert found == plan.to_dict()
    assert list(found) == [
        *("file_type", "architecture", "tensors", "files", "totals"),
        *("bits_per_weight", "new_bits_per_weight", "types", "fallbacks", "problems", "notes"),
    ]
    assert found["tensors"][4] == {
        "name": "blk.0.attn_k.weight",
        "source": "blk.1.attn_k.weight",
        "shape": [8, 256],
        "type": "F16",
        "new_type": "Q4_K",
        "bytes": 4096,
        "new_bytes": 1152,
        "file": 0,
        "offset": plan.rows[4].offset,
        "reason": "default of Q4_K_M",
        "fallback_from": None,
        "imatrix": "blk.1.attn_k.weight",
        "zeroed": [],
    }
    assert found["totals"] == {
        "tensors": len(plan.rows),
        "elements": plan.n_elements,
        "bytes": plan.bytes,
        "new_bytes": plan.new_bytes,
        "file_bytes": plan.file_bytes,
    }
    assert found["files"] == [{"suffix": "", "tensors": len(plan.rows), "bytes": plan.file_bytes}]
    assert found["types"]["Q6_K"] == {
        "tensors": plan.types[TensorType.Q6_K],
        "new_bytes": sum(row.new_bytes for row in plan.rows if row.new_type is TensorType.Q6_K),
    }
    assert found["bits_per_weight"] == plan.bits_per_weight
    assert found["new_bits_per_weight"] == plan.new_bits_per_weight


def test_offsets_of_tensors_do_not_overlap_and_the_last_is_padded() -> None:
    plan = kquant.plan(SLIM, "Q4_K_M")
    end = plan.outputs[0].layout.data_offset
    for row in plan.rows:
        assert row.offset == end
        end = row.offset + -(-row.new_bytes // 32) * 32
    assert plan.file_bytes == end


def test_a_model_without_tensors(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "vocabulary.gguf", LLAMA, [])
    plan = kquant.plan(path, "Q4_K_M", keep_split=True)
    assert (plan.rows, plan.bytes, plan.bits_per_weight, plan.new_bits_per_weight) == ((), 0, 0.0, 0.0)
    assert plan.size_lines[0] == "model size  =     0.00 MiB (0.00 BPW)"
    assert plan.to_dict()["fallbacks"]["share"] == 0.0


# ---------------------------------------------------------------- the form of the result


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 64, 256), (64, 256)), ((1, 1, 256), (256,)), ((8, 1, 256), (8, 1, 256)), ((1,), (1,)), ((), (1,))],
)
def test_outer_dimensions_of_one_are_dropped(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    path = write_sparse(tmp_path / "m.gguf", LLAMA, {"blk.0.ffn_up.weight": shape})
    plan = kquant.plan(path, "F32")
    assert plan.rows[0].shape == expected
    assert plan.outputs[0].layout.tensors[0].ggml_shape == expected[::-1]
    assert plan.rows[0].converts is (len(expected) > 1)


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
def test_the_alignment_of_the_source_is_kept(tmp_path: Path, alignment: int) -> None:
    pairs = {**LLAMA, "general.alignment": alignment}
    path = write_sparse(tmp_path / "m.gguf", pairs, {f"blk.{i}.ffn_up.weight": (1, 3, 32) for i in range(3)})
    plan = kquant.plan(path, "Q4_0")
    assert all(row.offset % alignment == 0 for row in plan.rows)
    assert plan.file_bytes % alignment == 0
    overridden = kquant.plan(path, "Q4_0", override_kv=["general.alignment=int:128"])
    assert all(row.offset % 128 == 0 for row in overridden.rows)


def test_the_byte_order_of_the_source_is_kept_and_the_version_is_3(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "m.gguf", LLAMA, {"blk.0.ffn_up.weight": (4, 32)}, byteorder="big")
    header = kquant.plan(path, "Q4_0").outputs[0].layout.header
    assert header[:8] == b"GGUF\0\0\0\3"
    little = write_sparse(tmp_path / "l.gguf", LLAMA, {"blk.0.ffn_up.weight": (4, 32)})
    raw = bytearray(little.read_bytes())
    raw[4] = 2
    little.write_bytes(raw)
    assert kquant.plan(little, "Q4_0").outputs[0].layout.header[:8] == b"GGUF\3\0\0\0"


def test_shards_are_joined_or_kept() -> None:
    joined, kept = kquant.plan(SPLIT, "Q4_K_M"), kquant.plan(SPLIT, "Q4_K_M", keep_split=True)
    assert len(joined.outputs) == 1
    assert {row.output for row in joined.rows} == {0}
    assert [len(output.layout.tensors) for output in kept.outputs] == [26, 26, 24]
    assert [(row.source.shard, row.source.offset) for row in kept.rows] == sorted(
        (row.source.shard, row.source.offset) for row in kept.rows
    )
    assert all(row.output == row.source.shard for row in kept.rows)
    assert kept.file_bytes == sum(output.layout.file_bytes for output in kept.outputs)
    assert [output.path("dir/OUT.gguf").name for output in kept.outputs] == [
        f"OUT-0000{i}-of-00003.gguf" for i in (1, 2, 3)
    ]
    assert kept.outputs[1].path("dir/OUT") == Path("dir/OUT-00002-of-00003.gguf")
    assert joined.outputs[0].path("dir/OUT") == Path("dir/OUT")


def test_one_file_kept_split_is_the_first_of_one() -> None:
    plan = kquant.plan(SLIM, "Q4_K_M", keep_split=True)
    assert [output.suffix for output in plan.outputs] == ["-00001-of-00001.gguf"]
    assert not [key for key in plan.outputs[0].metadata if key.startswith("split.")]


def test_a_shard_that_pruning_empties_remains(tmp_path: Path) -> None:
    for i in range(3):
        metadata = metadata_of(LLAMA if i == 0 else {})
        metadata.set("split.no", i, GGUFValueType.UINT16)
        metadata.set("split.count", 3, GGUFValueType.UINT16)
        metadata.set("split.tensors.count", 3, GGUFValueType.INT32)
        write_sparse(
            tmp_path / f"m-0000{i + 1}-of-00003.gguf", metadata, {f"blk.{i}.ffn_up.weight": (4, 256)}
        )
    plan = kquant.plan(tmp_path / "m-00001-of-00003.gguf", "Q4_K_M", keep_split=True, prune_layers=[1])
    assert [[spec.name for spec in output.layout.tensors] for output in plan.outputs] == [
        ["blk.0.ffn_up.weight"],
        [],
        ["blk.1.ffn_up.weight"],
    ]
    assert describe(plan.outputs[1].metadata)[2] == ["split.tensors.count", "INT32", 2]


def test_pruning_renames_and_counts_anew() -> None:
    plan = kquant.plan(SLIM, "Q4_K_M", prune_layers=[7, 0, 0])
    assert row_of(plan, "blk.0.attn_q.weight").source.name == "blk.1.attn_q.weight"
    assert list(plan.outputs[0].metadata)[-1] == "llama.block_count"
    assert plan.outputs[0].metadata["llama.block_count"] == 6
    assert plan.source_elements > plan.n_elements


def test_a_model_without_architecture(tmp_path: Path) -> None:
    tensors = {f"blk.{i}.{part}.weight": (256, 256) for i in range(8) for part in ("attn_v", "ffn_down")}
    plan = kquant.plan(write_sparse(tmp_path / "m.gguf", {}, tensors), "Q4_K_M", prune_layers=[7])
    assert plan.architecture == ""
    assert row_of(plan, "blk.0.ffn_down.weight").new_type is TensorType.Q6_K  # 8 layers by their names
    assert row_of(plan, "blk.1.ffn_down.weight").new_type is TensorType.Q4_K
    assert list(plan.outputs[0].metadata) == ["general.quantization_version", "general.file_type"]


def test_an_architecture_that_llama_cpp_does_not_know(tmp_path: Path) -> None:
    pairs = {key.replace("llama.", "new."): value for key, value in LLAMA_2_7B.metadata.items()}
    pairs["general.architecture"] = "new"
    new = kquant.plan(write_sparse(tmp_path / "new.gguf", pairs, LLAMA_2_7B.tensors), "Q4_K_M")
    old = kquant.plan(write_sparse(tmp_path / "old.gguf", LLAMA_2_7B.metadata, LLAMA_2_7B.tensors), "Q4_K_M")
    assert [row.new_type for row in new.rows] == [row.new_type for row in old.rows]


def test_overrides_reach_the_rules_the_first_of_equals_and_the_file_the_last() -> None:
    overrides = ["llama.attention.head_count_kv=int:8", "llama.attention.head_count_kv=int:2"]
    plan = kquant.plan(SLIM, "Q2_K", override_kv=overrides)
    assert row_of(plan, "blk.0.attn_v.weight").new_type is TensorType.Q3_K
    assert plan.outputs[0].metadata["llama.attention.head_count_kv"] == 2


def test_a_copy_of_what_has_no_file_type_is_marked_as_guessed(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "m.gguf", LLAMA, {"blk.0.ffn_up.weight": (4, 32)})
    assert kquant.plan(path, "COPY").outputs[0].metadata["general.file_type"] == 1025


# ---------------------------------------------------------------- importance weights


def moe(tmp_path: Path) -> Path:
    tensors = {
        "blk.0.ffn_up_exps.weight": (4, 8, 256),
        "blk.0.attn_q.weight": (8, 256),
        "token_embd.weight": (8, 256),
    }
    return write_sparse(tmp_path / "moe.gguf", LLAMA, {**tensors, "output.weight": (8, 256)})


def test_weights_of_a_row_are_one_row_for_each_matrix(tmp_path: Path) -> None:
    flat = {"blk.0.ffn_up_exps.weight": np.arange(1024), "blk.0.attn_q.weight": np.ones(256)}
    plan = kquant.plan(moe(tmp_path), "Q4_K_M", imatrix=Imatrix(flat))
    weights = plan.weights(row_of(plan, "blk.0.ffn_up_exps.weight"))
    assert weights is not None
    assert weights.shape == (4, 256)
    assert weights[1, 0] == 256
    assert plan.weights(row_of(plan, "token_embd.weight")) is None
    assert plan.weights(row_of(kquant.plan(moe(tmp_path), "Q4_K_M"), "blk.0.attn_q.weight")) is None
    assert (
        row_of(kquant.plan(moe(tmp_path), "COPY", imatrix=Imatrix(flat)), "blk.0.attn_q.weight").imatrix
        is None
    )
    assert plan.notes == ()


def test_weights_of_another_model_are_a_problem(tmp_path: Path) -> None:
    weights = {"blk.0.attn_q.weight": np.ones(512), "blk.0.ffn_up_exps.weight": np.ones((8, 256))}
    plan = kquant.plan(moe(tmp_path), "Q4_K_M", imatrix=Imatrix(weights, path="x.dat"))
    [problem] = plan.problems
    assert isinstance(problem, ImatrixError)
    message = (
        "blk.0.attn_q.weight: expected 256 importance weights, got 512 in x.dat; are they of another model?"
    )
    assert str(problem) == message
    with pytest.raises(ImatrixError, match=re.escape(message)):
        plan.check()


def test_wrong_weights_of_token_embeddings_are_left_aside(tmp_path: Path) -> None:
    weights = {
        "token_embd.weight": np.ones(8),
        "blk.0.attn_q.weight": np.ones(256),
        "output.weight": np.ones(256),
    }
    plan = kquant.plan(moe(tmp_path), "Q4_K_M", imatrix=Imatrix(weights))
    assert plan.problems == ()
    assert row_of(plan, "token_embd.weight").imatrix is None
    assert row_of(plan, "output.weight").imatrix == "output.weight"
    assert plan.notes == ("imatrix: no importance weights for blk.0.ffn_up_exps.weight",)
    fitting = Imatrix({"token_embd.weight": np.ones(256)})
    assert row_of(kquant.plan(moe(tmp_path), "Q4_K_M", imatrix=fitting), "token_embd.weight").imatrix


def test_types_that_need_weights(tmp_path: Path) -> None:
    plan = kquant.plan(moe(tmp_path), "Q2_K_S")
    assert plan.requires_imatrix
    [problem] = plan.problems
    assert isinstance(problem, ImatrixError)
    assert str(problem) == (
        "blk.0.attn_q.weight and 1 more tensor: Q2_K in a Q2_K_S file needs importance weights, got none; "
        "give an importance matrix that has them (--imatrix), or choose a file type with more bits"
    )
    some = Imatrix({"blk.0.attn_q.weight": np.ones(256)}, path="x.dat")
    plan = kquant.plan(moe(tmp_path), "Q2_K_S", imatrix=some)
    assert str(plan.problems[0]).startswith(
        "blk.0.ffn_up_exps.weight: Q2_K in a Q2_K_S file needs importance weights, got none in x.dat; "
    )
    with pytest.raises(ImatrixError):
        plan.check()
    assert not kquant.plan(moe(tmp_path), "Q2_K").requires_imatrix


def test_selections_of_weights(tmp_path: Path) -> None:
    weights = Imatrix({"blk.0.attn_q.weight": np.ones(256)}, path="x")
    chosen = kquant.plan(moe(tmp_path), "Q4_K_M", imatrix=weights, include_weights=["attn"])
    assert chosen.imatrix is not None
    left_out = kquant.plan(moe(tmp_path), "Q4_K_M", imatrix=weights, exclude_weights=["attn"])
    assert left_out.imatrix is None
    assert not [key for key in left_out.outputs[0].metadata if "imatrix" in key]
    for imatrix in (None, weights):
        with pytest.raises(OptionError, match="cannot be used together"):
            kquant.plan(moe(tmp_path), "Q4_0", imatrix=imatrix, include_weights=["a"], exclude_weights=["b"])


# ---------------------------------------------------------------- problems, errors, notes


def test_requantizing_is_a_problem_until_it_is_allowed() -> None:
    plan = kquant.plan(Q8_0, "Q4_K_M")
    assert len(plan.rows) == 76
    assert str(plan.problems[0]) == (
        "output.weight and 57 more tensors: requantizing from Q8_0 is disabled, because quantizing twice "
        "costs quality; start from F32, F16 or BF16, or allow it (--allow-requantize)"
    )
    with pytest.raises(OptionError, match="requantizing from Q8_0 is disabled"):
        plan.check()
    kquant.plan(Q8_0, "Q4_K_M", allow_requantize=True).check()
    kquant.plan(Q8_0, "Q8_0").check()  # nothing is converted
    kquant.plan(Q8_0, "COPY").check()


@pytest.mark.parametrize("option", ["output_tensor_type", "token_embedding_type"])
@pytest.mark.parametrize("name", ["iq4_xs", "nvfp4", "TQ1_0", "I32", "F64"])
def test_types_without_a_codec(option: str, name: str) -> None:
    tensor = "output.weight" if option.startswith("output") else "token_embd.weight"
    message = f"^{tensor}: cannot quantize to {name.upper()}: kquant has no codec for this type$"
    with pytest.raises(UnsupportedTypeError, match=message):
        kquant.plan(SLIM, "Q4_K_M", **{option: name})  # type: ignore[arg-type]


def test_types_of_activations() -> None:
    message = r"^blk\.0\.attn_k\.weight: cannot quantize to Q8_K: ggml uses it for activations only$"
    with pytest.raises(UnsupportedTypeError, match=message):
        kquant.plan(SLIM, "Q4_K_M", tensor_types=[("attn_k", "q8_k")])


def test_sources_without_a_codec(tmp_path: Path) -> None:
    tensors = [TensorFacts("blk.0.ffn_up.weight", (4, 256), TensorType.IQ4_XS)]
    path = write_sparse(tmp_path / "m.gguf", LLAMA, tensors)
    message = r"^blk\.0\.ffn_up\.weight: cannot read IQ4_XS: kquant has no codec for this type$"
    with pytest.raises(UnsupportedTypeError, match=message):
        kquant.plan(path, "Q4_K_M", allow_requantize=True)
    kquant.plan(path, "COPY").check()
    kquant.plan(path, "Q4_K_M", tensor_types=["ffn_up=iq4_xs"]).check()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"output_tensor_type": "q9"}, UnknownTypeError, "unknown tensor type 'q9'; known: F32, F16, Q4_0"),
        ({"tensor_types": ["attn_v=q9"]}, UnknownTypeError, "unknown tensor type 'q9'"),
        ({"tensor_types": ["("]}, OptionError, "tensor_types: expected pattern=type, got '('"),
        (
            {"tensor_types": [("(", "q8_0")]},
            OptionError,
            "tensor_types: expected a regular expression, got '('",
        ),
        ({"override_kv": ["x"]}, OptionError, "override_kv: expected key=int:"),
        ({"override_kv": ["general.alignment=int:3"]}, GGUFError, "general.alignment"),
        (
            {"override_kv": ["llama.expert_count=int:99"], "file_type": "Q9_Z"},
            UnknownTypeError,
            "unknown file type 'Q9_Z'",
        ),
        ({"prune_layers": [-1]}, OptionError, "prune_layers: expected layer numbers of 0 or more, got [-1]"),
        ({"prune_layers": range(8)}, OptionError, "prune_layers: expected a layer to remain of 8, got none"),
        ({"imatrix": "none.gguf"}, ImatrixError, "none.gguf: cannot read the importance matrix"),
        ({"tensor_types": ["attn_q=q1_0"], "source": "odd"}, ShapeError, "and this type has no substitute"),
        ({"output_tensor_type": "q4_k", "source": "odd"}, ShapeError, "output.weight: Q4_K expects rows of"),
    ],
)
def test_errors(options: dict[str, Any], error: type[KQuantError], message: str) -> None:
    options = dict(options)
    source = {"slim": SLIM, "odd": SLIM.with_name("llama-odd-f16.gguf")}[options.pop("source", "slim")]
    with pytest.raises(error, match=re.escape(message)):
        kquant.plan(source, options.pop("file_type", "Q4_K_M"), **options)


def test_a_second_shard_is_no_model() -> None:
    with pytest.raises(GGUFError, match="expected the first of the 3 shards"):
        kquant.plan(SPLIT.with_name("llama-slim-f16-00002-of-00003.gguf"), "Q8_0")


def test_a_source_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(SLIM.read_bytes()[:1000])
    with pytest.raises(GGUFError, match=r"cut\.gguf"):
        kquant.plan(path, "Q4_K_M")


@pytest.mark.parametrize(
    ("file_type", "options", "notes"),
    [
        ("BF16", {"tensor_types": ["attn=q8_0"]}, ("tensor_types: no effect on BF16",)),
        ("COPY", {"tensor_types": ["attn=q8_0"]}, ("tensor_types: no effect on COPY",)),
        ("Q4_K_M", {"tensor_types": ["attn=q8_0"]}, ()),
        ("Q4_K_M", {"tensor_types": ["atn=q8_0"]}, ("tensor_types: 'atn' matches no tensor",)),
        ("Q4_K_M", {"prune_layers": [1, 9, 8]}, ("prune_layers: the model has no layer 8, 9",)),
        ("Q4_K_M", {"prune_layers": [1]}, ()),
        (
            "Q4_K_M",
            {"imatrix": Imatrix({"x": [1.0]})},
            ("imatrix: no importance weights for blk.0.attn_k.weight and 55 more tensors",),
        ),
        (
            "F32",
            {"imatrix": Imatrix({"x": [1.0]})},
            ("imatrix: no effect: no tensor is converted to a type that takes importance weights",),
        ),
    ],
)
def test_notes(file_type: str, options: dict[str, Any], notes: tuple[str, ...]) -> None:
    assert kquant.plan(SLIM, file_type, **options).notes == notes
