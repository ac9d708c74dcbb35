"""GGUF files put together byte by byte, well-formed or not; knows nothing of kquant's writer."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
CODES = {UINT8: "B", INT8: "b", UINT16: "H", INT16: "h", UINT32: "I", INT32: "i", FLOAT32: "f", BOOL: "?"}
CODES |= {UINT64: "Q", INT64: "q", FLOAT64: "d"}

F32, F16, Q4_0, Q8_0, Q4_K, I8, I64 = 0, 1, 2, 8, 12, 24, 27
TYPE_COUNT = 43
SIZES = {F32: (1, 4), F16: (1, 2), Q4_0: (32, 18), Q8_0: (32, 34), Q4_K: (256, 144), I8: (1, 1), I64: (1, 8)}


@dataclass
class GGUFBuilder:
    """Each method appends what it is told to and returns the builder; `build` puts the parts together."""

    magic: bytes = b"GGUF"
    version: int = 3
    byteorder: str = "little"
    alignment: int = 32
    """What the offsets and the padding follow; `general.alignment` is not set by it."""
    kv_parts: list[bytes] = field(default_factory=list)
    tensor_parts: list[bytes] = field(default_factory=list)
    data: bytes = b""

    def pack(self, code: str, *values: float) -> bytes:
        return struct.pack((">" if self.byteorder == "big" else "<") + code, *values)

    def string(self, raw: bytes) -> bytes:
        return self.pack("Q", len(raw)) + raw

    def kv_raw(self, part: bytes) -> GGUFBuilder:
        self.kv_parts.append(part)
        return self

    def kv(self, key: bytes, kind: int, value: float | bytes) -> GGUFBuilder:
        payload = self.string(value) if isinstance(value, bytes) else self.pack(CODES[kind], value)
        return self.kv_raw(self.string(key) + self.pack("i", kind) + payload)

    def array(self, key: bytes, kind: int, items: Sequence[float] | Sequence[bytes]) -> GGUFBuilder:
        payload = b"".join(
            self.string(i) if isinstance(i, bytes) else self.pack(CODES[kind], i) for i in items
        )
        return self.kv_raw(self.string(key) + self.pack("iiQ", ARRAY, kind, len(items)) + payload)

    def tensor(
        self,
        name: bytes,
        dims: tuple[int, ...],
        kind: int,
        *,
        offset: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> GGUFBuilder:
        """A tensor info; its data, a run of counting bytes, is appended if its size is small."""
        where = len(self.data) if offset is None else offset
        part = self.string(name) + self.pack("I", len(dims))
        part += self.pack(f"{len(dims)}q", *dims) + self.pack("iQ", kind, where)
        self.tensor_parts.append(part)
        block_size, type_size = size or SIZES.get(kind, (1, 1))
        nbytes = type_size
        for n in dims:
            nbytes *= n
        nbytes //= block_size
        if 0 <= nbytes < 1 << 16:
            self.data += bytes((len(self.data) + i) % 256 for i in range(nbytes))
            self.data += bytes(-len(self.data) % self.alignment)
        return self

    def header(self, *, n_tensors: int | None = None, n_kv: int | None = None) -> bytes:
        counts = (
            len(self.tensor_parts) if n_tensors is None else n_tensors,
            len(self.kv_parts) if n_kv is None else n_kv,
        )
        head = self.magic + self.pack("Iqq", self.version, *counts)
        return head + b"".join(self.kv_parts) + b"".join(self.tensor_parts)

    def build(self, *, n_tensors: int | None = None, n_kv: int | None = None) -> bytes:
        header = self.header(n_tensors=n_tensors, n_kv=n_kv)
        return header + bytes(-len(header) % self.alignment) + self.data


def every_kind(byteorder: str = "little", version: int = 3) -> GGUFBuilder:
    """A small file with every value type, every element type, empty arrays and odd bytes."""
    b = GGUFBuilder(byteorder=byteorder, version=version)
    b.kv(b"general.architecture", STRING, b"llama")
    for kind in CODES:
        b.kv(b"scalar.%d" % kind, kind, 1)
        b.array(b"array.%d" % kind, kind, [0, 1, 1])
        b.array(b"empty.%d" % kind, kind, [])
    b.array(b"strings", STRING, [b"<s>", b"", "né".encode(), b"\xff\x00\xfe"])
    b.array(b"no.strings", STRING, [])
    b.kv(b"empty.string", STRING, b"")
    b.kv(b"key \xff\xc3", STRING, b"\x80 is not UTF-8")
    b.tensor(b"blk.0.weight", (32, 3), Q8_0)
    b.tensor(b"tensor \xff", (5,), F32)
    b.tensor(b"", (), I8)
    b.tensor(b"ones", (3, 2, 1, 1), F32)
    return b
