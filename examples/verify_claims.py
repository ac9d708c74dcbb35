"""Published claims about the formats of GGUF and the sizes of models, checked by running code.

Prints the page docs/claims.md. Where a published figure differs from the computed one, the claim needs a
remark, or the program fails.

python examples/verify_claims.py > docs/claims.md
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import without_weights as models
from numpy.typing import NDArray

import kquant
from kquant import TensorType
from kquant.analysis.anatomy import arithmetic
from kquant.formats import format_of

WEIGHTS = Path(__file__).parents[1] / "tests" / "golden" / "inputs.npz"
UPSTREAM = "https://github.com/ggml-org/llama.cpp"


class Claim(NamedTuple):
    """A published figure and the computed one."""

    what: str
    published: str
    computed: str
    remark: str = ""

    @property
    def verdict(self) -> str:
        if self.published == self.computed:
            return "holds"
        if not self.remark:
            raise SystemExit(f"{self.what}: published {self.published}, computed {self.computed}")
        return self.remark


def table(claims: Iterable[Claim]) -> str:
    lines = ["| claim | published | computed | verdict |", "|---|---:|---:|---|"]
    lines += [f"| {c.what} | {c.published} | {c.computed} | {c.verdict} |" for c in claims]
    return "\n".join(lines)


def gib(n_bytes: float, digits: int = 2) -> str:
    return f"{n_bytes / 2**30:.{digits}f} GiB"


def gb(n_bytes: float, digits: int = 1) -> str:
    return f"{n_bytes / 1e9:,.{digits}f} GB"


def bits_per_element() -> Iterator[Claim]:
    published = {"Q2_K": 2.625, "Q3_K": 3.4375, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625, "Q8_K": 9.125}
    published |= {"Q4_0": 4.5, "Q4_1": 5, "Q5_0": 5.5, "Q5_1": 6, "Q8_0": 8.5, "IQ4_NL": 4.5, "MXFP4": 4.25}
    for name, bits in published.items():
        total, _, value = arithmetic(name).rpartition(" = ")
        yield Claim(f"{name}: {total}", f"{bits:g}", value)
    yield Claim(
        f"Q2_K in the [pull request of the k-quants]({UPSTREAM}/pull/1684)",
        "2.5625",
        f"{TensorType['Q2_K'].bits_per_element:g}",
        "**wrong**: the sum left out one of the two fp16 numbers; ggml's header says 2.625 today",
    )


def llama_2_7b() -> Iterator[Claim]:
    plan = models.LLAMA_2_7B.plan("Q4_K_M")
    in_q6_k = Counter(row.name.split(".")[-2] for row in plan.rows if row.new_type is TensorType.Q6_K)
    yield Claim("tensors", "291", str(len(plan.rows)))
    yield Claim("tensors of a Q4_K_M file in Q6_K", "33", str(in_q6_k.total()))
    for role, n in {"attn_v": 16, "ffn_down": 16, "output": 1}.items():
        yield Claim(f"among them {role}", str(n), str(in_q6_k[role]))
    yield Claim("Q8_0", "6.67 GiB", gib(models.LLAMA_2_7B.plan("Q8_0").new_bytes))
    yield Claim("Q4_K_M", "3.80 GiB", gib(plan.new_bytes))
    f32 = 4 * plan.n_elements
    yield Claim("7.0 billion parameters in FP32", "28 GB", gb(4 * 7.0e9, 0))
    yield Claim(
        "this “7B” model in FP32",
        "28 GB",
        gb(f32),
        f"**rounded**: it has {plan.n_elements / 1e9:.2f} billion; that is {gib(f32)}",
    )


def q2_k_then_and_now() -> Iterator[Claim]:
    def mixture(*tensor_types: tuple[str, str]) -> kquant.Plan:
        return models.LLAMA_2_7B.plan("Q2_K", pure=True, output_tensor_type="Q6_K", tensor_types=tensor_types)

    june = mixture(("attn_v|attn_output|ffn_down", "Q4_K"))
    august = mixture(("attn_q|attn_k", "Q2_K"), ("blk", "Q3_K"))
    now = models.LLAMA_2_7B.plan("Q2_K")
    yield Claim(
        f"June 2023, [#1684]({UPSTREAM}/pull/1684): attn_v, attn_output, ffn_down in Q4_K, the rest Q2_K",
        "2.67 GiB",
        gib(june.new_bytes),
    )
    yield Claim(
        f"August 2023, [#2707]({UPSTREAM}/pull/2707): all layers in Q3_K, but attn_q and attn_k in Q2_K",
        "2.63 GiB",
        gib(august.new_bytes),
    )
    bits = f"{now.new_bits_per_weight:.2f} bits per weight"
    yield Claim(
        "today: attn_v, attn_output, ffn_down in Q3_K, the rest Q2_K",
        "2.67 GiB",
        gib(now.new_bytes),
        f"**outdated**: one name, three recipes; {bits}, not 2",
    )


def phi_3() -> Iterator[Claim]:
    q4, f16 = models.PHI_3_MINI.plan("Q4_K_M").new_bytes, models.PHI_3_MINI.plan("F16").new_bytes
    yield Claim("Q4_K_M", "2.2 GiB", gib(q4, 1))
    yield Claim("the same, in GB", "2.2 GB", gb(q4), "people who write “2.2 GB” mean GiB")
    yield Claim("Q4_K_M as a share of F16", "a third", f"{100 * q4 / f16:.0f} %", "holds when rounded")


def bits_per_weight() -> Iterator[Claim]:
    published = """
        Q2_K_S 2.9697 2.78, Q2_K 3.1593 2.95, Q3_K_S 3.6429 3.41, Q3_K_M 3.9960 3.74, Q3_K_L 4.2979 4.02,
        Q4_K_S 4.6672 4.36, Q4_K_M 4.8944 4.58, Q5_K_S 5.5704 5.21, Q5_K_M 5.7036 5.33, Q6_K 6.5633 6.14,
        Q8_0 8.5008 7.95, F16 16.0005 14.96"""
    for name, bits, size in map(str.split, published.split(",")):
        plan = models.LLAMA_3_1_8B.plan(name)
        computed = f"{plan.new_bits_per_weight:.4f}, {gib(plan.new_bytes)}"
        yield Claim(name, f"{bits}, {size} GiB", computed)


def sizes_of_the_help_text() -> Iterator[Claim]:
    published = """
        Q4_0 4.34, Q4_1 4.78, Q5_0 5.21, Q5_1 5.65, Q2_K 2.96, Q2_K_S 2.96, Q3_K_S 3.41, Q3_K_M 3.74,
        Q3_K_L 4.03, Q4_K_S 4.37, Q4_K_M 4.58, Q5_K_S 5.21, Q5_K_M 5.33, Q6_K 6.14, Q8_0 7.96"""
    for name, size in map(str.split, published.split(",")):
        n_bytes = models.LLAMA_3_8B.plan(name).new_bytes
        above = float(size) - n_bytes / 2**30
        remark = "0.01 more, because a file contains the vocabulary, too" if abs(above) < 0.015 else ""
        if name == "Q2_K_S":
            remark = "**wrong**: this is the figure of Q2_K"
        same = f"{size} GiB" == gib(n_bytes)
        yield Claim(f"{name}, Llama-3-8B", f"{size} GiB", gib(n_bytes), "" if same else remark)
    for name, size, model, whose in (
        ("F16", "14.00", models.MISTRAL_7B, "Mistral-7B"),
        ("F32", "26.00", models.LLAMA_2_7B, "7B"),
    ):
        n_bytes = model.plan(name).new_bytes
        remark = f"**wrong** in either unit: {gb(n_bytes, 2)}"
        yield Claim(f"{name}, {whose}", f"{size} GiB", gib(n_bytes), remark)


def disk_requirements() -> Iterator[Claim]:
    published = (
        ("8B", models.LLAMA_3_1_8B, "32.1 GB", "4.9 GB"),
        ("70B", models.LLAMA_3_1_70B, "280.9 GB", "43.1 GB"),
        ("405B", models.LLAMA_3_1_405B, "1,625.1 GB", "249.1 GB"),
    )
    for name, model, original, quantized in published:
        for file_type, size in (("F32", original), ("Q4_K_M", quantized)):
            n_bytes = model.plan(file_type).new_bytes
            off = float(size[:-3].replace(",", "")) * 1e9 / n_bytes - 1
            remark = "" if size == gb(n_bytes) else f"**off** by {100 * off:+.1f} %"
            yield Claim(f"{name}, {file_type}", size, gb(n_bytes), remark)


def levels(values: NDArray[np.float32], name: str) -> NDArray[np.generic]:
    """The integers that a block of 32 values becomes."""
    q: NDArray[np.generic] = (
        format_of(TensorType[name]).unpack(kquant.quantize(values[None], name))["q"].ravel()
    )
    return q


def symmetric_and_asymmetric() -> Iterator[Claim]:
    x = np.linspace(-6, 5, 32, dtype=np.float32)
    steps_128 = round(5 * 128 / 6)
    yield Claim(
        "symmetric, 8 bits: of [-6, 5], 5 becomes",
        "106–107",
        f"{levels(x, 'Q8_0').max()}–{steps_128}",
        "106 with 127 steps from 0 to 6, as in Q8_0; 107 with 128",
    )
    x = np.linspace(0, 10, 32, dtype=np.float32)
    lowest, highest = np.rint((x - x.min()) * (255 / (x.max() - x.min()))).astype(int)[[0, -1]]
    yield Claim("asymmetric, 8 bits: [0, 10] uses", "0–255", f"{lowest}–{highest}")
    used = {name: levels(x, name) for name in ("Q8_0", "Q4_1", "Q5_1")}
    shown = {name: f"{q.min()}–{q.max()}" for name, q in used.items()}
    yield Claim(
        "the same in Q4_1 and Q5_1, which are asymmetric", "0–15, 0–31", f"{shown['Q4_1']}, {shown['Q5_1']}"
    )
    yield Claim("the same in Q8_0, which is symmetric", "0–127", shown["Q8_0"], "the half below 0 is wasted")


def round_trip() -> str:
    with np.load(WEIGHTS) as arrays:
        samples = {"token_embd": arrays["smollm2_embd"], "ffn_down": arrays["smollm2_ffn_down"]}
    names = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
    errors = {key: [error(x, name) for name in names] for key, x in samples.items()}
    lines = ["| type | bits per element | token_embd | ffn_down |", "|---|---:|---:|---:|"]
    for name, *row in zip(names, *errors.values(), strict=True):
        cells = " | ".join(f"{100 * e:.2f} %" for e in row)
        lines.append(f"| {name} | {TensorType[name].bits_per_element:g} | {cells} |")
    rises = {
        key: [names[i + 1] for i in range(len(names) - 1) if falling[i + 1] >= falling[i]]
        for key, falling in errors.items()
    }
    return (
        "\n".join(lines)
        + "\n\n"
        + table(
            Claim(
                f"{key}: more bits, less error",
                "always",
                f"not for {', '.join(rises[key])}" if rises[key] else "always",
                "because these weights had been quantized to 4 bits before" if key == "ffn_down" else "",
            )
            for key in samples
        )
    )


def error(x: NDArray[np.float32], name: str) -> float:
    """The length of the error, as a part of the length of what was quantized."""
    y = kquant.dequantize(kquant.quantize(x, name), name).astype(np.float64)
    return float(np.linalg.norm(y - x) / np.linalg.norm(x.astype(np.float64)))


def page() -> str:
    readme = f"[README of llama-quantize]({UPSTREAM}/blob/master/tools/quantize/README.md)"
    return f"""\
