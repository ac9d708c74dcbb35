"""A room for each tensor type: kquant.formats.q4_k, kquant.formats.q8_0, ...

Every room holds the same things in the same order:

=======================  ============================================================================
docstring                the formula, the bytes, a picture of the bits, the upstream definition
`TYPE`, `LAYOUT`         the tensor type; the block as a NumPy structured dtype
`unpack`, `pack`         packed blocks -> fields by name and back, on any bytes (bits only)
`dequantize`             kernel: one block -> its values
`quantize`               kernel: values -> block, in every lane
`quantize_weighted`      kernel: the same with importance weights; None where ggml ignores them
`WHOLE_ROW`              True where the weights also need the mean square of the whole row
`VEC_DOT_TYPE`           the type of the activations that its rows are multiplied with
`LEVELS_ALONE`           True where `unpack_levels` brings the scales that levels are multiplied with
`unpack_scales`          kernel: of one block of each of some rows what belongs to it as a whole -> a tile
`unpack_levels`          kernel: the levels -> the tile, one byte each
`add`                    kernel: a tile times a block of each of some columns, added to sums in float32
=======================  ============================================================================

Without weights, blocks of 32 need no search: their types have `quantize_blocks` in the place of `quantize`, a
kernel that makes some blocks at a time.  The types whose block is a single number have `decode` and `encode`
in the place of `dequantize`, `quantize`, `unpack_scales`, `unpack_levels` and `add`.  A new format is a new
file: nothing lists the rooms.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from types import ModuleType

from kquant.errors import UnsupportedTypeError
from kquant.types import TensorType

__all__ = ["has_room", "room"]


@cache
def has_room(tensor_type: TensorType) -> bool:
    """Whether kquant can encode and decode this type."""
    return importlib.util.find_spec(f"{__name__}.{tensor_type.name.lower()}") is not None


@cache
def room(tensor_type: TensorType) -> ModuleType:
    """The module of a type.

    Raises `UnsupportedTypeError` for the types of ggml that kquant has no codec for.
    """
    if not has_room(tensor_type):
        raise UnsupportedTypeError(
            f"{tensor_type.name}: ggml defines this type, but kquant has no codec for it"
        )
    return importlib.import_module(f"{__name__}.{tensor_type.name.lower()}")
