"""`kquant.compare` against gguf-py's dequantization and plain NumPy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

import kquant
from kquant.analysis.slabs import slabs
from kquant.errors import InvalidDataError, OptionError
from kquant.gguf import read
from kquant.policy.roles import Role
from support.files import GOLDEN
from support.small_models import heavy_tailed, packed, raw, write_model, write_swapped

SOURCE = GOLDEN / "models/llama-slim-f16.gguf"
MIXED = GOLDEN / "outputs/llama-slim-f16.Q4_K_M.gguf"
FIRST_SHARD = GOLDEN / "split/llama-slim-f16-00001-of-00003.gguf"


def values(path: Path) -> dict[str, NDArray[np.float64]]:
    """Every tensor of a file as gguf-py sees it."""
    return {
        t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64).ravel()
        for t in gguf.GGUFReader(path).tensors
    }


def test_every_figure_against_an_independent_computation() -> None:
    a, b = values(SOURCE), values(MIXED)
    found = kquant.compare(SOURCE, MIXED)
    assert {row.name for row in found.rows} == set(a)
    for row in found.rows:
        x, y = a[row.name], b[row.name]
        assert row.sums.elements == x.size
        assert row.sums.rmse == pytest.approx(np.sqrt(np.mean((y - x) ** 2)), rel=1e-12)
        assert row.sums.relative_rmse == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-12)
        assert row.sums.max_error == np.abs(y - x).max()
        assert row.sums.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)


def test_sums_by_layer_and_role() -> None:
    a, b = values(SOURCE), values(MIXED)
    found = kquant.compare(SOURCE, MIXED)
    layer = [name for name in a if name.startswith("blk.3.")]
    x, y = (np.concatenate([side[name] for name in layer]) for side in (a, b))
    assert found.layers[3].tensors == len(layer)
    assert found.layers[3].sums.relative_rmse == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x))
    role = [name for name in a if "attn_v" in name]
    x, y = (np.concatenate([side[name] for name in role]) for side in (a, b))
    assert found.roles[Role.ATTENTION_V].sums.rmse == pytest.approx(np.sqrt(np.mean((y - x) ** 2)))
    assert found.total.sums.elements == sum(x.size for x in a.values())
    assert found.total.bytes_b == 295872
    assert list(found.layers) == [None, *range(8)]
    assert [t.name for t in found.types] == ["Q4_K", "Q6_K", "F32"]


def test_the_worst_first() -> None:
    found = kquant.compare(SOURCE, MIXED)
    errors = [row.sums.relative_rmse for row in found.worst]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.08
    assert errors[-1] == 0
    roles = [group.sums.relative_rmse for group in found.roles.values()]
    assert roles == sorted(roles, reverse=True)


def test_a_file_equals_itself_and_its_shards() -> None:
    for other in (SOURCE, FIRST_SHARD):
        found = kquant.compare(SOURCE, other)
        assert not found.uncompared
        assert found.total.sums.squared_error == found.total.sums.max_error == 0
        assert found.total.sums.cosine == pytest.approx(1)


def many_slabs(folder: Path) -> tuple[Path, Path]:
    x = heavy_tailed(5, 1 << 18)
    return (
        write_model(folder / "a.gguf", {"blk.0.ffn_up.weight": packed(x, "F16")}),
        write_model(folder / "b.gguf", {"blk.0.ffn_up.weight": packed(x, "Q4_K")}),
    )


def test_the_threads_change_nothing(tmp_path: Path) -> None:
    a, b = many_slabs(tmp_path)
    with read(a) as model:
        assert len(list(slabs(model, model.tensors["blk.0.ffn_up.weight"]))) == 10
    one, *others = [kquant.compare(a, b, threads=n) for n in (1, 2, 5)]
    assert all(other == one for other in others)


def test_byte_orders(tmp_path: Path) -> None:
    with read(MIXED) as model:
        big = write_swapped(model, tmp_path / "big.gguf")
    assert kquant.compare(SOURCE, big).rows == kquant.compare(SOURCE, MIXED).rows
    assert kquant.compare(big, MIXED).total.sums.squared_error == 0


def test_integers_and_double_precision(tmp_path: Path) -> None:
    x = np.arange(-8, 8).reshape(2, 8)
    tensors = {t: x.astype(d) for t, d in (("I8", "i1"), ("I16", "i2"), ("I32", "i4"), ("I64", "i8"))}
    double = {"d": raw(x / 3, "F64")}
    a = write_model(tmp_path / "a.gguf", {t: raw(v, t) for t, v in tensors.items()} | double)
    b = write_model(
        tmp_path / "b.gguf", {t: raw(v + v.dtype.type(1), t) for t, v in tensors.items()} | double
    )
    found = {row.name: row.sums for row in kquant.compare(a, b).rows}
    assert {found[t].rmse for t in tensors} == {1.0}
    assert found["d"].squared_error == 0
    assert found["d"].squared_a == pytest.approx(((x / 3) ** 2).sum())


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    x = heavy_tailed(2, 256)
    unknown = (np.zeros((2, 66), np.uint8), kquant.TensorType.IQ2_XXS)
    a = write_model(
        tmp_path / "a.gguf",
        {"same": packed(x, "F16"), "a": packed(x, "F16"), "turned": packed(x, "F16"), "iq": unknown},
    )
    b = write_model(
        tmp_path / "b.gguf",
        {
            "b": packed(x, "F16"),
            "same": packed(x, "F16"),
            "turned": packed(x.reshape(1, 512), "F16"),
            "iq": packed(x, "F16"),
        },
    )
    found = kquant.compare(a, b)
    assert [row.name for row in found.rows] == ["same"]
    assert [(one.name, one.reason) for one in found.uncompared] == [
        ("a", "only in A"),
        ("turned", "shape (2, 256) in A, (1, 512) in B"),
        ("iq", "kquant has no codec for IQ2_XXS"),
        ("b", "only in B"),
    ]


def test_outer_ones_are_no_difference(tmp_path: Path) -> None:
    x = heavy_tailed(1, 256)
    a = write_model(tmp_path / "a.gguf", {"w": packed(x, "F16")})
    b = write_model(tmp_path / "b.gguf", {"w": packed(x[0], "F16")})
    assert kquant.compare(a, b).total.sums.elements == 256


def test_tensors_by_regular_expression() -> None:
    found = kquant.compare(SOURCE, MIXED, tensors=r"blk\.[01]\.attn_v")
    assert [row.name for row in found.rows] == ["blk.0.attn_v.weight", "blk.1.attn_v.weight"]
    with pytest.raises(OptionError, match=r"expected a regular expression, got '\('"):
        kquant.compare(SOURCE, MIXED, tensors="(")
    with pytest.raises(OptionError, match="expected tensors to compare, got none in common that match 'x_x'"):
        kquant.compare(SOURCE, MIXED, tensors="x_x")


def test_nothing_in_common(tmp_path: Path) -> None:
    a = write_model(tmp_path / "a.gguf", {"a": packed(heavy_tailed(1, 32), "F16")})
    with pytest.raises(OptionError, match=r"expected tensors to compare, got none in common$"):
        kquant.compare(a, SOURCE)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    x = heavy_tailed(2, 256)
    y = x.copy()
    y[1, 3] = np.inf
    a = write_model(tmp_path / "a.gguf", {"w": packed(x, "F16")})
    b = write_model(tmp_path / "b.gguf", {"w": raw(y, "F32")})
    with pytest.raises(InvalidDataError, match=r"b\.gguf: tensor 'w': F32: .* row 1, block 3"):
        kquant.compare(a, b)


def test_a_tensor_without_elements(tmp_path: Path) -> None:
    empty = write_model(tmp_path / "a.gguf", {"w": raw(np.zeros((0, 4), np.float32), "F32")})
    found = kquant.compare(empty, empty)
    assert found.total.sums.elements == 0
    assert found.total.bits_per_element == 0


def test_progress() -> None:
    calls: list[Any] = []
    found = kquant.compare(SOURCE, MIXED, progress=lambda *call: calls.append(call))
    total = found.total.bytes_a + found.total.bytes_b
    assert calls[0] == (0, total)
    assert calls[-1] == (total, total)


def test_the_report_is_json() -> None:
    report = json.loads(json.dumps(kquant.compare(SOURCE, MIXED).to_dict()))
    assert report["total"]["bytes_b"] == 295872
    assert report["tensors"][0]["type_a"] == "F16"
    assert [layer["layer"] for layer in report["by_layer"]] == [None, *range(8)]
    assert math.isclose(report["by_type"]["Q6_K"]["bits_per_element"], 6.5625)


def test_what_has_no_figures_comes_first_and_is_null(tmp_path: Path) -> None:
    """Finite scales of Q8_K and finite levels, whose product float32 cannot hold."""
    a, b = {}, {}
    for i, scale in enumerate((1.0, 3e38, 0.5)):
        x = heavy_tailed(2, 256, seed=i)
        block = kquant.quantize(x, "Q8_K")
        if scale > 1:
            block[0, :4] = np.array([scale], "<f4").view(np.uint8)
        a[f"blk.{i}.ffn_up.weight"] = raw(x, "F32")
        b[f"blk.{i}.ffn_up.weight"] = raw(block, "Q8_K")
    found = kquant.compare(write_model(tmp_path / "a.gguf", a), write_model(tmp_path / "b.gguf", b))
    assert found.worst[0].name == "blk.1.ffn_up.weight"
    assert not found.total.sums.figures_known
    data = found.to_dict()
    json.dumps(data, allow_nan=False)
    assert data["tensors"][0]["cosine"] is None
    assert data["total"]["cosine"] is data["total"]["max_error"] is None
    ranks = [row.sums.rank for row in found.worst]
    assert ranks == sorted(ranks, reverse=True)
    assert list(found.layers) == [0, 1, 2]
