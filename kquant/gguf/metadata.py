"""The key/value pairs of a GGUF file: ordered, typed, every byte kept.

https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/gguf.cpp (`gguf_kv`, `gguf_set_val_*`)
"""

from __future__ import annotations

import reprlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGUFValueType

from kquant.errors import GGUFError
from kquant.gguf.spec import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAX_KEY_BYTES,
    ORDER_MARK,
    SCALAR_CODES,
    ByteOrder,
    c_string,
    is_alignment,
)
from kquant.gguf.strings import Buffer, StringArray


@dataclass(frozen=True, slots=True)
class Value:
    """One value as the file stores it."""

    type: GGUFValueType
    """The type of the value, or of the elements of an array."""
    count: int | None
    """Elements of an array; None for a value that is not an array."""
    payload: Buffer
    """The bytes of a fixed-size value or of all elements; those of a string include its length."""
    byteorder: ByteOrder

    def decode(self) -> Any:
        """The value as Python or NumPy has it."""
        if self.type == GGUFValueType.STRING:
            return self._strings()[0] if self.count is None else self._strings()
        code = SCALAR_CODES[self.type]
        if self.count is None:
            return struct.unpack(ORDER_MARK[self.byteorder] + code, self.payload)[0]
        if code == "?":  # as in C, all bit patterns except zero are true
            array = np.frombuffer(self.payload, np.uint8) != 0
        else:
            stored = np.frombuffer(self.payload, ORDER_MARK[self.byteorder] + code)
            array = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        array.flags.writeable = False
        return array

    def encode(self, byteorder: ByteOrder) -> tuple[bytes, Buffer]:
        """What follows the key in a file: the types, the count, and the payload."""
        mark = ORDER_MARK[byteorder]
        if self.count is None:
            head = struct.pack(mark + "i", self.type)
        else:
            head = struct.pack(mark + "iiQ", GGUFValueType.ARRAY, self.type, self.count)
        if byteorder == self.byteorder:
            return head, self.payload
        if self.type == GGUFValueType.STRING:
            return head, b"".join(encode_string(raw, byteorder) for raw in self._strings().iter_raw())
        width = struct.calcsize("=" + SCALAR_CODES[self.type])
        return head, np.frombuffer(self.payload, f"u{width}").byteswap().tobytes()

    def __reduce__(self) -> tuple[Any, ...]:
        return Value, (self.type, self.count, bytes(self.payload), self.byteorder)  # memory maps stay here

    def _strings(self) -> StringArray:
        return StringArray(self.payload, 1 if self.count is None else self.count, self.byteorder)


