"""Where a container's bytes are between its pipe and its journal, so that kill -9 neither loses nor doubles one.

A spool is a sparse file in the run directory whose offsets are the stream's offsets: ``splice`` moves bytes
out of the pipe and to the end of the file in one system call, so the file's size always says exactly what
has left the pipe. What the journal holds is punched out again. The ledger beside it is one small record that
says which bytes are on their way into the journal, so that a successor makes the same block of them again.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from logdrivers.block import Stream
from runtime.linux import punch_hole

__all__ = ["Intent", "Ledger", "OpenLine", "Spool"]

_PAGE = 4096
_RELEASE_STRIDE = 1 << 20


class Spool:
    """The bytes of one stream from ``base`` on. ``end`` is how many have left the pipe so far."""

    def __init__(self, path: Path, base: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.end = os.fstat(self._fd).st_size
        if self.end < base:
            os.ftruncate(self._fd, base)
            self.end = base
        self._released = 0

    def fill(self, pipe_fd: int, limit: int) -> int | None:
        """Move up to ``limit`` bytes out of the pipe: how many, 0 at end of file, None if it is empty.

        Raises OSError (no space) with what was not moved still in the pipe.
        """
        try:
            moved = os.splice(pipe_fd, self._fd, limit, offset_dst=self.end, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return None
        self.end += moved
        return moved

    def read(self, begin: int, end: int) -> bytes:
        """The bytes ``[begin, end)``, which must have left the pipe and not be released."""
        data = os.pread(self._fd, end - begin, begin)
        if len(data) != end - begin:
            raise OSError(f"spool holds {len(data)} of the {end - begin} bytes at {begin}")
        return data

    def release(self, upto: int, *, all_pages: bool = False) -> None:
        """Give back pages before ``upto``, a stride at a time unless ``all_pages``.

        The byte before ``upto`` is kept: it tells whether a line was open there.
        """
        stop = (upto - 1) & ~(_PAGE - 1)
        if stop - self._released >= (_PAGE if all_pages else _RELEASE_STRIDE):
            punch_hole(self._fd, self._released, stop - self._released)
            self._released = stop

    def close(self) -> None:
        """Close the file; it stays for a successor."""
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class OpenLine:
    """A line over the line limit of which pieces are out and the end is not."""

    start: int  #: stream offset of its first byte
    time_ns: int  #: when its first piece was read; all pieces carry it


@dataclass(frozen=True, slots=True)
class Intent:
    """Which bytes are being appended to the journal, as what."""

    stream: Stream
    begin: int
    end: int
    time_ns: int
    eof: bool  #: the block is what was left at the end of the stream, without a newline


class Ledger:
    """One record, rewritten by a single ``pwrite`` before each append: the intent and both open lines."""

    _RECORD = struct.Struct("<BBBBxxxxQQQQQQQ")

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.intent: Intent | None = None
        self.open_lines: dict[Stream, OpenLine | None] = {Stream.STDOUT: None, Stream.STDERR: None}
        data = os.pread(self._fd, self._RECORD.size, 0)
        if len(data) == self._RECORD.size:
            self._load(data)

    def _load(self, data: bytes) -> None:
        stream, eof, out, err, begin, end, time_ns, *lines = self._RECORD.unpack(data)
        if not stream:
            return
        self.intent = Intent(Stream(stream), begin, end, time_ns, bool(eof))
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
            intent.begin,
            intent.end,
            intent.time_ns,
            out.start if out else 0,
            out.time_ns if out else 0,
            err.start if err else 0,
            err.time_ns if err else 0,
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
