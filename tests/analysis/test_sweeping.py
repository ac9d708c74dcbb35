"""`kquant.sweep` against quantizing by hand, gguf-py's dequantization and real requantizations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import kquant
from kquant.analysis.sums import ErrorSums
from kquant.analysis.sweeping import MIXTURES, TYPES
from kquant.errors import (
    InvalidDataError,
    OptionError,
    OutOfRangeError,
    UnknownTypeError,
    UnsupportedTypeError,
)
from kquant.gguf import read
from kquant.types import FileType, TensorType
from support.files import GOLDEN
from support.small_models import heavy_tailed, packed, raw, write_model, write_swapped

SOURCE = GOLDEN / "models/llama-slim-f16.gguf"
ODD = GOLDEN / "models/llama-odd-f16.gguf"


def test_every_error_against_an_independent_computation() -> None:
    types = ["Q2_K", "Q5_K", "Q4_0", "Q8_0", "BF16"]
    found = kquant.sweep(SOURCE, types=types, tensors="attn_q", file_types=[])
    source = {t.name: t.data.astype(np.float32) for t in gguf.GGUFReader(SOURCE).tensors}
    assert [tensor.name for tensor in found.tensors] == [name for name in source if "attn_q" in name]
    for tensor in found.tensors:
        x = source[tensor.name]
        assert sorted(t.name for t in tensor.errors) == sorted(types)
        for t, sums in tensor.errors.items():
            data = kquant.quantize(x, t)
            y = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[t.name])
            error = y.astype(np.float64) - x
            assert sums.elements == x.size
            assert sums.squared_error == pytest.approx((error**2).sum(), rel=1e-12)
            assert sums.max_error == np.abs(error).max()
            assert tensor.bytes_as(t) == data.nbytes


@pytest.mark.parametrize("file_type", ["Q4_K_M", "Q2_K", "Q5_1"])
def test_a_mixture_is_what_requantize_and_compare_say(tmp_path: Path, file_type: str) -> None:
    for source in (SOURCE, ODD):
        found = kquant.sweep(source, file_types=[file_type])
        (mixture,) = found.mixtures
        made = kquant.requantize(source, tmp_path / "b.gguf", file_type)
        compared = kquant.compare(source, tmp_path / "b.gguf")
        assert (mixture.new_bytes, mixture.bits_per_weight) == (made.new_bytes, made.new_bits_per_weight)
        rows = {row.name: row for row in compared.rows}
        assert mixture.chosen == {tensor.name: rows[tensor.name].type_b for tensor in found.tensors}
        error = sum((rows[tensor.name].sums for tensor in found.tensors), ErrorSums())
        assert mixture.sums
        assert mixture.sums.to_dict() == pytest.approx(error.to_dict(), rel=1e-9)
        assert mixture.swept_bytes == sum(rows[tensor.name].bytes_b for tensor in found.tensors)


def test_which_tensors_and_types() -> None:
    found = kquant.sweep(SOURCE, rows=1)
    assert len(found.tensors) == 58
    assert not any("norm" in tensor.name or "rope" in tensor.name for tensor in found.tensors)
    assert found.types == TYPES
    assert [t.name for t in TYPES] == [
        "Q2_K", "Q3_K", "MXFP4", "Q4_0", "Q4_K", "IQ4_NL", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0",
        "F16", "BF16",
    ]  # fmt: skip
    assert [mixture.file_type for mixture in found.mixtures] == list(MIXTURES)
    assert FileType.COPY not in MIXTURES


def test_types_whose_blocks_do_not_divide_the_rows_are_left_out() -> None:
    found = kquant.sweep(ODD, types=["Q4_K", "Q4_0"], rows=2, file_types=["Q4_K_M"])
    assert {t.name for tensor in found.tensors for t in tensor.errors} == {"Q4_0"}
    assert [point.type.name for point in found.points] == ["Q4_0"]
    (mixture,) = found.mixtures
    assert mixture.sums is None  # it chooses Q5_0 and others, which were not tried
    assert mixture.swept_bits_per_element is None
    assert mixture.new_bytes == kquant.plan(ODD, "Q4_K_M").new_bytes


def test_points() -> None:
    found = kquant.sweep(SOURCE, rows=4, file_types=[])
    points = {point.type.name: point for point in found.points}
    bits = [point.bits_per_element for point in found.points]
    assert bits == sorted(bits)
    k_quants = [points[t].sums.relative_rmse for t in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")]
    assert k_quants == sorted(k_quants, reverse=True)
    assert points["Q4_0"].beaten_by is points["Q4_1"].beaten_by is TensorType.Q4_K
    assert points["BF16"].beaten_by is TensorType.F16
    assert points["Q4_K"].beaten_by is None
    assert points["F16"].sums.squared_error == 0
    elements = sum(tensor.elements for tensor in found.tensors)
    assert points["Q4_K"].sums.elements == pytest.approx(elements)
    assert points["Q4_K"].bytes == elements * 4.5 / 8


def test_sampled_rows_are_evenly_spread(tmp_path: Path) -> None:
    x = heavy_tailed(10, 256)
    path = write_model(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": packed(x, "F32")})
    found = kquant.sweep(path, types=["Q4_K"], rows=4, file_types=[])
    sample = x[[0, 2, 5, 7]]
    want = ErrorSums.of(sample, kquant.dequantize(kquant.quantize(sample, "Q4_K"), "Q4_K"))
    (tensor,) = found.tensors
    assert tensor.errors[TensorType.Q4_K] == want
    whole = tensor.error_as(TensorType.Q4_K)
    assert whole
    assert whole.elements == 2560
    assert whole.relative_rmse == pytest.approx(want.relative_rmse)
    assert tensor.error_as(TensorType.Q2_K) is None
    assert tensor.error_as(TensorType.F32) == want.exact.scaled(2560)


def test_more_rows_than_there_are() -> None:
    options: dict[str, Any] = {"types": ["Q4_K"], "tensors": "attn_k", "file_types": []}
    assert kquant.sweep(SOURCE, rows=10**9, **options).tensors == kquant.sweep(SOURCE, **options).tensors


def test_the_threads_change_nothing(tmp_path: Path) -> None:
    x = heavy_tailed(3, 1 << 18)
    path = write_model(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": packed(x, "F16")})
    one, *others = [kquant.sweep(path, types=["Q8_0"], threads=n) for n in (1, 3)]
    assert all(other == one for other in others)
    assert one.tensors[0].errors[TensorType.Q8_0].elements == x.size


def test_byte_orders(tmp_path: Path) -> None:
    with read(SOURCE) as model:
        big = write_swapped(model, tmp_path / "big.gguf")
    options: dict[str, Any] = {"types": ["Q4_K"], "tensors": "attn_k", "file_types": ["Q4_K_M"]}
    assert kquant.sweep(big, **options) == kquant.sweep(SOURCE, **options)


def test_quantized_sources() -> None:
    path = GOLDEN / "outputs/llama-slim-f16.Q8_0.gguf"
    found = kquant.sweep(path, types=["Q4_K"], tensors="attn_k", file_types=["Q8_0", "Q4_K_S"])
    as_it_is, smaller = found.mixtures
    assert as_it_is.sums
    assert as_it_is.sums.squared_error == 0
    assert smaller.sums
    assert smaller.sums.relative_rmse > 0.05
    assert found.from_quantized
    assert not kquant.sweep(SOURCE, types=["Q4_K"], tensors="attn_k", file_types=[]).from_quantized


def test_a_mixture_that_cannot_be_made(tmp_path: Path) -> None:
    x = heavy_tailed(2, 256)
    unknown = (np.zeros((2, 66), np.uint8), TensorType.IQ2_XXS)
    path = write_model(
        tmp_path / "m.gguf", {"blk.0.ffn_up.weight": packed(x, "F16"), "blk.0.ffn_gate.weight": unknown}
    )
    (mixture,) = kquant.sweep(path, file_types=["Q4_K_M"]).mixtures
    assert mixture.problem == "blk.0.ffn_gate.weight: cannot read IQ2_XXS: kquant has no codec for this type"
    assert mixture.to_dict()["error"] is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rows": 0}, OptionError, "rows: expected at least 1, got 0"),
        ({"rows": "3"}, OptionError, "rows: expected a whole number, got '3'"),
        ({"types": []}, OptionError, "types: expected at least one, got none"),
        ({"types": ["Q9"]}, UnknownTypeError, "unknown tensor type 'Q9'"),
        ({"types": ["Q8_K"]}, UnsupportedTypeError, "Q8_K: kquant has no codec that stores tensors"),
        (
            {"types": ["IQ2_S"]},
            UnsupportedTypeError,
            "IQ2_S: kquant has no codec that stores tensors",
        ),
        ({"file_types": ["Q9"]}, UnknownTypeError, "unknown file type 'Q9'"),
        ({"tensors": "("}, OptionError, "tensors: expected a regular expression"),
        (
            {"tensors": "norm"},
            OptionError,
            "can be packed into Q2_K, .*, got none that match",
        ),
        ({"threads": 0, "types": ["Q8_0"]}, OptionError, "threads: expected at least 1, got 0"),
    ],
)
def test_errors(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kquant.sweep(SOURCE, **options)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    x = heavy_tailed(2, 256)
    x[1, 3] = np.nan
    path = write_model(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": raw(x, "F32")})
    with pytest.raises(InvalidDataError, match=r"tensor 'blk\.0\.ffn_up\.weight': F32: .* row 1, block 3"):
        kquant.sweep(path, types=["Q8_0"])


def test_progress() -> None:
    calls: list[Any] = []
    options: dict[str, Any] = {"types": ["Q8_0"], "tensors": "attn_k", "file_types": []}
    kquant.sweep(SOURCE, **options, rows=2, progress=lambda *call: calls.append(call))
    total = 8 * 2 * 256 * 2
    assert calls[0] == (0, total)
    assert calls[-1] == (total, total)


def test_the_report_is_json() -> None:
    report = json.loads(json.dumps(kquant.sweep(SOURCE, rows=1, types=["Q4_K", "Q4_0"]).to_dict()))
    assert report["rows"] == 1
    assert {t["type"]: t["beaten_by"] for t in report["types"]} == {"Q4_0": "Q4_K", "Q4_K": None}
    assert report["tensors"][0]["errors"]["Q4_K"]["bits_per_element"] == 4.5
    assert len(report["mixtures"]) == len(MIXTURES)


# ---------------------------------------------------------------- values beyond a type


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Two matrices; F16 cannot hold one value of the first, fp16 scales one of the second."""
    first, second, third = heavy_tailed(4, 256), heavy_tailed(4, 256, seed=1), heavy_tailed(4, 256, seed=2)
    first[1, 3], second[2, 5] = 1e5, 1e20
    tensors = {f"blk.0.ffn_{n}.weight": raw(x, "F32") for n, x in (("up", first), ("down", second))}
    return write_model(tmp_path / "large.gguf", tensors | {"blk.0.ffn_gate.weight": raw(third, "F32")})


