"""What a block is made of: its parts and their bits, derived from the `layout` and `unpack` of its format.

Nothing here is written down a second time.  Every bit of a block is set, `unpack` returns the numbers that
result, and the bits of all parts must add up to the block.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kquant.formats import format_of, has_format
from kquant.types import TensorType

__all__ = ["Field", "Part", "arithmetic", "fields", "parts", "picture"]

_MEANING = {
    "q": "quants",
    "sc": "scales",
    "m": "mins",
    "d": "scale",
    "e": "exponent of the scale",
    "dmin": "scale of the mins",
    "s": "sum",
    "bsums": "sums",
    "x": "value",
}


@dataclass(frozen=True, slots=True)
class Part:
    """Numbers of one kind in a block."""

    name: str
    """As in the formula: q, sc, m, d, dmin."""
    count: int
    bits: int
    """Of each of them."""

    @property
    def total(self) -> int:
        """Bits of all of them."""
        return self.count * self.bits

    @property
    def meaning(self) -> str:
        """What the numbers are for."""
        return "minimum" if self.name == "m" and self.count == 1 else _MEANING.get(self.name, self.name)

    def to_dict(self) -> dict[str, Any]:
        """The part in JSON's types."""
        return {"name": self.name, "meaning": self.meaning, "count": self.count, "bits": self.bits}


@dataclass(frozen=True, slots=True)
class Field:
    """A run of bytes in a block, as ggml's struct names it."""

    name: str
    offset: int
    nbytes: int

    def to_dict(self) -> dict[str, Any]:
        """The field in JSON's types."""
        return {"name": self.name, "offset": self.offset, "bytes": self.nbytes}


def parts(type: TensorType | str | int) -> tuple[Part, ...]:
    """The numbers in one block of a type, quants first, and how many bits each of them has.

    Raises `UnsupportedTypeError` for the types that kquant has no codec for.

    >>> from kquant.analysis.anatomy import parts
    >>> [(part.name, part.count, part.bits) for part in parts("Q4_K")]
    [('q', 256, 4), ('sc', 8, 6), ('m', 8, 6), ('d', 1, 16), ('dmin', 1, 16)]
    >>> sum(part.total for part in parts("Q4_K"))
    1152
    """
    tensor_type = TensorType.of(type)
    codec = format_of(tensor_type)
    unpacked = codec.unpack(np.full((1, tensor_type.type_size), 0xFF, np.uint8))
    found = [
        Part(name, values[0].size, _bits(values, codec.layout, name)) for name, values in unpacked.items()
    ]
    return tuple(sorted(found, key=lambda part: list(_MEANING).index(part.name)))


def _bits(values: npt.NDArray[Any], layout: np.dtype[Any], name: str) -> int:
    """Bits of a number, from what it is when all of them are set."""
    stored = layout.fields.get(name) if layout.fields else None
    if stored is None and values.dtype.kind == "u":
        return int(values.max()).bit_length()
    return 8 * (stored[0] if stored else values.dtype).base.itemsize


def arithmetic(type: TensorType | str | int) -> str:
    """The sum that leads to the bits per element.

    >>> from kquant.analysis.anatomy import arithmetic
    >>> print(arithmetic("Q4_K"))
    q 256·4 + sc 8·6 + m 8·6 + d 16 + dmin 16 = 1152 bits / 256 = 4.5
    >>> print(arithmetic("Q8_0"))
    q 32·8 + d 16 = 272 bits / 32 = 8.5
    """
    tensor_type = TensorType.of(type)
    terms = " + ".join(
        f"{part.name} {part.count}·{part.bits}" if part.count > 1 else f"{part.name} {part.bits}"
        for part in parts(tensor_type)
    )
    bits = 8 * tensor_type.type_size
    return f"{terms} = {bits} bits / {tensor_type.block_size} = {tensor_type.bits_per_element:g}"


def fields(type: TensorType | str | int) -> tuple[Field, ...]:
    """The fields of the struct, in the order of the bytes.

    >>> from kquant.analysis.anatomy import fields
    >>> [(field.name, field.offset, field.nbytes) for field in fields("Q4_K")]
    [('d', 0, 2), ('dmin', 2, 2), ('scales', 4, 12), ('qs', 16, 128)]
    """
    found = format_of(TensorType.of(type)).fields
    return tuple(Field(field.name, field.offset, field.dtype.itemsize) for field in found)


def picture(type: TensorType | str | int) -> str:
    """The block byte by byte, in letters: the documentation of its format, as plain text.

    Types without a codec have one line that gives their size.

    >>> from kquant.analysis.anatomy import picture
    >>> print(picture("Q8_0").split("Source")[0].rstrip())
    Q8_0: 8.5 bits per element; a block of 32 with one scale.
    <BLANKLINE>
        x = d * q                                  q a signed byte, d fp16
    <BLANKLINE>
    ====== ===== ======= ==========================================================================
    offset bytes field   bits
    ====== ===== ======= ==========================================================================
    0      2     d       fp16
    2      32    qs      QQQQQQQQ      q[l], two's complement
    ====== ===== ======= ==========================================================================
    """
    tensor_type = TensorType.of(type)
    if tensor_type.removed:
        return f"{tensor_type.full_name}: ggml has removed this type."
    if not has_format(tensor_type):
        return (
            f"{tensor_type.name}: {tensor_type.bits_per_element:g} bits per element; {tensor_type.type_size} "
            f"bytes for {tensor_type.block_size}. kquant knows its size, but has no codec for it."
        )
    # spaces replace the marks, so that the columns below stay aligned
    return re.sub("``(.+?)``", r"\1    ", inspect.cleandoc(format_of(tensor_type).description)).replace(
        "`", ""
    )
