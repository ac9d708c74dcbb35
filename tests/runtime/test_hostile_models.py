"""Models with numbers and tensors that no model has: one clear error, no warning, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kquant import KQuantError, LanguageModel, ModelError
from kquant.errors import NonFiniteError
from kquant.gguf import GGUFValueType, TensorSpec, Writer, layout, read
from kquant.kernels.execute import Execution
from kquant.types import TensorType
from support.golden_models import model_path

FLOAT, TEXT = GGUFValueType.FLOAT64, GGUFValueType.STRING


def changed(path: Path, values: dict[str, Any], tensors: dict[str, tuple[str, int]]) -> Path:
    """The golden model llama-dense with other metadata, and tensors of other types, filled with a byte."""
    with read(model_path("llama-dense")) as file:
        metadata = file.metadata.copy()
        for key, value in values.items():
            metadata.set(f"llama.{key}", value, TEXT if isinstance(value, str) else FLOAT)
        specs, data = [], []
        for info in file.tensors.values():
            spec, content = TensorSpec(info.name, info.ggml_shape, info.type), np.array(file.data(info))
            if info.name in tensors:
                name, byte = tensors[info.name]
                spec = TensorSpec(info.name, info.ggml_shape, TensorType[name])
                n_bytes = TensorType[name].row_bytes(info.n_per_row) * info.n_rows
                content = np.full(n_bytes, byte, np.uint8)
            specs.append(spec)
            data.append(content)
        with Writer(path, layout(metadata, specs)) as writer:
            for index, content in enumerate(data):
                writer.write(index, 0, content.reshape(-1))
            writer.commit()
    return path


@pytest.mark.parametrize("type_name", ["I32", "I8", "F64", "Q8_1", "NVFP4"])
@pytest.mark.parametrize("name", ["blk.0.ffn_down.weight", "blk.1.attn_norm.weight", "token_embd.weight"])
def test_types_that_weights_do_not_have(tmp_path: Path, name: str, type_name: str) -> None:
    path = changed(tmp_path / "m.gguf", {}, {name: (type_name, 1)})
    with pytest.raises(
        ModelError, match=f"{name}: expected F32, F16, BF16 or packed weights, got {type_name}"
    ):
        LanguageModel(path)


@pytest.mark.parametrize("execution", ["numba", "numpy"])
@pytest.mark.parametrize(
    ("name", "type_name"),
    [
        ("blk.0.ffn_down.weight", "Q4_0"), ("blk.1.attn_v.weight", "F32"), ("token_embd.weight", "F16"),
        ("output.weight", "BF16"), ("blk.0.ffn_norm.weight", "F32"), ("output_norm.weight", "F32"),
        ("rope_freqs.weight", "F32"),
    ],
)  # fmt: skip
def test_weights_that_are_no_numbers(tmp_path: Path, name: str, type_name: str, execution: Execution) -> None:
    path = changed(tmp_path / "m.gguf", {}, {name: (type_name, 255)})
    with LanguageModel(path, execution=execution) as llm, pytest.raises(NonFiniteError, match="expected"):
        llm.logits([1, 2, 3])


@pytest.mark.parametrize("execution", ["numba", "numpy"])
def test_angles_that_are_no_numbers(tmp_path: Path, execution: Execution) -> None:
    path = changed(tmp_path / "m.gguf", {}, {"rope_freqs.weight": ("F32", 0)})
    with LanguageModel(path, execution=execution) as llm, pytest.raises(NonFiniteError, match="keys"):
        llm.logits([1, 2, 3])


@pytest.mark.parametrize(
    "values",
    [
        {"attention.layer_norm_rms_epsilon": -1.0},
        {"attention.layer_norm_rms_epsilon": 1e300},
        {"rope.freq_base": 1e-45},
        {"rope.freq_base": 1e300},
        {"rope.scaling.type": "yarn", "rope.freq_base": 1.0},
        {"rope.scaling.factor": 1e-300},
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.5399929762484854e-05},
        {"rope.scaling.type": "yarn", "rope.scaling.factor": -2.0},
        {"rope.scaling.type": "yarn", "rope.scaling.yarn_beta_slow": 1e308},
        {"rope.scaling.type": "yarn", "rope.scaling.yarn_ext_factor": 1e300},
        {"rope.scaling.attn_factor": 1e38},
        {"attention.scale": 1e300},
    ],
)
def test_numbers_that_models_do_not_have(tmp_path: Path, values: dict[str, Any]) -> None:
    path = changed(tmp_path / "m.gguf", values, {})
    with pytest.raises(KQuantError), LanguageModel(path, execution="numpy") as llm:
        llm.logits([1, 2, 3])