class Metadata(Mapping[str, Any]):
    """The key/value pairs of a GGUF file, in their order and with their types.

    Values are decoded on access: numbers and booleans to Python's, numeric arrays to read-only NumPy
    arrays, strings to `str`, string arrays to a lazy `StringArray`.  Keys and strings
    that are not UTF-8 keep their bytes as lone surrogates (`errors="surrogateescape"`); `raw_str`
    returns the bytes.  Values that are not set again are written back bit for bit: NaN payloads,
    booleans other than 0 and 1, empty arrays.

    Two Metadata are equal if they have the same pairs of the same types in the same order.

    >>> from kquant.gguf import GGUFValueType, Metadata
    >>> md = Metadata()
    >>> md.set("general.architecture", "llama", GGUFValueType.STRING)
    >>> md.set("llama.block_count", 32, GGUFValueType.UINT32)
    >>> md["llama.block_count"], md.type_of("llama.block_count").name
    (32, 'UINT32')
    >>> md.set("general.architecture", "phi3", GGUFValueType.STRING)   # moves to the end, as upstream
    >>> list(md)
    ['llama.block_count', 'general.architecture']
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Value] | None = None) -> None:
        self._values: dict[str, Value] = dict(values or {})

    def __getitem__(self, key: str) -> Any:
        return self._values[key].decode()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Metadata):
            return NotImplemented
        return self.encode() == other.encode()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        head = ", ".join(map(repr, list(self)[:3]))
        return f"Metadata({head}{', …' if len(self) > 3 else ''}: {len(self)} keys)"

    def type_of(self, key: str) -> GGUFValueType:
        """The value type; `GGUFValueType.ARRAY` for every array.  Raises `KeyError`."""
        value = self._values[key]
        return value.type if value.count is None else GGUFValueType.ARRAY

    def array_type_of(self, key: str) -> GGUFValueType:
        """The element type of an array.  Raises `KeyError`, or `GGUFError` for what is not an array."""
        value = self._values[key]
        if value.count is None:
            raise GGUFError(f"metadata key {key!r}: expected an array, got {value.type.name}")
        return value.type

    def raw_str(self, key: str) -> bytes:
        """The bytes of a string.  Raises `KeyError`, or `GGUFError` for what is not a string."""
        value = self._values[key]
        if self.type_of(key) != GGUFValueType.STRING:
            raise GGUFError(f"metadata key {key!r}: expected STRING, got {self.type_of(key).name}")
        return StringArray(value.payload, 1, value.byteorder).raw(0)

    @property
    def alignment(self) -> int:
        """`general.alignment` in bytes, 32 if it is not set.

        Raises `GGUFError` if it is not a UINT32 or not a power of two.
        """
        if ALIGNMENT_KEY not in self:
            return DEFAULT_ALIGNMENT
        if (found := self.type_of(ALIGNMENT_KEY)) != GGUFValueType.UINT32:
            raise GGUFError(f"metadata key {ALIGNMENT_KEY!r}: expected UINT32, got {found.name}")
        if not is_alignment(value := self[ALIGNMENT_KEY]):
            raise GGUFError(f"metadata key {ALIGNMENT_KEY!r}: expected a power of two, got {value}")
        return int(value)

    def set(
        self,
        key: str,
        value: Any,
        value_type: GGUFValueType,
        *,
        element_type: GGUFValueType | None = None,
    ) -> None:
        """Removes the key if it is there and appends it with a new value, as `gguf_set_val_*` do.

        `value_type` ARRAY takes a sequence or an array and the `element_type`; strings may be `str` or
        `bytes`.  Raises `GGUFError` if the value does not fit the type, or the key is not possible.
        """
        key_bytes = encode_text(key, f"metadata key {key!r}")
        if not 0 < len(key_bytes) <= MAX_KEY_BYTES:
            raise GGUFError(
                f"metadata key {key[:40]!r}: expected 1 to {MAX_KEY_BYTES} bytes, got {len(key_bytes)}"
            )
        key = key_bytes.decode("utf-8", "surrogateescape")
        if c_string(key) == ALIGNMENT_KEY != key:
            raise GGUFError(f"metadata key {key!r}: expected {ALIGNMENT_KEY!r} without a NUL")
        pair = Metadata({key: _value_of(key, value, value_type, element_type)})
        if key == ALIGNMENT_KEY:
            _ = pair.alignment
        self.remove(key)
        self._values |= pair._values

    def remove(self, key: str) -> None:
        """Removes a key, or does nothing if it is not there, as `gguf_remove_key`."""
        self._values.pop(key, None)

    def copy(self) -> Metadata:
        """A copy that can be changed without changing these pairs."""
        return Metadata(self._values)

    def encode(self, byteorder: ByteOrder = "little") -> bytes:
        """All pairs as a file stores them."""
        parts: list[Buffer] = []
        for key, value in self._values.items():
            parts.append(encode_string(key.encode("utf-8", "surrogateescape"), byteorder))
            parts.extend(value.encode(byteorder))
        return b"".join(parts)


def encode_string(raw: bytes, byteorder: ByteOrder) -> bytes:
    """A string as a file stores it: its length, then its bytes.

    >>> encode_string(b"ab", "little")
    b'\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x00ab'
    """
    return struct.pack(ORDER_MARK[byteorder] + "Q", len(raw)) + raw


def _value_of(key: str, value: Any, value_type: GGUFValueType, element_type: GGUFValueType | None) -> Value:
    is_array = value_type == GGUFValueType.ARRAY
    item_type = value_type if element_type is None else element_type
    if is_array != (element_type is not None) or item_type == GGUFValueType.ARRAY:
        raise GGUFError(
            f"metadata key {key!r}: expected a value type, or ARRAY with an element type that is not ARRAY, "
            f"got {value_type!r} with {element_type!r}"
        )
    items = [value] if not is_array else value.tolist() if isinstance(value, np.ndarray) else list(value)
    if item_type == GGUFValueType.STRING:
        where = f"metadata key {key!r}"
        payload = b"".join(encode_string(encode_text(item, where), "little") for item in items)
    else:
        try:
            payload = struct.pack(f"<{len(items)}{SCALAR_CODES[item_type]}", *items)
        except (struct.error, OverflowError) as error:
            raise GGUFError(
                f"metadata key {key!r}: expected {item_type.name}, got {reprlib.repr(value)}"
            ) from error
    return Value(item_type, len(items) if is_array else None, payload, "little")


def encode_text(value: Any, where: str) -> bytes:
    """The bytes of a `str` or of bytes; raises `GGUFError` for anything else, and says where it was found."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise GGUFError(f"{where}: expected a string, got {value!r}")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise GGUFError(f"{where}: expected text that UTF-8 can hold, got {value!r}") from error
