"""Each operation of the vocabulary, as the interpreter plays it, against plain computations in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.models.graph import Graph
from kquant.models.operations import Activation, Routing, Value
from kquant.models.rope import Rope
from support.graphs import Build, play

N, WIDTH = 8, 64


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


ROWS = random(N, WIDTH, seed=1, scale=2.0)
EXACT = ROWS.astype(np.float64)


def close(got: NDArray[np.float32], expected: NDArray[Any], tolerance: float = 2e-6) -> None:
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


# ---------------------------------------------------------------- inputs


def test_embeddings_of_tokens_positions_and_the_first() -> None:
    tensors = {"position_embd.weight": random(64, 64, seed=2), "types.weight": random(2, 64, seed=3)}

    def build(g: Graph, x: Value) -> Value:
        return g.add(g.add(x, g.embed_positions()), g.embed_first("types"))

    expected = ROWS + tensors["position_embd.weight"][:N] + tensors["types.weight"][0]
    np.testing.assert_array_equal(play(build, ROWS, tensors), expected)
    np.testing.assert_array_equal(play(build, ROWS, tensors, batch=3), expected)


# ---------------------------------------------------------------- norms


def norm(kind: str, x: NDArray[np.float64], eps: float) -> NDArray[np.float64]:
    centred = [v - sum(v) / len(v) if kind == "layer" else v for v in x]
    return np.array([v / math.sqrt(sum(v * v) / len(v) + eps) for v in centred])


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("axes", ["shared", "each", "rows", "none"])
def test_norms(kind: str, heads: int, axes: str) -> None:
    size = WIDTH // heads
    shape = {"shared": (size,), "each": (WIDTH,), "rows": (heads, size), "none": ()}[axes]
    tensors = {} if axes == "none" else {"n.weight": random(*shape, seed=2), "n.bias": random(*shape, seed=3)}
    if axes == "rows":
        del tensors["n.bias"]

    def build(g: Graph, x: Value) -> Value:
        call = g.rms_norm if kind == "rms" else g.layer_norm
        return call(x, None if axes == "none" else "n", heads=heads)

    expected = norm(kind, EXACT.reshape(-1, size), 1e-5).reshape(N, WIDTH)
    if "n.weight" in tensors:
        expected = expected * np.resize(tensors["n.weight"], WIDTH)
    if "n.bias" in tensors:
        expected = expected + np.resize(tensors["n.bias"], WIDTH)
    close(play(build, ROWS, tensors), expected)


def test_a_norm_with_an_epsilon_of_its_own() -> None:
    close(play(lambda g, x: g.rms_norm(x, None, eps=3.0), ROWS), norm("rms", EXACT, 3.0))
    close(play(lambda g, x: g.layer_norm(x, None, eps=3.0), ROWS), norm("layer", EXACT, 3.0))


# ---------------------------------------------------------------- linear layers


MATRIX = {
    "w.weight": random(48, WIDTH, seed=4),
    "w.bias": random(48, seed=5, scale=9.0),
    "w.scale": np.array([1.75], np.float32),
}


def test_a_linear_layer_scales_before_its_bias_or_after() -> None:
    products = EXACT @ MATRIX["w.weight"].T.astype(np.float64)
    bias, scale = MATRIX["w.bias"], 1.75
    close(play(lambda g, x: g.linear(x, "w", 48), ROWS, MATRIX), products * scale + bias)
    close(play(lambda g, x: g.linear(x, "w", bias_first=True), ROWS, MATRIX), (products + bias) * scale)
    close(play(lambda g, x: g.linear(x, "w", scaled=False), ROWS, MATRIX), products + bias)
    close(play(lambda g, x: g.linear(x, "w"), ROWS, {"w.weight": MATRIX["w.weight"]}), products)


def test_a_vector_is_one_row() -> None:
    vector = {"v.weight": random(WIDTH, seed=6)}
    close(play(lambda g, x: g.linear(x, "v", 1), ROWS, vector), (EXACT @ vector["v.weight"])[:, None])


def test_linear_layers_with_one_input() -> None:
    tensors = MATRIX | {"u.weight": random(16, WIDTH, seed=6)}

    def build(g: Graph, x: Value) -> Value:
        w, u = g.linears(x, ["w", "u"], [48, 16])
        return g.multiply(u, g.split(w, 16, 32)[0])

    products = EXACT @ tensors["w.weight"].T * 1.75 + tensors["w.bias"]
    close(play(build, ROWS, tensors), products[:, :16] * (EXACT @ tensors["u.weight"].T))


# ---------------------------------------------------------------- experts


EXPERTS, USED, FF = 8, 3, 32
STACKS = {
    "b.ffn_gate_inp.weight": random(EXPERTS, WIDTH, seed=7, scale=0.2),
    "b.ffn_gate_exps.weight": random(EXPERTS, FF, WIDTH, seed=8, scale=0.1),
    "b.ffn_up_exps.weight": random(EXPERTS, FF, WIDTH, seed=9, scale=0.1),
    "b.ffn_down_exps.weight": random(EXPERTS, WIDTH, FF, seed=10, scale=0.1),
}
ADDED = {
    "b.ffn_gate_inp.bias": random(EXPERTS, seed=11),
    "b.ffn_gate_exps.bias": random(EXPERTS, FF, seed=12),
    "b.ffn_up_exps.bias": random(EXPERTS, FF, seed=13),
    "b.ffn_down_exps.bias": random(EXPERTS, WIDTH, seed=14),
    "b.ffn_up_exps.scale": random(EXPERTS, seed=15),
    "b.ffn_down_exps.scale": np.array([1.5], np.float32),
}
CHOICE = {"choice": random(EXPERTS, seed=16, scale=0.3)}


def swish(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def chosen(z: NDArray[np.float64], r: Routing) -> tuple[list[int], list[float]]:
    """The experts of one token and their weights, one by one."""
    e = np.exp(z - max(z))
    probability = {"softmax": e / sum(e), "sigmoid": 1 / (1 + np.exp(-z)), "softmax_of_chosen": z}[r.gating]
    rank = z if r.by_logits else probability + (CHOICE["choice"] if r.selection_bias else 0)
    allowed = list(range(EXPERTS))
    if r.n_groups > 1:
        size = EXPERTS // r.n_groups
        best = {g: sum(sorted(rank[g * size : (g + 1) * size])[-2:]) for g in range(r.n_groups)}
        kept = sorted(best, key=lambda g: -best[g])[: r.n_groups_used]
        allowed = [i for i in allowed if i // size in kept]
    experts = sorted(allowed, key=lambda i: -rank[i])[: r.n_used]
    weights = [float(probability[i]) for i in experts]
    if r.gating == "softmax_of_chosen":
        weights = [math.exp(w) / sum(math.exp(v) for v in weights) for w in weights]
    if r.is_normalized:
        weights = [w / sum(weights) for w in weights]
    return experts, [w * r.factor for w in weights]


def of_experts(
    r: Routing, tensors: dict[str, NDArray[np.float32]], hidden: Callable[[Any, Any], Any]
) -> NDArray[np.float64]:
    def layer(name: str, i: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        y = tensors[f"b.{name}.weight"][i] @ x
        scale = tensors.get(f"b.{name}.scale", np.ones(1, np.float32))
        bias = tensors.get(f"b.{name}.bias")
        return np.asarray(y * float(scale[i % len(scale)]) + (0 if bias is None else bias[i]))

    out = np.zeros((N, WIDTH))
    for n, x in enumerate(EXACT):
        z = tensors["b.ffn_gate_inp.weight"] @ x + tensors.get("b.ffn_gate_inp.bias", 0)
        for i, weight in zip(*chosen(z, r), strict=True):
            given = x * weight if r.weighs_input else x
            up = layer("ffn_up_exps", i, given)
            gate = layer("ffn_gate_exps", i, given) if "b.ffn_gate_exps.weight" in tensors else None
            made = layer("ffn_down_exps", i, hidden(gate, up))
            out[n] += made if r.weighs_input else weight * made
    return out


ROUTINGS = {
    "softmax": Routing(USED, "softmax"),
    "normalized": Routing(USED, "softmax", is_normalized=True, factor=2.5),
    "sigmoid": Routing(USED, "sigmoid", is_normalized=True),
    "of chosen": Routing(USED, "softmax_of_chosen"),
    "biased choice": Routing(USED, "sigmoid", selection_bias="choice"),
    "groups": Routing(2, "softmax", n_groups=4, n_groups_used=2),
    "groups, biased": Routing(2, "sigmoid", n_groups=2, n_groups_used=1, selection_bias="choice"),
    "by logits, weighed before": Routing(1, "sigmoid", by_logits=True, weighs_input=True),
}


@pytest.mark.parametrize("name", ROUTINGS)
def test_every_way_of_choosing_experts(name: str) -> None:
    r = ROUTINGS[name]

    def build(g: Graph, x: Value) -> Value:
        return g.experts(x, "b", r)

    got = play(build, ROWS, STACKS | CHOICE, expert_count=EXPERTS, expert_used_count=USED)
    close(got, of_experts(r, STACKS, lambda gate, up: swish(gate) * up), 1e-5)
    cut = play(build, ROWS, STACKS | CHOICE, batch=3, expert_count=EXPERTS, expert_used_count=USED)
    np.testing.assert_array_equal(got, cut)


@pytest.mark.parametrize("scaled", [True, False])
def test_experts_with_biases_and_scales(scaled: bool) -> None:
    tensors = STACKS | ADDED
    got = play(
        lambda g, x: g.experts(x, "b", ROUTINGS["softmax"], scaled=scaled),
        ROWS, tensors, expert_count=EXPERTS, expert_used_count=USED,
    )  # fmt: skip
    heeded = {k: v for k, v in tensors.items() if scaled or not k.endswith("scale")}
    close(got, of_experts(ROUTINGS["softmax"], heeded, lambda gate, up: swish(gate) * up), 1e-5)


def test_experts_without_a_gate() -> None:
    tensors = {k: v for k, v in STACKS.items() if "gate_exps" not in k}
    got = play(
        lambda g, x: g.experts(x, "b", ROUTINGS["softmax"], "relu", gate=None),
        ROWS, tensors, expert_count=EXPERTS, expert_used_count=USED,
    )  # fmt: skip
    close(got, of_experts(ROUTINGS["softmax"], tensors, lambda _, up: np.maximum(up, 0)), 1e-5)


def test_experts_with_gate_and_up_in_one_stack_and_logits_of_ones_own() -> None:
    both = np.concatenate([STACKS["b.ffn_gate_exps.weight"], STACKS["b.ffn_up_exps.weight"]], axis=1)
    tensors = {
        "router.weight": STACKS["b.ffn_gate_inp.weight"],
        "b.ffn_gate_up_exps.weight": both,
        "b.ffn_down_exps.weight": STACKS["b.ffn_down_exps.weight"],
    }

    def build(g: Graph, x: Value) -> Value:
        return g.experts(x, "b", ROUTINGS["softmax"], logits=g.linear(x, "router"))

    expected = of_experts(ROUTINGS["softmax"], STACKS, lambda gate, up: swish(gate) * up)
    close(play(build, ROWS, tensors), expected, 1e-5)


# ---------------------------------------------------------------- rotation


def rotated(rope: Rope, factors: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    """Each pair is a complex number that turns."""
    out = EXACT.copy().reshape(N, 4, 16)
    for position in range(N):
        for i in range(rope.n_dims // 2):
            angle = extrapolated = position * rope.base ** (-2 * i / rope.n_dims)
            if factors is not None:
                angle = extrapolated = angle / factors[i]
            angle = angle * rope.scale
            if rope.extrapolation:
                share = yarn_share(rope, i) * rope.extrapolation
                angle = angle * (1 - share) + extrapolated * share
            where = (2 * i, 2 * i + 1) if rope.pairs == "adjacent" else (i, i + rope.n_dims // 2)
            for head in range(4):
                a, b = out[position, head, list(where)]
                turned = complex(a, b) * complex(math.cos(angle), math.sin(angle)) * rope.magnitude
                if rope.extrapolation:
                    turned *= 1 + 0.1 * math.log(1 / rope.scale)
                out[position, head, list(where)] = turned.real, turned.imag
    return out.reshape(N, WIDTH)


def yarn_share(rope: Rope, pair: int) -> float:
    """From the paper's code: 1 for pairs that turn often within the context, 0 for those that hardly do."""

    def dimension(turns: float) -> float:
        length = rope.original_context / (turns * 2 * math.pi)
        return rope.n_dims * math.log(length) / (2 * math.log(rope.base))

    low = max(math.floor(dimension(rope.beta_fast)), 0)
    high = min(math.ceil(dimension(rope.beta_slow)), rope.n_dims - 1)
    return 1 - min(max((pair - low) / max(high - low, 0.001), 0), 1)