# Claims, checked

Are the published figures about formats and model sizes right? This page compares each of them with what
kquant computes. `examples/verify_claims.py` writes the page, and the tests run the program and compare.
It needs no weights, because it plans models from their published dimensions. Sizes are those of the
tensor data. A GiB is 2³⁰ bytes, a GB is 10⁹.

## Bits per element

These sums follow from the layout of the blocks: q are the levels, sc and m the scales and minima of
sub-blocks, d and dmin the scales of these, e an exponent that serves as scale.

{table(bits_per_element())}

## Llama-2-7B

{table(llama_2_7b())}

## Q2_K, then and now

The size of a “Q2_K” Llama-2-7B depends on the year, because the recipe changed and the name did not. At
first three kinds of matrices had 4 bits. Then all kinds except two had 3 bits, which was both smaller and
better. Today three kinds have 3 bits, and the others really have 2.

{table(q2_k_then_and_now())}

## Phi-3-mini-4k

{table(phi_3())}

## Llama-3.1-8B, bits per weight

These are the rows of the table in the {readme} whose types kquant supports.

{table(bits_per_weight())}

## Sizes in the help of llama-quantize

`llama-quantize --help` gives a size in “G” for each type.

{table(sizes_of_the_help_text())}

## Disk space for Llama 3.1

The claims are from the {readme}.

{table(disk_requirements())}

## Symmetric and asymmetric

{table(symmetric_and_asymmetric())}

ggml has no asymmetric 8-bit format. [From one scale to super-blocks](ideas.md) explains the difference.

## The error falls from Q2_K to Q8_0

The table shows the error of rows of a real model, SmolLM2-135M, relative to the rows. The tests have this
model only as a Q4_1 file, in which the embeddings have 8 bits and the other matrices 4.

{round_trip()}

So the claim needs a condition: it holds for weights in full precision, or nearly so. If a tensor has been
quantized to 4 bits before, its values lie on a grid of 16 levels. Q4_K almost finds that grid again,
while Q5_K lays another grid across it. Such figures say little about the formats, and they are one more
reason not to quantize twice. For the part of the model that is in full precision, its norms, the error
does fall with every type; a test checks this where the model is installed.
"""


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    print(page(), end="")
