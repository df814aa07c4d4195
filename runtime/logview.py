"""What ``docker logs`` shows of a journal: which lines, and as which bytes.

Pure: blocks in, bytes out. Selects by stream and time, renders timestamps and attributes as Docker does and
frames the two streams. Opening journals and waiting for more is left to ``runtime/api/logs.py``.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus

from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file

__all__ = ["LogView", "Selection"]

log = logging.getLogger(__name__)

_HEADER = struct.Struct(">BxxxI")


@dataclass(frozen=True, slots=True)
class Selection:
    """The options of ``docker logs``. Times are nanoseconds since the epoch, 0 for no bound."""

    stdout: bool = True
    stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0
    timestamps: bool = False
    details: bool = False  #: attributes before each line, as ``key=value,…``
    framed: bool = True  #: eight-byte headers; False for a container with a terminal
    #: A frame per line: clients that follow often take a frame for a line (docker-py's ``logs(stream=True)``).
    #: Otherwise a frame holds as many lines as fit, which spares the client a system call per line.
    frame_per_line: bool = False


#: One run of lines that share time, stream and attributes; false at the end says that all of it is one message.
_Run = tuple[int, Stream, bytes, Mapping[str, str], bool]


class LogView:
    """Renders blocks for one client. ``done`` turns true behind the last line before ``until``."""

    def __init__(self, selection: Selection, attrs: Mapping[str, str] | None = None) -> None:
        self._selection = selection
        self._attrs = attrs or {}
        self._plain = not (selection.timestamps or selection.details)
        self.done = False
        self.unreadable = 0  #: records that were no records (torn by a power cut)

    def render(self, block: Block, skip: int = 0) -> bytes:
        """The bytes for the client of the block's lines, less the first ``skip`` of them."""
        sel = self._selection
        if sel.until_ns and block.first_ns > sel.until_ns:
            self.done = True
            return b""
        if sel.since_ns and block.last_ns < sel.since_ns:
            return b""
        out: list[bytes] = []
        for stream, data in self._joined(self._runs(block, skip)):
            out += self._frames(stream, data)
        return b"".join(out)

    def _runs(self, block: Block, skip: int) -> Iterator[_Run]:
        sel = self._selection
        for time_ns, stream, data, attrs, many in self._all_runs(block, skip):
            if sel.until_ns and time_ns > sel.until_ns:
                self.done = True
                return
            wanted = sel.stderr if stream is Stream.STDERR else sel.stdout
            if wanted and time_ns >= sel.since_ns and data:
                yield time_ns, stream, data, attrs, many

    def _all_runs(self, block: Block, skip: int) -> Iterator[_Run]:
        if block.encoding is Encoding.LINES:
            # A piece has no newline of its own; the one that ends the line is due behind the last.
            ended = block.partial is not None and block.partial.last
            data = block.data + b"\n" if ended else block.data
            yield block.first_ns, block.stream, _without_first(data, skip), self._attrs, True
            return
        if block.encoding is Encoding.MESSAGE:
            yield block.first_ns, block.stream, b"" if skip else block.data, self._attrs, False
            return
        bad: list[bytes] = []
        for record in json_file.decode(block.data, bad)[skip:]:
            yield record.time_ns, record.stream, record.log, record.attrs, False
        if bad:
            self.unreadable += len(bad)
            log.warning("passed over %d unreadable log records, the first %r", len(bad), bad[0][:80])

    def _joined(self, runs: Iterator[_Run]) -> Iterator[tuple[Stream, bytes]]:
        """Neighbouring runs of one stream as one piece, each line with what precedes it."""
        current: Stream | None = None
        pieces: list[bytes] = []
        for time_ns, stream, data, attrs, many in runs:
            if stream is not current:
                if pieces:
                    yield current or Stream.STDOUT, b"".join(pieces)
                current, pieces = stream, []
            pieces.append(data if self._plain else self._prefixed(time_ns, data, attrs, many))
        if pieces:
            yield current or Stream.STDOUT, b"".join(pieces)

    def _prefixed(self, time_ns: int, data: bytes, attrs: Mapping[str, str], many: bool) -> bytes:
        """``data`` with what precedes each of its lines; a message of several lines has it once, as with Docker."""
        prefix = b""
        if self._selection.timestamps:
            prefix = _fixed_time(time_ns) + b" "
        if self._selection.details:
            text = ",".join(f"{quote_plus(k)}={quote_plus(v)}" for k, v in sorted(attrs.items()))
            prefix += text.encode() + b" "
        if not many or data.count(b"\n") <= 1:
            return prefix + data
        body = data[:-1] if data.endswith(b"\n") else data
        return prefix + body.replace(b"\n", b"\n" + prefix) + data[len(body) :]

    def _frames(self, stream: Stream, data: bytes) -> list[bytes]:
        if not self._selection.framed:
            return [data]
        kind = 2 if stream is Stream.STDERR else 1
        if not self._selection.frame_per_line:
            return [_HEADER.pack(kind, len(data)), data]
        pack = _HEADER.pack
        return [pack(kind, len(line)) + line for line in _lines(data)]


def _lines(data: bytes) -> list[bytes]:
    """Lines with their newline; only the newline ends one, not a carriage return."""
    parts = data.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def _without_first(data: bytes, count: int) -> bytes:
    at = 0
    for _ in range(count):
        at = data.find(b"\n", at) + 1
        if at == 0:
            return b""
    return data[at:]


def _fixed_time(time_ns: int) -> bytes:
    """RFC 3339 with always nine digits, as Docker writes it before lines."""
    text = json_file.format_time(time_ns - time_ns % 1_000_000_000)
    return b"%s.%09dZ" % (text[:-1], time_ns % 1_000_000_000)