@pytest.mark.parametrize("pairs", ["adjacent", "halves"])
@pytest.mark.parametrize("kind", ["plain", "part", "linear", "yarn", "factors"])
def test_rotations(pairs: Literal["adjacent", "halves"], kind: str) -> None:
    tensors: dict[str, NDArray[np.float32]] = {}
    rope = Rope(n_dims=16, pairs=pairs, base=500.0)
    if kind == "part":
        rope = Rope(n_dims=8, pairs=pairs)
    if kind == "linear":
        rope = Rope(n_dims=16, pairs=pairs, scale=0.25, magnitude=1.5)
    if kind == "yarn":
        rope = Rope(16, pairs, 100.0, 0.25, None, 1.25, extrapolation=1.0, beta_fast=8, original_context=256)
        assert {yarn_share(rope, i) for i in range(8)} > {0.0, 1.0}
    if kind == "factors":
        rope = Rope(n_dims=16, pairs=pairs, factors="f.weight")
        tensors["f.weight"] = np.linspace(1, 8, 8, dtype=np.float32)

    def build(g: Graph, x: Value) -> Value:
        return g.rotate(x, 4, rope)

    got = play(build, ROWS, tensors)
    close(got, rotated(rope, tensors.get("f.weight")))
    np.testing.assert_array_equal(got, play(build, ROWS, tensors, batch=3))


