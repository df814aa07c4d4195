"""Which lines of one stream pass the container's rate limit, and what is dropped but not yet marked as such.

Whole lines pass or do not. Once one does not, none do until the bucket is full again, so that a container
that writes too much leaves some markers a second and not one between any two lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from logdrivers.block import Block, Encoding
from logdrivers.source.rate_limit import Bucket
from logdrivers.source.splitting import OpenLine, Piece

__all__ = ["Dropping", "Gate", "Part"]

_SHORTEST_SECONDS = 0.1
#: A marker is written after so long, though nothing passes yet.
_MARKER_SECONDS = 10.0
#: What is only the rest of a line that was dropped, and counted, before waits so long for more.
_REST_SECONDS = 1.0
#: Dropped bytes wait in the spool for their marker; not more than so many.
_MOST_BYTES = 16 << 20


class Part(NamedTuple):
    """A part of a piece: to be appended, or, without a block, to be dropped."""

    block: Block | None
    end: int  #: the stream's offset behind it
    lines: int  #: that are dropped; 0 for more of a line that is counted already
    open_line: OpenLine | None  #: the line that is open behind it


@dataclass(slots=True)
class Dropping:
    """A range of a stream that is dropped, and whose marker is due."""

    begin: int
    end: int
    lines: int
    open_line: OpenLine | None
    due: float  #: when its marker has to be written


class Gate:
    """One stream's. Times are monotonic seconds."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._closed_until = 0.0
        self.dropping: Dropping | None = None

    @property
    def due(self) -> float | None:
        """When the marker of what is dropped has to be written; None if nothing is."""
        dropping = self.dropping
        if dropping is None:
            return None
        return 0.0 if dropping.end - dropping.begin >= _MOST_BYTES else dropping.due

    def parts(self, piece: Piece, begin: int, end: int, line: OpenLine | None, now: float) -> Iterator[Part]:
        """What of a piece, which is the stream's bytes ``[begin, end)``, passes; ``line`` is open before it."""
        block, size = piece.block, end - begin
        if line is not None:
            if line.dropped:
                yield Part(None, end, 0, line if piece.open_line is not None else None)
                return
            self._bucket.spend(size)
            yield Part(block, end, 0, piece.open_line)
            return
        several = block.encoding is Encoding.LINES and block.partial is None
        passing = self._passing(block.data, size, now) if several else self._whole(size, now)
        if passing:
            self._bucket.spend(passing)
            head = block if passing == size else _lines(block, 0, passing)
            yield Part(head, begin + passing, 0, piece.open_line)
        if passing < size:
            self._close(now)
            lines = block.data.count(b"\n", passing) if several else 1
            still_open = OpenLine(piece.open_line.start, 0) if piece.open_line is not None else None
            yield Part(None, end, lines, still_open)

    def drop(self, part: Part, begin: int, now: float) -> None:
        """A part is dropped; ``begin`` is where it begins."""
        gone = self.dropping
        if gone is None:
            wait = max(self._closed_until - now, 0.0 if part.lines else _REST_SECONDS)
            gone = self.dropping = Dropping(begin, begin, 0, None, now + min(wait, _MARKER_SECONDS))
        gone.end, gone.open_line = part.end, part.open_line
        gone.lines += part.lines

    def _whole(self, size: int, now: float) -> int:
        """All of it or nothing; from a full bucket, also what is larger than it."""
        if now < self._closed_until:
            return 0
        return size if size <= self._bucket.allowance(now) or self._bucket.full else 0

    def _passing(self, data: bytes, size: int, now: float) -> int:
        """How many bytes of whole lines."""
        if now < self._closed_until:
            return 0
        room = self._bucket.allowance(now)
        if size <= room:
            return size
        cut = data.rfind(b"\n", 0, room) + 1 if room > 0 else 0
        return data.find(b"\n") + 1 if not cut and self._bucket.full else cut

    def _close(self, now: float) -> None:
        if now >= self._closed_until:
            self._bucket.allowance(now)
            self._closed_until = now + max(_SHORTEST_SECONDS, self._bucket.seconds_to_full())


def _lines(block: Block, begin: int, end: int) -> Block:
    data = block.data[begin:end]
    return Block(data, block.encoding, block.stream, block.first_ns, block.last_ns, data.count(b"\n"))
