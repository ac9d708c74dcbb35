"""Lowers the part of `language.lanes` that touches memory: rows and runs.

Imported by `kquant.kernels.compile` only, when the first kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_builtin
from numba.extending import models, register_model

from kquant.kernels.language import lanes
from kquant.kernels.lowering.isa.facts import TUNING
from kquant.kernels.lowering.isa.memory import fence, prefetch, store_past_cache
from kquant.kernels.lowering.isa.tuning import AHEAD, FIRST_LEVEL, LINE
from kquant.kernels.lowering.lanes import I32, LANES, LanesType, register, vector
from kquant.kernels.lowering.values import store


class StreamedType(types.Type):
    """The Numba type of `streamed`: where the first element is."""

    def __init__(self, dtype: Any) -> None:
        super().__init__(name=f"streamed {dtype}")
        self.dtype = dtype


@register_model(StreamedType)
class _StreamedModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: StreamedType) -> None:
        element = dmm.lookup(fe_type.dtype).get_data_type()
        super().__init__(dmm, fe_type, element.as_pointer())


def _streamed(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return context.make_array(sig.args[0])(context, builder, args[0]).data


register(lanes.streamed, lambda run: (StreamedType(run.dtype), run), (types.Array,))(_streamed)


def _fence(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    fence(builder)
    return context.get_dummy_value()


register(lanes.fence, lambda: (types.none,), ())(_fence)


def pointer_to(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """To an element of an array, or of what `streamed` gives."""
    if isinstance(array_type, StreamedType):
        return builder.gep(array, [index])
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _read(builder: Any, pointer: Any, width: int, signed: bool = False) -> Any:
    """`width` elements from `pointer` on; integers widened to int32."""
    element = pointer.type.pointee
    value = builder.load(builder.bitcast(pointer, ir.VectorType(element, width).as_pointer()), align=1)
    if isinstance(element, ir.FloatType):
        return value
    wide = ir.VectorType(I32, width)
    if element.width == 32:
        return value
    return builder.sext(value, wide) if signed else builder.zext(value, wide)


def _as_stored(builder: Any, pointer: Any, value: Any) -> Any:
    """The vector in the elements of the memory: integers cut to their width."""
    element, source = pointer.type.pointee, value.type
    if isinstance(source.element, ir.FloatType) and not isinstance(element, ir.FloatType):
        value = builder.fptosi(value, ir.VectorType(I32, source.count))
    memory = ir.VectorType(element, source.count)
    return value if value.type == memory else builder.trunc(value, memory)


def _write(builder: Any, pointer: Any, value: Any) -> None:
    store(builder, pointer, _as_stored(builder, pointer, value))


def _prefetch_ahead(builder: Any, pointer: Any, n_bytes: int, *, to_write: bool) -> None:
    start = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    for byte in range(AHEAD, AHEAD + n_bytes, LINE):
        line = builder.gep(start, [ir.Constant(ir.IntType(64), byte)])
        prefetch(builder, line, FIRST_LEVEL, to_write=to_write)


def _element_of(array: Any) -> str | None:
    if not isinstance(array, StreamedType) and (not isinstance(array, types.Array) or array.layout != "C"):
        return None
    return "float32" if array.dtype == types.float32 else "int32"


def _row_index(context: Any, builder: Any, index_type: Any, index: Any) -> Any:
    wide = context.cast(builder, index, index_type, types.intp)
    return builder.mul(wide, ir.Constant(wide.type, LANES))


def _load_type(*args: Any) -> Any:
    element = _element_of(args[0])
    return (LanesType(element, LANES), args[0], types.intp) if element else None


def _load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    index = _row_index(context, builder, sig.args[1], args[1])
    return _read(builder, pointer_to(context, builder, sig.args[0], args[0], index), LANES)


register(lanes.load, _load_type, (types.Array, types.Integer))(_load)


def _zeros_type(*args: Any) -> Any:
    return LanesType("float32", LANES), args[0]


def _zeros(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(sig.return_type.llvm, [0.0] * LANES)


register(lanes.zeros, _zeros_type, (types.Array,))(_zeros)


def _store_type(*args: Any) -> Any:
    if _element_of(args[0]) is None or not isinstance(args[2], (LanesType, types.Number)):
        return None
    return types.none, args[0], types.intp, args[2]


def _store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    array, _, have = sig.args
    want = (
        have
        if isinstance(have, LanesType) and have.width == LANES
        else LanesType(_element_of(array) or "", LANES)
    )
    value = vector(context, builder, have, want, args[2])
    index = _row_index(context, builder, sig.args[1], args[1])
    _write(builder, pointer_to(context, builder, array, args[0], index), value)
    return context.get_dummy_value()


register(
    lanes.store,
    _store_type,
    (types.Array, types.Integer, LanesType),
    (types.Array, types.Integer, types.Number),
)(_store)


def _run_type(*args: Any) -> Any:
    element = _element_of(args[0])
    if element is None or not isinstance(args[2], types.IntegerLiteral):
        return None
    return LanesType(element, args[2].literal_value), args[0], types.intp, args[2]


def _run(*, signed: bool) -> Callable[..., Any]:
    def lowering(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = pointer_to(context, builder, sig.args[0], args[0], args[1])
        n_bytes = sig.return_type.width * context.get_abi_sizeof(pointer.type.pointee)
        if n_bytes > LINE and (isinstance(sig.args[0], StreamedType) or not TUNING.prefetches_itself):
            _prefetch_ahead(builder, pointer, n_bytes, to_write=False)
        return _read(builder, pointer, sig.return_type.width, signed)

    return lowering


_RUNS = [(kind, types.Integer, types.IntegerLiteral) for kind in (types.Array, StreamedType)]
register(lanes.load_run, _run_type, *_RUNS)(_run(signed=False))
register(lanes.load_run_signed, _run_type, *_RUNS)(_run(signed=True))


def _count_up_type(*args: Any) -> Any:
    return (
        (LanesType("int32", args[0].literal_value), *args)
        if isinstance(args[0], types.IntegerLiteral)
        else None
    )


def _count_up(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(sig.return_type.llvm, list(range(sig.return_type.width)))


register(lanes.count_up, _count_up_type, (types.IntegerLiteral,))(_count_up)


def _store_run_type(*args: Any) -> Any:
    return (
        (types.none, args[0], types.intp, args[2])
        if _element_of(args[0]) and isinstance(args[2], LanesType)
        else None
    )


def _parts(builder: Any, pointer: Any, value: Any, size: int, n_bytes: int) -> list[tuple[Any, Any]]:
    """The value in pieces of so many bytes, as far as they fit, and where each belongs."""
    count = value.type.count
    step = n_bytes // size if count % (n_bytes // size) == 0 else count
    parts = []
    for first in range(0, count, step):
        which = ir.Constant(ir.VectorType(I32, step), list(range(first, first + step)))
        part = builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), which)
        parts.append((builder.gep(pointer, [ir.Constant(ir.IntType(64), first)]), part))
    return parts


def _store_run(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """In pieces, with lines prefetched, as the processor likes it."""
    pointer = pointer_to(context, builder, sig.args[0], args[0], args[1])
    size = context.get_abi_sizeof(pointer.type.pointee)
    value = _as_stored(builder, pointer, args[2])
    for place, part in _parts(builder, pointer, value, size, TUNING.bytes_per_store):
        _write(builder, place, part)
    if not TUNING.prefetches_itself:
        _prefetch_ahead(builder, pointer, size * value.type.count, to_write=True)
    return context.get_dummy_value()


def _store_run_streamed(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer = pointer_to(context, builder, sig.args[0], args[0], args[1])
    size = context.get_abi_sizeof(pointer.type.pointee)
    value = _as_stored(builder, pointer, args[2])
    for place, part in _parts(builder, pointer, value, size, LINE):
        store_past_cache(builder, place, part)
    return context.get_dummy_value()


register(lanes.store_run, _store_run_type, (types.Array, types.Integer, LanesType))(_store_run)
lower_builtin(lanes.store_run, StreamedType, types.Integer, LanesType)(_store_run_streamed)