# ---------------------------------------------------------------- attention


HEADS, HEADS_KV, SIZE, VALUE_SIZE = 4, 2, 8, 12
LONG = random(23, HEADS * SIZE + HEADS_KV * (SIZE + VALUE_SIZE), seed=20)


def attended(
    *,
    scale: float,
    window: int = 0,
    is_chunked: bool = False,
    soft_cap: float = 0.0,
    max_alibi_bias: float = 0.0,
    sinks: NDArray[np.float32] | None = None,
    is_causal: bool = True,
) -> NDArray[np.float64]:
    n = len(LONG)
    exact = LONG.astype(np.float64)
    q, k, v = np.split(exact, [HEADS * SIZE, (HEADS + HEADS_KV) * SIZE], axis=1)
    out = np.zeros((n, HEADS, VALUE_SIZE))
    for i in range(n):
        seen = [j for j in range(n) if j <= i or not is_causal]
        if is_chunked:
            seen = [j for j in seen if j // window == i // window]
        elif window:
            seen = [j for j in seen if i - j < window]
        for head in range(HEADS):
            group = head * HEADS_KV // HEADS
            query = q[i, head * SIZE : (head + 1) * SIZE]
            weights = []
            for j in seen:
                product = scale * float(query @ k[j, group * SIZE : (group + 1) * SIZE])
                if soft_cap:
                    product = soft_cap * math.tanh(product / soft_cap)
                slope = 2.0 ** (-max_alibi_bias * (head + 1) / HEADS) if max_alibi_bias else 0.0
                weights.append(math.exp(product - slope * abs(i - j)))
            total = sum(weights) + (0 if sinks is None else math.exp(sinks[head]))
            for j, weight in zip(seen, weights, strict=True):
                part = v[j, group * VALUE_SIZE : (group + 1) * VALUE_SIZE]
                out[i, head] += weight / total * part
    return out.reshape(n, -1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.7},
        {"window": 5},
        {"window": 100},
        {"window": 5, "is_chunked": True},
        {"soft_cap": 2.0, "scale": 3.0},
        {"max_alibi_bias": 8.0},
        {"is_causal": False},
        {"is_causal": False, "max_alibi_bias": 8.0},
        {"sinks": random(HEADS, seed=21)},
        {"sinks": random(HEADS, seed=21) + 30},
        {"window": 4, "sinks": random(HEADS, seed=21), "soft_cap": 5.0},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_attention(options: dict[str, Any]) -> None:
    tensors = {"s.weight": options["sinks"]} if "sinks" in options else {}

    def build(g: Graph, x: Value) -> Value:
        q, k, v = g.split(x, HEADS * SIZE, HEADS_KV * SIZE, HEADS_KV * VALUE_SIZE)
        given = options | ({"sinks": "s.weight"} if tensors else {})
        return g.attend(q, k, v, 0, **given)

    keys = {"attention__key_length": SIZE, "attention__value_length": VALUE_SIZE}
    got = play(build, LONG, tensors, **keys)
    close(got, attended(**{"scale": SIZE**-0.5, **options}), 5e-6)
    if options.get("is_causal", True):
        np.testing.assert_array_equal(got, play(build, LONG, tensors, batch=1, **keys))
        np.testing.assert_array_equal(got, play(build, LONG, tensors, batch=7, **keys))


def test_the_metadata_may_scale_attention() -> None:
    def build(g: Graph, x: Value) -> Value:
        q, k, v = g.split(x, HEADS * SIZE, HEADS_KV * SIZE, HEADS_KV * VALUE_SIZE)
        return g.attend(q, k, v, 0)

    close(play(build, LONG, attention__scale=0.5), attended(scale=0.5), 5e-6)


def test_slopes_of_heads_that_are_no_power_of_two() -> None:
    rows = random(5, 3 * 6, seed=22)

    def build(g: Graph, x: Value) -> Value:
        q, k, v = g.split(x, 6, 6, 6)
        return g.attend(q, k, v, 0, max_alibi_bias=8.0, scale=1.0)

    got = play(build, rows, embedding_length=6, attention__head_count=3, attention__head_count_kv=3)
    slopes = [2.0**-4, 2.0**-8, 2.0**-2]  # those of two heads, then every second one of four heads
    q, k, v = (part.reshape(5, 3, 2) for part in np.split(rows.astype(np.float64), 3, axis=1))
    expected = np.zeros((5, 3, 2))
    for i in range(5):
        for head, slope in enumerate(slopes):
            weights = [math.exp(q[i, head] @ k[j, head] - slope * (i - j)) for j in range(i + 1)]
            expected[i, head] = sum(w * v[j, head] for j, w in enumerate(weights)) / sum(weights)
    close(got, expected.reshape(5, 6), 5e-6)


def test_queries_are_tempered_by_how_much_there_is_to_see() -> None:
    rows = random(23, WIDTH, seed=23)
    factors = [1 + 0.3 * math.log(1 + (i + 1) // 5) for i in range(23)]
    got = play(lambda g, x: g.temper(x, 0.3, 5, 1.0), rows)
    close(got, rows.astype(np.float64) * np.array(factors)[:, None])
    np.testing.assert_array_equal(got, play(lambda g, x: g.temper(x, 0.3, 5, 1.0), rows, batch=7))


# ---------------------------------------------------------------- element by element


def half(x: float) -> float:
    return float(np.float16(x))


def tanh_gelu(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS: dict[Activation, Callable[[float], float]] = {
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: half(tanh_gelu(half(x))),
    "gelu_erf": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "relu": lambda x: max(x, 0.0),
    "relu_squared": lambda x: max(x, 0.0) ** 2,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
}


def gate_of_halves(activation: Activation) -> Build:
    def build(g: Graph, x: Value) -> Value:
        left, right = g.split(x, 32, 32)
        return g.gate(left, right, activation)

    return build


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_gates(name: Activation) -> None:
    f = np.vectorize(ACTIVATIONS[name])
    tolerance = 1e-3 if name == "gelu" else 2e-6  # ggml looks GELU up in a table of F16 numbers
    close(play(lambda g, x: g.apply(x, name), ROWS), f(EXACT), tolerance)
    left, right = EXACT[:, :32], EXACT[:, 32:]
    close(play(gate_of_halves(name), ROWS), f(left) * right, tolerance)


def test_gelu_of_what_is_large() -> None:
    rows = np.array([[10, 10.001, 1e30, -10, -10.001, -1e30]], np.float32).repeat(2, axis=0)
    expected = np.maximum(rows, 0)
    np.testing.assert_array_equal(play(lambda g, x: g.apply(x, "gelu"), rows, embedding_length=16), expected)


def test_the_clamped_swish_of_gpt_oss() -> None:
    rows = ROWS * 5
    left, right = np.minimum(rows[:, :32].astype(np.float64), 7), np.clip(rows[:, 32:], -7, 7)
    expected = left / (1 + np.exp(-1.702 * left)) * (right.astype(np.float64) + 1)
    close(play(gate_of_halves("oai"), rows), expected)


def test_sums_products_scales_and_quotients() -> None:
    tensors = {"t.weight": random(32, seed=30), "one.weight": np.array([2.5], np.float32)}
    left, right = EXACT[:, :32], EXACT[:, 32:]
    cases: list[tuple[Callable[[Graph, Value, Value], Value], NDArray[Any]]] = [
        (lambda g, a, b: g.add(a, b), left + right),
        (lambda g, a, b: g.multiply(a, b), left * right),
        (lambda g, a, b: g.multiply(a, g.split(b, 1, 31)[0]), left * right[:, :1]),
        (lambda g, a, b: g.scale(a, 0.3), left * 0.3),
        (lambda g, a, b: g.scale(a, "t.weight"), left * tensors["t.weight"]),
        (lambda g, a, b: g.scale(a, "one.weight"), left * 2.5),
        (lambda g, a, b: g.divide(a, "t.weight"), left / tensors["t.weight"]),
        (lambda g, a, b: g.soft_cap(a, 3.0), 3 * np.tanh(left / 3)),
        (lambda g, a, b: g.clamp(a, 1.5), np.clip(left, -1.5, 1.5)),
    ]
    for case, expected in cases:

        def build(g: Graph, x: Value, case: Callable[[Graph, Value, Value], Value] = case) -> Value:
            left, right = g.split(x, 32, 32)
            return case(g, left, right)

        close(play(build, ROWS, tensors), expected)


def test_what_would_change_nothing_is_not_recorded() -> None:
    def build(g: Graph, x: Value) -> Value:
        assert g.scale(x, 1.0) is g.soft_cap(x, 0.0) is g.clamp(x, 0.0) is g.temper(x, 0.0, 1) is x
        return x

    np.testing.assert_array_equal(play(build, ROWS), ROWS)
