"""From the bytes of a stream to its lines: runs of whole lines, messages of several, pieces of long ones.

The rules are Docker's, with the length and the joining that the container's options ask for. Nothing is
remembered between calls: what is not finished is left over, and the caller comes again with it and more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from logdrivers.block import Block, Encoding, Partial, Stream, count_lines
from logdrivers.source.options import SourceOptions

__all__ = ["OpenLine", "Piece", "Splitter"]


@dataclass(frozen=True, slots=True)
class OpenLine:
    """A line over the line limit of which pieces are out and the end is not."""

    start: int  #: stream offset of its first byte
    time_ns: int  #: when its first piece was read; all pieces carry it. 0: they were dropped, the rest is too

    @property
    def dropped(self) -> bool:
        """Whether its beginning was dropped."""
        return not self.time_ns


class Piece(NamedTuple):
    """A block with where its bytes end in the data split, and the line that is open once it is out."""

    block: Block
    end: int
    open_line: OpenLine | None


class Splitter:
    """Splits the bytes of one stream. Without state: the same bytes give the same blocks."""

    def __init__(self, container_id: str, stream: Stream, options: SourceOptions | None = None) -> None:
        self._container_id = container_id
        self._stream = stream
        self._options = options or SourceOptions()
        self._limit = self._options.max_line

    @property
    def window(self) -> int:
        """Of so many bytes that have not all been split yet, some can be."""
        multiline = self._options.multiline
        return self._limit + (multiline.max_bytes if multiline is not None else 0)

    def split(
        self,
        data: bytes,
        at: int,
        now_ns: int,
        open_line: OpenLine | None = None,
        eof: bool = False,
        flush: bool = False,
    ) -> Iterator[Piece]:
        """Pieces from ``data``, whose first byte is the stream's byte ``at``.

        Bytes of an unfinished line shorter than the limit are left over unless ``eof``, and a message that
        may go on unless ``eof`` or ``flush``.
        """
        here = 0
        line = open_line
        while True:
            if line is None:
                stop = _short_lines(data, here, self._limit)
                long = len(data) - stop >= self._limit
                for piece in self._runs(data, here, stop, now_ns, eof or flush or long):
                    yield piece
                    here = piece.end
                if here < stop or not (long or (eof and here < len(data))):
                    return
                line = OpenLine(at + here, now_ns)
            part = self._part(data, here, at, line, eof)
            if part is None:
                return
            yield part
            here, line = part.end, part.open_line

    def again(
        self, data: bytes, at: int, time_ns: int, line: OpenLine | None, eof: bool, message: bool
    ) -> Piece:
        """The one piece that ``data`` became before: whole lines, a ``message`` of several, or a part of ``line``."""
        if message:
            return self._message(data, 0, len(data), time_ns)
        if line is None and data.endswith(b"\n") and len(data) <= _short_lines(data, 0, self._limit):
            return self._lines(data, 0, len(data), time_ns)
        piece = self._part(data, 0, at, line or OpenLine(at, time_ns), eof)
        assert piece is not None, f"{len(data)} bytes at {at} were a piece and are none now"
        return piece

    def _runs(self, data: bytes, begin: int, end: int, now_ns: int, over: bool) -> Iterator[Piece]:
        """Whole lines as runs and messages; the last one, if it may go on, only if it is ``over``."""
        multiline = self._options.multiline
        if multiline is None or begin == end:
            if end > begin:
                yield self._lines(data, begin, end, now_ns)
            return
        stop = end
        if not over and multiline.rule.any_line_goes_on:
            stop = data.rfind(b"\n", begin, end - 1) + 1 or begin
        here = begin
        for span in multiline.rule.spans(data, begin, end):
            if here < span.begin:
                yield self._lines(data, here, span.begin, now_ns)
            here = span.begin
            for cut in self._cuts(data, *span):
                if cut == end and not over and not self._is_full(data, here, cut):
                    return
                yield self._message(data, here, cut, now_ns)
                here = cut
        if here < stop:
            yield self._lines(data, here, stop, now_ns)

    def _cuts(self, data: bytes, begin: int, end: int) -> Iterator[int]:
        """Where a message ends: at its end, and before that wherever it has reached a limit."""
        multiline = self._options.multiline
        assert multiline is not None
        while end - begin > multiline.max_bytes or data.count(b"\n", begin, end) > multiline.max_lines:
            cut, lines = data.index(b"\n", begin, end) + 1, 1
            while cut < end and lines < multiline.max_lines:
                line_end = data.index(b"\n", cut, end) + 1
                if line_end - begin > multiline.max_bytes:
                    break
                cut, lines = line_end, lines + 1
            yield cut
            if cut == end:
                return
            begin = cut
        yield end

    def _is_full(self, data: bytes, begin: int, end: int) -> bool:
        multiline = self._options.multiline
        assert multiline is not None
        return end - begin >= multiline.max_bytes or data.count(b"\n", begin, end) >= multiline.max_lines

    def _lines(self, data: bytes, begin: int, end: int, now_ns: int) -> Piece:
        body = data if end - begin == len(data) else data[begin:end]
        block = Block(body, Encoding.LINES, self._stream, now_ns, now_ns, count_lines(body))
        return Piece(block, end, None)

    def _message(self, data: bytes, begin: int, end: int, now_ns: int) -> Piece:
        body = data if end - begin == len(data) else data[begin:end]
        if body.count(b"\n") == 1:
            return self._lines(data, begin, end, now_ns)
        return Piece(Block(body, Encoding.MESSAGE, self._stream, now_ns, now_ns, 1), end, None)

    def _part(self, data: bytes, begin: int, at: int, line: OpenLine, eof: bool) -> Piece | None:
        """The next piece of a long line (or of what the end of the stream cut short)."""
        limit = self._limit
        newline = data.find(b"\n", begin, begin + limit)
        if newline >= 0:
            end, after, still_open = newline, newline + 1, None
        elif len(data) - begin >= limit:
            end = after = begin + limit
            still_open = line
        elif eof and begin < len(data):
            end = after = len(data)
            still_open = None
        else:
            return None
        ordinal = (at + begin - line.start) // limit + 1
        partial = Partial(self._partial_id(line), ordinal, newline >= 0)
        time_ns = line.time_ns
        block = Block(data[begin:end], Encoding.LINES, self._stream, time_ns, time_ns, 1, partial)
        return Piece(block, after, still_open)

    def _partial_id(self, line: OpenLine) -> str:
        name = f"{self._container_id} {self._stream} {line.start} {line.time_ns}"
        return hashlib.sha256(name.encode()).hexdigest()

    def line_of(self, piece: Piece, at: int) -> OpenLine | None:
        """The line that a piece which begins at the stream's byte ``at`` belongs to, also if it ends it."""
        partial = piece.block.partial
        if partial is None:
            return None
        return piece.open_line or OpenLine(at - (partial.ordinal - 1) * self._limit, piece.block.first_ns)


def _short_lines(data: bytes, begin: int, limit: int) -> int:
    """End of the run of complete lines from ``begin`` on that are all shorter than the limit.

    One backward search per window of the limit's size finds a longer line, without looking at each.
    """
    last = data.rfind(b"\n", begin) + 1
    while last - begin > limit:
        newline = data.rfind(b"\n", begin, begin + limit)
        if newline < 0:
            return begin
        begin = newline + 1
    return max(last, begin)
