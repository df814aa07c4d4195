"""json-file's records as a rotated log sees them: a newline ends each, and never stands inside one.

Most answers are one search for newlines; what is in a record is ``codecs/json_file.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file as codec

__all__ = ["JsonFileRecords"]

_CHUNK = 1 << 20


class JsonFileRecords:
    """``{"log":…}`` and a newline."""

    def whole(self, data: bytes) -> int:
        """How many bytes of ``data`` are whole records."""
        return data.rfind(b"\n") + 1

    def whole_in_file(self, descriptor: int) -> int:
        """The offset behind the last newline of a file, read backwards."""
        end = os.fstat(descriptor).st_size
        while end:
            start = max(0, end - _CHUNK)
            at = os.pread(descriptor, end - start, start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
        return 0

    def through(self, data: bytes, begin: int, size: int) -> int:
        """The end of the record that has the ``size``-th byte behind ``begin``."""
        last = data.find(b"\n", begin + size - 1)
        return last + 1 if last >= 0 else len(data)

    def behind(self, data: bytes, count: int) -> int:
        """The offset behind so many records."""
        at = 0
        for _ in range(count):
            at = data.index(b"\n", at) + 1
        return at

    def count(self, data: bytes) -> int:
        """How many records whole data holds."""
        return codec.count_records(data)

    def source_bytes(self, data: bytes) -> int:
        """How many bytes a container wrote to give these records."""
        return codec.source_bytes(data)

    def stream(self, data: bytes) -> Stream:
        """The stream all records are of, or MIXED."""
        return codec.streams(data)

    def time_range(self, data: bytes) -> tuple[int, int]:
        """The lowest and highest time; lines that are no records are passed over."""
        return codec.time_range(data, strict=False)

    def first_since(self, data: bytes, time_ns: int) -> int | None:
        """The offset of the first record of this time or later."""
        if self.time_range(data)[1] < time_ns:
            return None
        offset = 0
        for line in data.splitlines(keepends=True):
            if self.time_range(line)[1] >= time_ns:
                return offset
            offset += len(line)
        return None

    def blocks(self, data: bytes) -> Iterator[tuple[int, Block]]:
        """All of the data as it is: one block."""
        low, high = self.time_range(data)
        yield len(data), Block(data, Encoding.JSON_FILE, self.stream(data), low, high, self.count(data))
