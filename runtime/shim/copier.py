"""From spooled bytes to blocks in the journal, with Docker's line and partial rules.

All complete lines of a read become one block with one time; a line of 16 KiB or more goes out in pieces.
The copier keeps no state that its journal, its spools and its ledger do not hold, so a successor of a killed
shim goes on where it was. When to read a pipe is the shim's business.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from logdrivers.block import MAX_LINE, Block, Encoding, Partial, Stream
from logdrivers.journal import Entry, Journal, Mark, Position, Resume
from runtime.shim.spool import Intent, Ledger, OpenLine, Spool

__all__ = ["Copier", "Piece", "Splitter"]

log = logging.getLogger(__name__)

_READ = 1 << 18


class Piece(NamedTuple):
    """A block with where its bytes end in the data split, and the line that is open once it is out."""

    block: Block
    end: int
    open_line: OpenLine | None


class Splitter:
    """Splits the bytes of one stream. Without state: the same bytes give the same blocks."""

    def __init__(self, container_id: str, stream: Stream) -> None:
        self._container_id = container_id
        self._stream = stream

    def split(
        self, data: bytes, at: int, now_ns: int, open_line: OpenLine | None, eof: bool
    ) -> Iterator[Piece]:
        """Pieces from ``data``, whose first byte is the stream's byte ``at``.

        Bytes of an unfinished line shorter than the limit are left over unless ``eof``.
        """
        here = 0
        line = open_line
        while True:
            if line is None:
                stop = _short_lines(data, here)
                if stop > here:
                    yield self._lines(data, here, stop, now_ns)
                    here = stop
                if len(data) - here < MAX_LINE and not (eof and here < len(data)):
                    return
                line = OpenLine(at + here, now_ns)
            piece = self._part(data, here, at, line, eof)
            if piece is None:
                return
            yield piece
            here, line = piece.end, piece.open_line

    def _lines(self, data: bytes, begin: int, end: int, now_ns: int) -> Piece:
        body = data if end - begin == len(data) else data[begin:end]
        block = Block(body, Encoding.LINES, self._stream, now_ns, now_ns, body.count(b"\n"))
        return Piece(block, end, None)

    def _part(self, data: bytes, begin: int, at: int, line: OpenLine, eof: bool) -> Piece | None:
        """The next piece of a long line (or of what the end of the stream cut short)."""
        newline = data.find(b"\n", begin, begin + MAX_LINE)
        if newline >= 0:
            end, after, still_open = newline, newline + 1, None
        elif len(data) - begin >= MAX_LINE:
            end = after = begin + MAX_LINE
            still_open = line
        elif eof and begin < len(data):
            end = after = len(data)
            still_open = None
        else:
            return None
        ordinal = (at + begin - line.start) // MAX_LINE + 1
        partial = Partial(self._partial_id(line), ordinal, newline >= 0)
        time_ns = line.time_ns
        block = Block(data[begin:end], Encoding.LINES, self._stream, time_ns, time_ns, 1, partial)
        return Piece(block, after, still_open)

    def _partial_id(self, line: OpenLine) -> str:
        name = f"{self._container_id} {self._stream} {line.start} {line.time_ns}"
        return hashlib.sha256(name.encode()).hexdigest()


def _short_lines(data: bytes, begin: int) -> int:
    """End of the run of complete lines from ``begin`` on that are all shorter than the limit.

    One backward search per 16 KiB window finds a longer line, without looking at each.
    """
    last = data.rfind(b"\n", begin) + 1
    while last - begin > MAX_LINE:
        newline = data.rfind(b"\n", begin, begin + MAX_LINE)
        if newline < 0:
            return begin
        begin = newline + 1
    return max(last, begin)


class Copier:
    """Moves what is in the spools into the journal. One thread."""

    def __init__(
        self,
        container_id: str,
        open_journal: Callable[[], Journal],
        open_spool: Callable[[Stream, int], Spool],
        ledger: Ledger,
    ) -> None:
        self._open_journal = open_journal
        self._ledger = ledger
        self.on_append: Callable[[Entry], None] | None = None  #: told of every block that is in
        self._splitters = {s: Splitter(container_id, s) for s in (Stream.STDOUT, Stream.STDERR)}
        self.journal = open_journal()
        resume = self.journal.resume()
        self._mark = {Stream.STDOUT: resume.mark.stdout, Stream.STDERR: resume.mark.stderr}
        self.spools: Mapping[Stream, Spool] = {s: open_spool(s, mark) for s, mark in self._mark.items()}
        self._resume(resume)

    def copied(self, stream: Stream) -> int:
        """How many bytes of the stream are in the journal."""
        return self._mark[stream]

    def begin_life(self, now_ns: int) -> None:
        """The container starts again: what its last life left unfinished ends here."""
        for stream in self._mark:
            self.pump(stream, now_ns, eof=True)
        self._ledger.forget()

    def pump(self, stream: Stream, now_ns: int, *, eof: bool = False) -> None:
        """Append all complete lines of the stream's spool; with ``eof`` the unfinished one too.

        Raises OSError if the journal cannot take a block; ``reopen`` before the next call.
        """
        spool = self.spools[stream]
        while (begin := self._mark[stream]) < spool.end:
            end = min(spool.end, begin + _READ)
            data = spool.read(begin, end)
            at_end = eof and end == spool.end
            for piece in self._splitters[stream].split(
                data, begin, now_ns, self._ledger.open_lines[stream], at_end
            ):
                self._append(piece, stream, begin + piece.end, now_ns, at_end)
            if self._mark[stream] == begin:
                return
            spool.release(self._mark[stream])

    def reopen(self) -> None:
        """Open the journal again after an append failed, and finish that append."""
        self.journal.close()
        self.journal = self._open_journal()
        resume = self.journal.resume()
        self._mark = {Stream.STDOUT: resume.mark.stdout, Stream.STDERR: resume.mark.stderr}
        self._resume(resume)

    def release(self) -> None:
        """Give back every spooled page that the journal holds."""
        for stream, spool in self.spools.items():
            spool.release(self._mark[stream], all_pages=True)

    def close(self) -> None:
        """Close journal, spools and ledger."""
        self.journal.close()
        for spool in self.spools.values():
            spool.close()
        self._ledger.close()

    def _append(self, piece: Piece, stream: Stream, end: int, time_ns: int, eof: bool) -> None:
        intent = Intent(stream, self._mark[stream], end, time_ns, eof)
        self._ledger.note(intent, piece.open_line or _line_of(piece, intent))
        position = self.journal.append(piece.block, self._mark_with(stream, end))
        self._mark[stream] = end
        if self.on_append is not None:
            self._announce(piece.block, position)
        self._ledger.open_lines[stream] = piece.open_line

    def _announce(self, block: Block, end: Position) -> None:
        assert self.on_append is not None
        lines, _ = self.journal.written()
        self.on_append(Entry(block, end, lines - block.lines))

    def _mark_with(self, stream: Stream, end: int) -> Mark:
        if stream is Stream.STDOUT:
            return Mark(end, self._mark[Stream.STDERR])
        return Mark(self._mark[Stream.STDOUT], end)

    def _resume(self, resume: Resume) -> None:
        """Take up the ledger: close lines that ended, and finish the append a kill interrupted."""
        for stream, line in self._ledger.open_lines.items():
            if line is not None and not self._is_open(stream, line):
                self._ledger.open_lines[stream] = None
        intent = self._ledger.intent
        if intent is not None and intent.begin == self._mark[intent.stream] < intent.end:
            self._replay(intent, resume.records)
        elif resume.records:
            log.error(
                "resume the journal: it holds %d records behind its mark %s, but the ledger names no append there",
                resume.records,
                resume.mark,
            )

    def _is_open(self, stream: Stream, line: OpenLine) -> bool:
        mark = self._mark[stream]
        return mark > line.start and self.spools[stream].read(mark - 1, mark) != b"\n"

    def _replay(self, intent: Intent, records: int) -> None:
        """Append the same block again, without its first ``records`` records, which are in."""
        stream = intent.stream
        data = self.spools[stream].read(intent.begin, intent.end)
        line = self._ledger.open_lines[stream]
        splitter = self._splitters[stream]
        piece = next(splitter.split(data, intent.begin, intent.time_ns, line, intent.eof))
        if records >= piece.block.lines:
            # All of it got in and only the mark did not: this moves the mark, and nothing is lost.
            self.journal.give_up(self._mark_with(stream, intent.end))
            self._mark[stream] = intent.end
            self._ledger.open_lines[stream] = piece.open_line
            return
        piece = piece._replace(block=_without_first(piece.block, records))
        self._append(piece, stream, intent.end, intent.time_ns, intent.eof)


def _line_of(piece: Piece, intent: Intent) -> OpenLine | None:
    """The line that a closing piece belongs to: a replay needs it to make the same piece."""
    partial = piece.block.partial
    if partial is None:
        return None
    return OpenLine(intent.begin - (partial.ordinal - 1) * MAX_LINE, piece.block.first_ns)


def _without_first(block: Block, records: int) -> Block:
    """A block of lines without its first ones."""
    if not records:
        return block
    rest = block.data.split(b"\n", records)[records]
    return replace(block, data=rest, lines=block.lines - records)
