"""What a copier keeps beside its spools: which bytes are on their way into the journal.

The ledger is one small record, so that a successor of a killed process makes the same block of the same bytes
again. The spools themselves are ``logdrivers/source/spool.py``.
"""

from __future__ import annotations

import enum
import os
import struct
from pathlib import Path
from typing import NamedTuple

from logdrivers.block import Stream
from logdrivers.source.splitting import OpenLine

__all__ = ["Intent", "Kind", "Ledger", "OpenLine"]


class Kind(enum.IntEnum):
    """What bytes become in the journal."""

    LINES = 0  #: whole lines, or a piece of a long one
    MESSAGE = 1  #: one message of several lines
    DROPPED = 2  #: the marker of dropped lines


class Intent(NamedTuple):
    """Which bytes are being appended to the journal, as what."""

    stream: Stream
    begin: int
    end: int
    time_ns: int
    eof: bool  #: the block is what was left at the end of the stream, without a newline
    kind: Kind = Kind.LINES
    lines: int = 0  #: how many were dropped


class Ledger:
    """One record, rewritten by a single ``pwrite`` before each append: the intent and both open lines."""

    _RECORD = struct.Struct("<BBBBBxxxQQQQQQQQ")

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.intent: Intent | None = None
        self.open_lines: dict[Stream, OpenLine | None] = {Stream.STDOUT: None, Stream.STDERR: None}
        data = os.pread(self._fd, self._RECORD.size, 0)
        if data:  # one from before there were dropped lines is shorter
            self._load(data.ljust(self._RECORD.size, b"\0"))

    def _load(self, data: bytes) -> None:
        stream, eof, out, err, kind, begin, end, time_ns, *lines, dropped = self._RECORD.unpack(data)
        if not stream:
            return
        self.intent = Intent(Stream(stream), begin, end, time_ns, bool(eof), Kind(kind), dropped)
        if out:
            self.open_lines[Stream.STDOUT] = OpenLine(lines[0], lines[1])
        if err:
            self.open_lines[Stream.STDERR] = OpenLine(lines[2], lines[3])

    def note(self, intent: Intent, open_line: OpenLine | None) -> None:
        """Record what is appended next, and the line of that stream that is open while and after it is."""
        lines = self.open_lines
        lines[intent.stream] = open_line
        self.intent = intent
        out, err = lines[Stream.STDOUT], lines[Stream.STDERR]
        record = self._RECORD.pack(
            intent.stream,
            intent.eof,
            out is not None,
            err is not None,
            intent.kind,
            intent.begin,
            intent.end,
            intent.time_ns,
            out.start if out else 0,
            out.time_ns if out else 0,
            err.start if err else 0,
            err.time_ns if err else 0,
            intent.lines,
        )
        os.pwrite(self._fd, record, 0)

    def forget(self) -> None:
        """No append is under way and no line is open."""
        self.intent = None
        self.open_lines = dict.fromkeys(self.open_lines)
        os.pwrite(self._fd, bytes(self._RECORD.size), 0)

    def close(self) -> None:
        """Close the file; it stays for a successor."""
        os.close(self._fd)
