"""Every machine operation does what its NumPy meaning says: the processor's own, and its model anywhere."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import ir
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numpy.typing import NDArray

from kquant.kernels.lowering.isa import dots, facts, memory, moves
from kquant.kernels.lowering.isa.choice import CHOICE
from kquant.kernels.lowering.values import I8, load, store

NUMBER = count()
ROUNDS = 300

Vector = NDArray[Any]


def kind_of(vector: Vector) -> Any:
    element = ir.FloatType() if vector.dtype.kind == "f" else ir.IntType(8 * vector.itemsize)
    return ir.VectorType(element, len(vector))


@global_compiler_lock  # type: ignore[untyped-decorator]
def machine_code(emit: Callable[..., Any], kinds: list[Any]) -> Callable[..., None]:
    """A function of pointers to the result and to operands: vectors of these kinds; None stays a pointer."""
    name = f"operation_{next(NUMBER)}"
    library = cpu_target.target_context.codegen().create_library(name)
    module = library.create_ir_module(name)
    pointers = [I8.as_pointer()] * (len(kinds) + 1)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), pointers), name)
    builder = ir.IRBuilder(function.append_basic_block())
    out, *places = function.args
    values = [load(builder, p, k) if k else p for p, k in zip(places, kinds, strict=True)]
    result = emit(builder, *values)
    if result is not None:
        store(builder, out, result)
    builder.ret_void()
    library.add_ir_module(module)
    library.finalize()
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(pointers))(library.get_pointer_to_function(name))


def operation(emit: Callable[..., Any], *like: Vector, result: Vector) -> Callable[..., Vector]:
    """`emit` on vectors of these kinds, as a function of arrays; a list is given as a pointer."""
    run = machine_code(emit, [kind_of(vector) for vector in like])

    def call(*operands: Vector) -> Vector:
        out = np.empty_like(result)
        run(out.ctypes.data, *(np.ascontiguousarray(v).ctypes.data for v in operands))
        return out

    return call


def values(dtype: str, n: int, seed: int) -> Vector:
    """Random ones; in every other round only the extremes and their neighbours."""
    rng, info = np.random.default_rng(seed), np.iinfo(dtype)
    if seed % 2:
        extremes = [info.min, info.min + 1, 0, 1, info.max - 1, info.max, info.max // 2]
        return np.array(rng.choice(extremes, n), dtype)
    return rng.integers(info.min, info.max, n, dtype, endpoint=True)


def agree(
    emit: Callable[..., Any], meaning: Callable[..., Vector], *operands: tuple[str, int], seen: Any = None
) -> None:
    """On many vectors of these dtypes and lengths.  `seen`: as what the operation sees them."""
    first = [values(dtype, n, i) for i, (dtype, n) in enumerate(operands)]
    run = operation(emit, *(v.view(s) for v, s in zip(first, seen, strict=True)), result=meaning(*first))
    for i in range(ROUNDS):
        vectors = [values(dtype, n, 1000 * k + i) for k, (dtype, n) in enumerate(operands)]
        np.testing.assert_array_equal(run(*vectors), meaning(*vectors))


def wrapped(total: Vector, dtype: str = "int32") -> Vector:
    found: Vector = total.astype(dtype)
    return found


def sums(products: Vector, each: int) -> Vector:
    found: Vector = products.reshape(-1, each).sum(1)
    return found


# ---------------------------------------------------------------- what each means


def dot_of_bytes(total: Vector, u: Vector, s: Vector) -> Vector:
    return wrapped(total.astype(np.int64) + sums(u.astype(np.int64) * s, 4))


def dot_of_shorts(total: Vector, x: Vector, y: Vector) -> Vector:
    return wrapped(total.astype(np.int64) + sums(x.astype(np.int64) * y, 2))


def check_dots_of_bytes() -> None:
    operands = ("int32", 16), ("uint8", 64), ("int8", 64)
    agree(dots.add_dots_of_bytes, dot_of_bytes, *operands, seen=("i4", "i4", "i4"))


def check_dots_of_shorts() -> None:
    operands = ("int32", 16), ("int16", 32), ("int16", 32)
    for in_order in (False, True):

        def emit(builder: Any, *args: Any, in_order: bool = in_order) -> Any:
            return dots.add_dots_of_shorts(builder, *args, in_order=in_order)

        for kind in ("i4", "i2"):
            agree(emit, dot_of_shorts, *operands, seen=("i4", kind, kind))


def check_dots_with_memory() -> None:
    """The four bytes are at any distance behind the pointer."""
    for bits, dtypes, meaning in (
        (8, ("uint8", "int8"), dot_of_bytes),
        (16, ("int16", "int16"), dot_of_shorts),
    ):
        for distance in (0, 12, 288):

            def emit(
                builder: Any, total: Any, x: Any, place: Any, bits: int = bits, distance: int = distance
            ) -> Any:
                return dots.add_dots_with_memory(builder, bits, total, x, place, distance)

            word = ir.VectorType(ir.IntType(32), 16)
            run = machine_code(emit, [word, word, None])
            for i in range(ROUNDS):
                total, x = values("int32", 16, i), values(dtypes[0], 64 * 8 // bits, 1000 + i)
                y, out = values(dtypes[1], 300 * 8 // bits, 2000 + i), np.empty(16, np.int32)
                run(*(v.ctypes.data for v in (out, total, x, y)))
                at, n = distance * 8 // bits, 32 // bits
                np.testing.assert_array_equal(out, meaning(total, x, np.tile(y[at : at + n], 16)))


def check_pairs_of_bytes() -> None:
    def meaning(u: Vector, s: Vector) -> Vector:
        return sums(u.astype(np.int64) * s, 2).clip(-32768, 32767).astype(np.int16)

    agree(dots.pairs_of_bytes, meaning, ("uint8", 32), ("int8", 32), seen=("u1", "i1"))


def check_pairs_of_shorts() -> None:
    def meaning(x: Vector, y: Vector) -> Vector:
        return wrapped(sums(x.astype(np.int64) * y, 2))

    agree(dots.pairs_of_shorts, meaning, ("int16", 16), ("int16", 16), seen=("i2", "i2"))


def check_narrowed() -> None:
    def meaning(first: Vector, second: Vector) -> Vector:
        both = np.stack([first.reshape(4, 4), second.reshape(4, 4)], 1)
        return both.reshape(-1).clip(-32768, 32767).astype(np.int16)

    agree(dots.narrowed, meaning, ("int32", 16), ("int32", 16), seen=("i4", "i4"))


def check_shuffled_bytes(n: int) -> None:
    def meaning(value: Vector, index: Vector) -> Vector:
        found = np.take_along_axis(value.reshape(-1, 16), index.reshape(-1, 16) % 16, 1).reshape(-1)
        return np.where(index < 128, found, 0).astype(np.uint8)

    agree(moves.shuffled_bytes, meaning, ("uint8", n), ("uint8", n), seen=("u1", "u1"))


def check_matrix_of_bits() -> None:
    def meaning(value: Vector, matrix: Vector) -> Vector:
        rows = matrix.reshape(8, 1, 8)[:, :, ::-1]  # the last makes bit 0
        products = np.bitwise_and(value.reshape(8, 8, 1), rows, dtype=np.uint8)
        ones = np.unpackbits(products[..., None], axis=-1).sum(-1)
        return np.packbits(ones % 2, axis=-1, bitorder="little").reshape(-1)

    agree(moves.matrix_of_bits, meaning, ("uint8", 64), ("uint8", 64), seen=("u1", "u1"))


def check_picked_words(n: int) -> None:
    """Of the index the low bits count; also of floats, whose bits are kept."""

    def meaning(table: Vector, index: Vector) -> Vector:
        found: Vector = table[index % n]
        return found

    for seen in (("i4", "i4"), ("f4", "i4")):
        first = [values("int32", n, seed).view(kind) for seed, kind in enumerate(seen)]
        run = operation(moves.picked_words, *first, result=first[0].view("i4"))
        for i in range(ROUNDS):
            table, index = values("int32", n, i), values("int32", n, 1000 + i)
            np.testing.assert_array_equal(run(table, index), meaning(table, index))


def check_gathered_words() -> None:
    """From anywhere behind the pointer, whose words need not be aligned."""
    index_kind = ir.VectorType(ir.IntType(32), 16)
    run = machine_code(memory.gathered_words, [None, index_kind])
    rng = np.random.default_rng(4)
    octets = rng.integers(0, 256, 4 * 3000 + 1, np.uint8)
    words = octets[1:].view(np.int32)
    for _ in range(ROUNDS):
        index, out = (
            rng.choice([0, 1, 2999, *rng.integers(0, 3000, 9)], 16).astype(np.int32),
            np.empty(16, "i4"),
        )
        run(out.ctypes.data, words.ctypes.data, index.ctypes.data)
        np.testing.assert_array_equal(out, words[index])


def check_barriers(n: int) -> None:
    for emit in (moves.opaque, memory.before_loads):
        agree(emit, lambda value: value, ("int32", n), seen=("i4",))


def check_load_where() -> None:
    """Also where memory of the other lanes may not be read."""
    lanes = range(8, 16)
    word = ir.VectorType(ir.IntType(32), 16)
    run = machine_code(
        lambda builder, place, value: memory.load_where(builder, place, lanes, value), [None, word]
    )
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    octets = np.frombuffer(pages, np.uint8)
    start, readable = octets.ctypes.data, sys.platform != "linux"
    octets[:] = np.random.default_rng(3).integers(0, 256, len(octets))
    if not readable:
        assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(start), mmap.PAGESIZE, 0)
    try:
        for at in (mmap.PAGESIZE - 32, mmap.PAGESIZE, mmap.PAGESIZE + 13):
            value, out = values("int32", 16, at), np.empty(16, np.int32)
            run(out.ctypes.data, start + at, value.ctypes.data)
            want = octets[at + 32 : at + 64].view(np.int32)
            np.testing.assert_array_equal(out, np.concatenate([value[:8], want]))
    finally:
        if not readable:
            ctypes.CDLL(None).mprotect(
                ctypes.c_void_p(start), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE
            )


def check_stores() -> None:
    """A hint changes nothing and may point anywhere; what is stored past the caches is there."""

    def emit(builder: Any, value: Any, target: Any) -> None:
        memory.prefetch(builder, ir.Constant(I8.as_pointer(), None), 3)
        memory.prefetch(builder, target, 2, to_write=True)
        memory.store_past_cache(builder, target, value)
        memory.fence(builder)

    octets = np.zeros(256, np.uint8)
    at = -octets.ctypes.data % 64
    for dtype, n in (("float32", 16), ("int32", 16), ("uint8", 64), ("int16", 16)):
        value = np.arange(1, n + 1).astype(dtype)
        run = machine_code(emit, [kind_of(value), None])
        octets[:] = 0
        run(None, value.ctypes.data, octets.ctypes.data + at)
        np.testing.assert_array_equal(octets[at : at + value.nbytes].view(dtype), value)
        assert not octets[:at].any()
        assert not octets[at + value.nbytes :].any()


IN_FOURS = {
    "dots of bytes": check_dots_of_bytes,
    "dots of shorts": check_dots_of_shorts,
    "dots with memory": check_dots_with_memory,
    "narrowed": check_narrowed,
    "64 shuffled bytes": lambda: check_shuffled_bytes(64),
    "16 picked words": lambda: check_picked_words(16),
    "barriers of 64 bytes": lambda: check_barriers(16),
}
IN_PAIRS = {
    "pairs of bytes": check_pairs_of_bytes,
    "pairs of shorts": check_pairs_of_shorts,
    "32 shuffled bytes": lambda: check_shuffled_bytes(32),
    "8 picked words": lambda: check_picked_words(8),
    "barriers of 32 bytes": lambda: check_barriers(8),
}
ANYWHERE = {
    "load where": check_load_where,
    "gathered words": check_gathered_words,
    "stores": check_stores,
}
MATRICES = {"matrix of bits": check_matrix_of_bits}
CHECKS = {**IN_FOURS, **IN_PAIRS, **ANYWHERE, **MATRICES}


def available() -> list[str]:
    """Those that this process's choice has."""
    found = [*ANYWHERE]
    for has, checks in (
        (facts.HAS_BYTE_DOTS, IN_FOURS),
        (facts.HAS_BYTE_PAIRS, IN_PAIRS),
        (facts.HAS_BIT_MATRICES, MATRICES),
    ):
        found += checks if has else []
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_an_operation_of_this_processor(name: str) -> None:
    if name not in available():
        pytest.skip("this processor has no instruction for it")
    CHECKS[name]()


def run_models() -> None:
    """What the next test's process does."""
    assert CHOICE.is_model
    assert set(available()) == set(CHECKS)
    for check in CHECKS.values():
        check()
    print(len(CHECKS))


@pytest.mark.processors
def test_models_of_all_operations() -> None:
    tests = Path(__file__).parents[1]
    folders = os.pathsep.join([str(tests.parent), str(tests)])
    environment = {**os.environ, "KQUANT_ISA": "vnni-model", "PYTHONPATH": folders}
    code = "from kernels.test_isa_operations import run_models; run_models()"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"{len(CHECKS)}\n"), done.stderr
