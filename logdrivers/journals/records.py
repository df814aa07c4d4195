"""What a rotated log has to know of its records: where one ends, and what times, lines and bytes are in them.

json-file and local keep their lines in files of the same life (rotation, compression, recovery), and differ in
this alone. Cutting and counting work on data that begins at a record; making records is each codec's encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from logdrivers.block import Block, Stream

__all__ = ["BlockEncoder", "RecordFormat"]


class BlockEncoder(Protocol):
    """Makes the records of one container."""

    def encode(self, block: Block) -> bytes:
        """The block as whole records. Raises ValueError for a block that is not what its fields say."""


class RecordFormat(Protocol):
    """The records of one kind of file."""

    def whole(self, data: bytes) -> int:
        """How many bytes of ``data`` are whole records."""

    def whole_in_file(self, descriptor: int) -> int:
        """How many bytes of a file nobody knows are whole records, up to a torn one at its end."""

    def through(self, data: bytes, begin: int, size: int) -> int:
        """The end of the record that has the ``size``-th byte behind ``begin``; the end of the data if none has."""

    def behind(self, data: bytes, count: int) -> int:
        """The offset behind so many records. Raises ValueError if there are fewer."""

    def count(self, data: bytes) -> int:
        """How many records whole data holds."""

    def source_bytes(self, data: bytes) -> int:
        """How many bytes a container wrote to give these records, newlines included."""

    def stream(self, data: bytes) -> Stream:
        """The stream all records are of, or MIXED."""

    def time_range(self, data: bytes) -> tuple[int, int]:
        """The lowest and highest time of the records; (0, 0) if nothing in the data has one."""

    def first_since(self, data: bytes, time_ns: int) -> int | None:
        """The offset of the first record of this time or later."""

    def blocks(self, data: bytes) -> Iterator[tuple[int, Block]]:
        """Whole records as blocks, each with how many bytes of ``data`` it covers."""
