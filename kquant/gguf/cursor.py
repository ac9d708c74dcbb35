"""Steps over the bytes of a GGUF header; every read is checked against the end of the file first."""

from __future__ import annotations

import struct
from pathlib import Path

from gguf import GGUFValueType

from kquant.errors import GGUFError, GGUFLimitError, GGUFTruncatedError
from kquant.gguf.kinds import HEAD_BYTES, recognized
from kquant.gguf.metadata import Value
from kquant.gguf.spec import (
    MAGIC,
    MAX_ARRAY_ELEMENTS,
    MAX_STRING_BYTES,
    ORDER_MARK,
    SCALAR_CODES,
    VERSIONS,
    ByteOrder,
)
from kquant.gguf.strings import Buffer, string_starts


class Cursor:
    """A position in the bytes of a file; reads use the byte order that the version field shows.

    `what` names what is read, for the error if it is incomplete.
    """

    def __init__(self, data: Buffer, path: Path) -> None:
        self.data = memoryview(data)
        self.path = path
        self.position = 0
        self.byteorder: ByteOrder = "little"

    def error(self, message: str, at: int, kind: type[GGUFError] = GGUFError) -> GGUFError:
        """An error that says in which file and at which byte."""
        return kind(f"{self.path}: byte {at}: {message}")

    def skip(self, n_bytes: int, what: str) -> int:
        """Steps over bytes that must exist, and returns their position."""
        at, remain = self.position, len(self.data) - self.position
        if n_bytes > remain:
            raise self.error(
                f"{what}: expected {n_bytes} bytes, got the end of the file after {remain}",
                at,
                GGUFTruncatedError,
            )
        self.position += n_bytes
        return at

    def read_preamble(self) -> int:
        """The magic and the version, which tells the byte order."""
        if (what := recognized(bytes(self.data[:HEAD_BYTES]))) is not None:
            is_cut_off = not any(self.data[:HEAD_BYTES])
            raise (GGUFTruncatedError if is_cut_off else GGUFError)(
                f"{self.path}: expected a GGUF file, got {what}"
            )
        magic = bytes(self.data[: self.skip(4, "magic") + 4])
        if magic != MAGIC:
            raise self.error(f"magic: expected {MAGIC!r}, got {magic!r}", 0)
        (version,) = self.read("I", "version")
        if version & 0xFFFF == 0:
            self.byteorder = "big"
            self.position -= 4
            (version,) = self.read("I", "version")
        if version not in VERSIONS:
            raise self.error(f"version: expected {VERSIONS[0]} or {VERSIONS[1]}, got {version}", 4)
        return int(version)

    def read(self, code: str, what: str) -> tuple[int, ...]:
        """Numbers of `struct`'s format `code` in the file's byte order."""
        number_format = ORDER_MARK[self.byteorder] + code
        at = self.skip(struct.calcsize(number_format), what)
        return struct.unpack_from(number_format, self.data, at)

    def read_count(self, what: str, min_bytes: int, limit: int) -> int:
        """A count of items that have at least `min_bytes` each and all follow this position."""
        at = self.position
        (count,) = self.read("q", what)
        if not 0 <= count <= limit:
            raise self.error(f"{what}: expected 0 to {limit}, got {count}", at, GGUFLimitError)
        self._check_room(count, min_bytes, what)
        return count

    def read_text(self, what: str, limit: int) -> str:
        """A string of at most `limit` bytes."""
        start = self.skip_string(what, limit)
        return bytes(self.data[start + 8 : self.position]).decode("utf-8", "surrogateescape")

    def skip_string(self, what: str, limit: int) -> int:
        """Steps over a string of at most `limit` bytes, and returns its position."""
        at = self.position
        (length,) = self.read("Q", what)
        if length > limit:
            raise self.error(f"{what}: expected at most {limit} bytes, got {length}", at, GGUFLimitError)
        self.skip(length, what)
        return at

    def read_value(self, what: str) -> Value:
        """A value with its type; the bytes are not copied."""
        at = self.position
        (value_type,) = self.read("i", what)
        count = None
        if value_type == GGUFValueType.ARRAY:
            value_type, count = self.read("iQ", what)
            if value_type == GGUFValueType.ARRAY:
                raise self.error(
                    f"{what}: expected an array of values, got one of arrays", at, GGUFLimitError
                )
            if count > MAX_ARRAY_ELEMENTS:
                raise self.error(
                    f"{what}: expected at most {MAX_ARRAY_ELEMENTS} elements, got {count}", at, GGUFLimitError
                )
        start = self.position
        if value_type == GGUFValueType.STRING:
            if count is None:
                self.skip_string(what, MAX_STRING_BYTES)
            else:
                self._skip_strings(count, what)
        elif code := SCALAR_CODES.get(value_type):
            self.skip((1 if count is None else count) * struct.calcsize("=" + code), what)
        else:
            raise self.error(
                f"{what}: expected a value type from 0 to {max(GGUFValueType)}, got {value_type}", at
            )
        return Value(GGUFValueType(value_type), count, self.data[start : self.position], self.byteorder)

    def _skip_strings(self, count: int, what: str) -> None:
        self._check_room(count, 8, what)
        walked = 0
        for starts in string_starts(self.data, self.position, count, self.byteorder):
            walked += starts.size
            self.position = int(starts[-1])
            self.skip_string(what, MAX_STRING_BYTES)
        if walked < count:  # the next one does not fit: step over it, so that it is in the error message
            self.skip_string(f"{what}: string {walked}", MAX_STRING_BYTES)

    def _check_room(self, count: int, min_bytes: int, what: str) -> None:
        at, remain = self.position, len(self.data) - self.position
        if count * min_bytes > remain:
            raise self.error(
                f"{what}: expected at least {count * min_bytes} bytes for {count} of them, "
                f"got the end of the file after {remain}",
                at,
                GGUFTruncatedError,
            )