UP, DOWN = "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"
FIGURES = ("rmse", "relative_rmse", "max_error", "cosine")


@pytest.mark.parametrize("rows", [None, 4])
def test_a_type_that_cannot_hold_a_tensor_has_no_figures(large: Path, rows: int | None) -> None:
    types = ["F16", "BF16", "Q8_0", "Q4_K", "Q3_K"]
    file_types = ["F16", "BF16", "Q8_0", "Q3_K_M", "Q6_K"]
    found = kquant.sweep(large, types=types, file_types=file_types, rows=rows)
    beyond = {point.type.name: point.cannot_hold for point in found.points}
    assert beyond == {"F16": (UP, DOWN), "BF16": (), "Q8_0": (DOWN,), "Q4_K": (DOWN,), "Q3_K": (DOWN,)}
    data = found.to_dict()
    json.dumps(data, allow_nan=False)
    for point in data["types"]:
        known = not point["cannot_hold"]
        assert all((point[figure] is not None) == known for figure in FIGURES)
        assert point["beaten_by"] is None
    for tensor in data["tensors"]:
        for name, error in tensor["errors"].items():
            assert error["holds"] == (tensor["name"] not in beyond[name])
            assert all((error[figure] is not None) == error["holds"] for figure in FIGURES)
    remarks = {mixture.file_type.name: mixture.remark for mixture in found.mixtures}
    assert remarks == {
        "F16": f"cannot be made: F16 cannot hold {UP} and 1 more tensor",
        "BF16": None,
        "Q8_0": f"cannot be made: Q8_0 cannot hold {DOWN}",
        "Q3_K_M": remarks["Q3_K_M"],
        "Q6_K": None,  # not tried
    }
    assert remarks["Q3_K_M"] is None or remarks["Q3_K_M"].endswith(f"cannot hold {DOWN}")
    for mixture in data["mixtures"]:
        if mixture["remark"]:
            assert mixture["error"] is None or set(mixture["error"].values()) <= {None, 3072}


def test_a_remark_is_what_requantize_refuses(large: Path, tmp_path: Path) -> None:
    found = kquant.sweep(large, types=["F16", "BF16", "Q8_0"], file_types=["F16", "BF16", "Q8_0"])
    for mixture in found.mixtures:
        if mixture.remark:
            with pytest.raises(OutOfRangeError):
                kquant.requantize(large, tmp_path / "out.gguf", mixture.file_type, overwrite=True)
        else:
            kquant.requantize(large, tmp_path / "out.gguf", mixture.file_type, overwrite=True)


def test_a_tensor_that_keeps_its_type_is_not_packed_again(tmp_path: Path) -> None:
    """A Q4_K block can hold values that packing them anew would not find scales for."""
    block = kquant.quantize(np.full((1, 256), 6e7, np.float32), "Q4_K", check=False)
    assert np.isfinite(kquant.dequantize(block, "Q4_K")).all()
    path = write_model(tmp_path / "q.gguf", {UP: raw(np.repeat(block, 4, 0), "Q4_K")})
    (mixture,) = kquant.sweep(path, types=["F16", "Q4_K"], file_types=["Q4_K_S"]).mixtures
    assert mixture.chosen == {UP: TensorType.Q4_K}
    assert mixture.remark is None
