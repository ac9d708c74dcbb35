"""Lowers `kquant.kernels.language.blocks`: sixteen blocks of 32 floats that lie side by side.

Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, register_model

from kquant.kernels.language import blocks
from kquant.kernels.language.blocks import BLOCKS, SIZE
from kquant.kernels.lowering.isa.facts import TUNING
from kquant.kernels.lowering.isa.memory import prefetch
from kquant.kernels.lowering.isa.tuning import AHEAD, FIRST_LEVEL, LINE
from kquant.kernels.lowering.lanes import I32, LanesType, register
from kquant.kernels.lowering.rows import (
    BlockType,
    nothing,
    times,
)
from kquant.kernels.lowering.vectors import I8, I16, I64, load, offset, shuffle, store

FLOAT = ir.FloatType()
FLOATS = ir.VectorType(FLOAT, BLOCKS)
"""Half a block, or a number of each of sixteen."""
BITS = ir.VectorType(I32, BLOCKS)
NUMBERS = LanesType("float32", BLOCKS)
SIGNLESS = 0x7FFFFFFF
ROW = SIZE * 4
"""Bytes of a block of floats."""


class ApartType(types.Type):
    """The Numba type of `apart`: where the numbers are in memory."""

    def __init__(self, numbers: LanesType) -> None:
        super().__init__(name=f"{numbers} apart")
        self.numbers, self.llvm = numbers, numbers.llvm.as_pointer()


@register_model(ApartType)
class _ApartModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: ApartType) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


def _halves(builder: Any, x: Any, kind: Any, b: Any) -> list[Any]:
    """Block b, as two vectors."""
    place = offset(builder, builder.extract_value(x, 0), times(builder, b, ROW))
    return [load(builder, offset(builder, place, at), kind) for at in (0, ROW // 2)]


def _every_half(builder: Any, x: Any, kind: Any) -> list[list[Any]]:
    return [_halves(builder, x, kind, I64(b)) for b in range(BLOCKS)]


# ---------------------------------------------------------------- a number of each block


def _are_below(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    if not TUNING.prefetches_itself:
        first = builder.extract_value(args[0], 0)
        for line in range(0, BLOCKS * ROW, LINE):
            prefetch(builder, offset(builder, first, AHEAD + line), FIRST_LEVEL)
    signless = ir.Constant(BITS, [SIGNLESS] * BLOCKS)
    found = [builder.and_(v, signless) for two in _every_half(builder, args[0], BITS) for v in two]
    top = reduce(lambda a, b: builder.select(builder.icmp_signed(">", a, b), a, b), found)
    limit = builder.insert_element(ir.Constant(BITS, ir.Undefined), builder.trunc(args[1], I32), I32(0))
    below = builder.icmp_signed("<", top, shuffle(builder, limit, limit, [0] * BLOCKS))
    mask = ir.IntType(BLOCKS)
    return builder.icmp_unsigned("==", builder.bitcast(below, mask), ir.Constant(mask, -1))


register(blocks.are_below, lambda x, _: (types.boolean, x, types.intp), (BlockType, types.Integer))(
    _are_below
)

_Pick = Callable[[Any, Any, Any], Any]


def _greater(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _less(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _picked(builder: Any, vectors: Sequence[Any], pick: _Pick) -> Any:
    """Of each of sixteen vectors the one lane that is picked: two become one, four times.

    First lanes within a quarter of a register change places, then quarters.
    """

    def quarters(*lanes: int) -> list[int]:
        return [at + lane for at in range(0, BLOCKS, 4) for lane in lanes]

    n = BLOCKS
    low, high = ([at + lane for at in range(first, 2 * n, 8) for lane in range(4)] for first in (0, 4))
    for one, other in (
        (quarters(0, n, 1, n + 1), quarters(2, n + 2, 3, n + 3)),
        (quarters(0, 1, n, n + 1), quarters(2, 3, n + 2, n + 3)),
        (low, high),
        (low, high),
    ):
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [
            pick(builder, shuffle(builder, a, b, one), shuffle(builder, a, b, other)) for a, b in pairs
        ]
    return vectors[0]


def _extreme(pick: _Pick, *, signless: bool = False) -> Callable[..., Any]:
    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        every = _every_half(builder, args[0], FLOATS)
        if signless:
            every = [[_magnitude(builder, value) for value in two] for two in every]
        return _picked(builder, [pick(builder, *two) for two in every], pick)

    return lowering


def _magnitude(builder: Any, value: Any) -> Any:
    signature = ir.FunctionType(value.type, [value.type])
    name = f"llvm.fabs.v{value.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [value])


for _word, _lowering in (
    (blocks.highest, _extreme(_greater)),
    (blocks.lowest, _extreme(_less)),
    (blocks.largest, _extreme(_greater, signless=True)),
):
    register(_word, lambda x: (NUMBERS, x), (BlockType,))(_lowering)


def _first_of(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """A loop: few groups of blocks need it."""
    wanted, found = (cgutils.alloca_once(builder, FLOATS) for _ in range(2))
    builder.store(args[1], wanted)
    with cgutils.for_range(builder, I64(BLOCKS)) as loop:
        target = builder.load(builder.gep(builder.bitcast(wanted, FLOAT.as_pointer()), [loop.index]))
        only = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), target, I32(0))
        everywhere = shuffle(builder, only, only, [0] * BLOCKS)
        mask = ir.Constant(I32, 0)
        halves = _halves(builder, args[0], FLOATS, loop.index)
        for shift, value in zip((0, BLOCKS), halves, strict=True):
            same = builder.fcmp_ordered("==", _magnitude(builder, value), everywhere)
            bits = builder.zext(builder.bitcast(same, ir.IntType(BLOCKS)), I32)
            mask = builder.or_(mask, builder.shl(bits, I32(shift)))
        first = builder.and_(builder.cttz(mask, ir.Constant(ir.IntType(1), 0)), I32(SIZE - 1))
        where = builder.add(times(builder, loop.index, ROW), builder.shl(builder.zext(first, I64), I64(2)))
        place = offset(builder, builder.extract_value(args[0], 0), where)
        value = builder.load(builder.bitcast(place, FLOAT.as_pointer()))
        builder.store(value, builder.gep(builder.bitcast(found, FLOAT.as_pointer()), [loop.index]))
    return builder.load(found)


register(blocks.first_of, lambda x, magnitude: (NUMBERS, x, NUMBERS), (BlockType, LanesType))(_first_of)


# ---------------------------------------------------------------- block after block


register(blocks.count, lambda x: (types.intp, x), (BlockType,))(lambda *_: I64(BLOCKS))


def _apart(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = cgutils.alloca_once(builder, args[0].type)
    builder.store(args[0], place)
    return place


def _together(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.load(args[0])


def _number_at(builder: Any, place: Any, b: Any) -> Any:
    return builder.gep(builder.bitcast(place, place.type.pointee.element.as_pointer()), [b])


def _of_block(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value = builder.load(_number_at(builder, *args))
    return builder.insert_element(ir.Constant(sig.return_type.llvm, ir.Undefined), value, I32(0))


def _put_sum(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place, b, run = args
    signature = ir.FunctionType(I32, [run.type])
    name = f"llvm.vector.reduce.add.v{run.type.count}i32"
    total = builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [run])
    builder.store(total, _number_at(builder, place, b))
    return context.get_dummy_value()


register(blocks.apart, lambda numbers: (ApartType(numbers), numbers), (LanesType,))(_apart)
register(blocks.together, lambda place: (place.numbers, place), (ApartType,))(_together)
register(
    blocks.of_block,
    lambda place, b: (LanesType(place.numbers.element, 1), place, types.intp),
    (ApartType, types.Integer),
)(_of_block)
register(blocks.put_sum, nothing, (ApartType, types.Integer, LanesType))(_put_sum)


def _run_of(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    x, b, at = args[:3]
    place = offset(builder, builder.extract_value(x, 0), times(builder, b, ROW), times(builder, at, 4))
    return load(builder, place, sig.return_type.llvm)


register(
    blocks.run_of,
    lambda *args: (LanesType("float32", args[3].literal_value), args[0], types.intp, types.intp, args[3]),
    (BlockType, types.Integer, types.Integer, types.IntegerLiteral),
)(_run_of)


def _packed(builder: Any, block: Any, b: Any, at: Any) -> Any:
    first, stride = (builder.extract_value(block, k) for k in (0, 1))
    return offset(builder, first, builder.mul(b, stride), at)


def _put_run(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value = builder.trunc(args[3], ir.VectorType(I8, args[3].type.count))
    store(builder, _packed(builder, *args[:3]), value)
    return context.get_dummy_value()


def _put_bits(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    bits = builder.bitcast(args[3], ir.IntType(args[3].type.count))
    store(builder, _packed(builder, *args[:3]), bits)
    return context.get_dummy_value()


def _put_shorts(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    block, at, numbers = args
    shorts = builder.trunc(numbers, ir.VectorType(I16, BLOCKS))
    for b in range(BLOCKS):
        place = _packed(builder, block, I64(b), at)
        store(builder, place, builder.extract_element(shorts, I32(b)))
    return context.get_dummy_value()


_PLACE = (BlockType, types.Integer, types.Integer, LanesType)
register(blocks.put_run, nothing, _PLACE)(_put_run)
register(blocks.put_bits, nothing, _PLACE)(_put_bits)
register(blocks.put_shorts, nothing, (BlockType, types.Integer, LanesType))(_put_shorts)
