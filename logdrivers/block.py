"""The unit of the log path: many lines of one source, as bytes, with their times.

Everything that moves log data (shim, journal, drivers, collector, store, exporters) hands on blocks and
never single lines, because Python is slow per line and fast per block. A block keeps its bytes as they
came, with a tag that says how they are encoded; decoding waits until somebody needs the values.
A block is immutable and belongs to nobody: it may be kept, shared between threads and sent twice.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

__all__ = ["MAX_LINE", "Block", "Encoding", "Partial", "Stream", "count_lines", "whole_lines"]

#: Docker's line length: a longer line is split into partial messages of this many bytes, unless the
#: container's log options allow longer lines.
MAX_LINE = 16 * 1024


class Stream(enum.IntEnum):
    """Where a line was written. ``MIXED`` marks encodings that name the stream in each record."""

    MIXED = 0
    STDOUT = 1
    STDERR = 2

    @property
    def text(self) -> str:
        """The name Docker writes: ``stdout`` or ``stderr`` (``""`` for mixed)."""
        return ("", "stdout", "stderr")[self]


class Encoding(enum.IntEnum):
    """How the bytes of a block hold its lines."""

    #: Lines as the container wrote them, each ended by ``\n``. All share one time and one stream.
    LINES = 0
    #: Records of Docker's json-file, each ended by ``\n``: ``{"log":…,"stream":…,"attrs":{…},"time":…}``.
    #: Time, stream and attributes are in each record. Also the form received messages (GELF, Forward,
    #: syslog) are brought to, their further fields in ``attrs``.
    JSON_FILE = 1
    #: One message of several lines (a stack trace): each line of it ends in ``\n``, as the container wrote
    #: them, and the block counts as one line. One time, one stream, never partial.
    MESSAGE = 2


@dataclass(frozen=True, slots=True)
class Partial:
    """One piece of a line longer than the line limit (Docker's ``PLogMetaData``)."""

    id: str  #: 64 hexadecimal digits, the same for all pieces of the line
    ordinal: int  #: 1 for the first piece
    last: bool  #: true for the piece that ends the line (it may be empty)


@dataclass(frozen=True, slots=True)
class Block:
    """Many lines of one source.

    Encoding ``LINES``: without ``partial`` every line in ``data`` ends in ``\\n`` and
    ``first_ns == last_ns``; with ``partial`` the block is exactly one piece, without ``\\n``.
    Encoding ``MESSAGE``: ``data`` is one message, the newlines within it a part of its text, ``lines == 1``.
    Encoding ``JSON_FILE``: ``stream`` is ``MIXED`` unless all records are of one stream,
    ``partial`` is None (an open piece is a record whose log text lacks the newline).

    Times are nanoseconds since the epoch, UTC: the lowest and highest of the block's records.
    """

    data: bytes
    encoding: Encoding
    stream: Stream
    first_ns: int
    last_ns: int
    lines: int
    partial: Partial | None = None
    #: JSON_FILE: the bytes a container wrote for these records, if the block's maker has counted them; -1: not.
    source_bytes: int = field(default=-1, compare=False)


def count_lines(data: bytes) -> int:
    """How many newlines there are.

    Python looks at each byte to count one, but searches for those to delete: many times faster with long lines.
    """
    return len(data) - len(data.replace(b"\n", b""))


def whole_lines(block: Block) -> bool:
    """Whether it is nothing but whole lines, so that it may be encoded without being cut up."""
    return block.encoding is Encoding.LINES and block.partial is None and block.data.endswith(b"\n")
