"""From spooled bytes to blocks in the journal, by the rules of ``logdrivers/source/splitting.py``.

The copier keeps no state that its journal, its spools and its ledger do not hold, so a successor of a killed
process goes on where it was: what waits in memory (a message that may go on, dropped lines without their marker
yet) is in the spool behind the mark, and is decided anew. When to read a pipe is the shim's business, or the log
plugin's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from logdrivers.block import Block, Encoding, Stream
from logdrivers.journal import Entry, Journal, Mark, Position, Resume
from logdrivers.source.ledger import Intent, Kind, Ledger, OpenLine
from logdrivers.source.options import SourceOptions
from logdrivers.source.rate_gate import Gate
from logdrivers.source.rate_limit import Bucket, DropCounter, marker
from logdrivers.source.splitting import Piece, Splitter
from logdrivers.source.spool import Spool

__all__ = ["Copier", "Piece", "Splitter"]

log = logging.getLogger(__name__)

_READ = 1 << 18
#: A line that waited so long for its message to go on keeps its own time in a block of its own.
_OWN_TIME_NS = 20_000_000
#: A container whose writes wait is let on when so much may pass, or a tenth of a second's worth.
_QUANTUM = 1 << 14
_FOREVER = float("inf")


@dataclass(slots=True)
class _Held:
    """Whole lines that wait because their message may go on."""

    begin: int
    end: int
    time_ns: int  #: when the first of them was read
    due: float = _FOREVER  #: when they wait no longer, by the monotonic clock


class Copier:
    """Moves what is in the spools into the journal. One thread.

    ``open_counter`` opens the count of dropped lines; it is needed, and called, only with a rate limit.
    """

    def __init__(
        self,
        container_id: str,
        open_journal: Callable[[], Journal],
        open_spool: Callable[[Stream, int], Spool],
        ledger: Ledger,
        options: SourceOptions | None = None,
        open_counter: Callable[[], DropCounter] | None = None,
    ) -> None:
        self._options = options or SourceOptions()
        self._open_journal = open_journal
        self._ledger = ledger
        self.on_append: Callable[[Entry], None] | None = None  #: told of every block that is in
        both = (Stream.STDOUT, Stream.STDERR)
        self._splitters = {s: Splitter(container_id, s, self._options) for s in both}
        self._window = max(_READ, self._splitters[Stream.STDOUT].window)
        self._held: dict[Stream, _Held] = {}
        self._seen = dict.fromkeys(both, 0)  # up to here nothing ends what is left over
        self._bucket: Bucket | None = None
        self._counter: DropCounter | None = None
        self._gates: dict[Stream, Gate] = {}
        self.journal = open_journal()  # which makes the log directory
        rate = self._options.rate
        if rate is not None:
            self._bucket = Bucket(rate)
            if not rate.wait:
                assert open_counter is not None
                self._counter = open_counter()
                self._gates = {stream: Gate(self._bucket) for stream in both}
        resume = self.journal.resume()
        self._mark = {Stream.STDOUT: resume.mark.stdout, Stream.STDERR: resume.mark.stderr}
        self.spools: Mapping[Stream, Spool] = {s: open_spool(s, mark) for s, mark in self._mark.items()}
        self._resume(resume)

    @property
    def limited(self) -> bool:
        """Whether there is a rate limit, of which memory holds more than the disk."""
        return self._bucket is not None

    def copied(self, stream: Stream) -> int:
        """How many bytes of the stream are in the journal, or counted as dropped."""
        return self._mark[stream]

    def begin_life(self, now_ns: int) -> None:
        """The container starts again: what its last life left unfinished ends here."""
        for stream in self._mark:
            self.pump(stream, now_ns, eof=True)
        self._ledger.forget()

    def pump(self, stream: Stream, now_ns: int, *, eof: bool = False, flush: bool = False) -> None:
        """Append all complete lines of the stream's spool; with ``eof`` the unfinished one too.

        A message that may go on waits until ``due``, or ``flush`` or ``eof``. Raises OSError if the journal
        cannot take a block; ``reopen`` before the next call.
        """
        spool = self.spools[stream]
        while (begin := self._ahead(stream)) < spool.end:
            end = min(spool.end, begin + self._window)
            at_end = end == spool.end
            if not (eof or flush) and self._nothing_new(stream, begin, end):
                break
            data = spool.read(begin, end)
            for piece in self._splitters[stream].split(
                data, begin, now_ns, self._line(stream), eof and at_end, flush and at_end
            ):
                self._take(piece, stream, begin + piece.end, now_ns, eof and at_end)
            if self._ahead(stream) == begin:
                self._wait_for_more(stream, begin, data, now_ns)
                break
            spool.release(self._mark[stream])
        if eof:
            self._settle(stream, now_ns)

    # --- what falls due

    @property
    def due(self) -> float | None:
        """When ``pump_due`` is to be called at the latest, by the monotonic clock; None for never."""
        if not (self._held or self._gates):
            return None
        times = [held.due for held in self._held.values()]
        times += [gate.due for gate in self._gates.values() if gate.due is not None]
        return min(times, default=None)

    def pump_due(self, now_ns: int) -> None:
        """Append what has waited long enough. Raises OSError as ``pump`` does."""
        now = time.monotonic()
        for stream in self._mark:
            held, gate = self._held.get(stream), self._gates.get(stream)
            if held is not None and held.due <= now:
                self.pump(stream, now_ns, flush=True)
            if gate is not None and gate.due is not None and gate.due <= now:
                self._settle(stream, now_ns)

    def allowance(self) -> int | None:
        """How many bytes may leave the pipes now, if they are to wait; None without a limit."""
        if self._bucket is None or self._gates:
            return None
        return self._bucket.allowance(time.monotonic())

    def spend(self, size: int) -> None:
        """So many bytes left a pipe."""
        if self._bucket is not None and not self._gates:
            self._bucket.spend(size)

    def pause_seconds(self) -> float:
        """How long until it is worth while to take bytes out of the pipes again, if they are to wait."""
        rate = self._options.rate
        if rate is None or self._bucket is None or self._gates:
            return 0.0
        return self._bucket.seconds_to(min(_QUANTUM, rate.bytes_per_second / 10))

    # --- the journal's life

    def reopen(self) -> None:
        """Open the journal again after an append failed, and finish that append."""
        self.journal.close()
        self.journal = self._open_journal()
        resume = self.journal.resume()
        self._mark = {Stream.STDOUT: resume.mark.stdout, Stream.STDERR: resume.mark.stderr}
        self._held.clear()
        self._seen = dict.fromkeys(self._seen, 0)
        for gate in self._gates.values():
            gate.dropping = None
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
        if self._counter is not None:
            self._counter.close()

    # --- what is left over

    def _nothing_new(self, stream: Stream, begin: int, end: int) -> bool:
        """Whether what came since the last look ends no line, so that all of it waits on."""
        seen = self._seen[stream]
        if not begin < seen < end or end - begin >= self._window:
            return False
        unfinished = self._held[stream].end if stream in self._held else begin
        if end - unfinished >= self._options.max_line or b"\n" in self.spools[stream].read(seen, end):
            return False
        self._seen[stream] = end
        return True

    def _wait_for_more(self, stream: Stream, begin: int, data: bytes, now_ns: int) -> None:
        self._seen[stream] = begin + len(data)
        multiline = self._options.multiline
        if multiline is None or self._line(stream) is not None:
            return
        end = begin + data.rfind(b"\n") + 1
        if end == begin:
            return  # an unfinished line: nobody knows when it ends
        held = self._held.get(stream)
        if held is None or held.begin != begin:
            held = self._held[stream] = _Held(begin, begin, now_ns)
        if end > held.end:
            held.end, held.due = end, time.monotonic() + multiline.timeout_seconds

    # --- appending

    def _ahead(self, stream: Stream) -> int:
        """Up to where it is decided what becomes of the bytes."""
        gate = self._gates.get(stream)
        if gate is not None and gate.dropping is not None:
            return gate.dropping.end
        return self._mark[stream]

    def _line(self, stream: Stream) -> OpenLine | None:
        """The line that is open there."""
        gate = self._gates.get(stream)
        if gate is not None and gate.dropping is not None:
            return gate.dropping.open_line
        return self._ledger.open_lines[stream]

    def _take(self, piece: Piece, stream: Stream, end: int, now_ns: int, eof: bool) -> None:
        """Append a piece, as far as the rate limit lets it pass."""
        held = self._held.pop(stream, None)
        if held is not None and held.begin == self._ahead(stream) and now_ns - held.time_ns > _OWN_TIME_NS:
            for own, behind in _with_own_time(piece, held.time_ns):
                self._pass(own, stream, end - behind, now_ns, eof)
        else:
            self._pass(piece, stream, end, now_ns, eof)

    def _pass(self, piece: Piece, stream: Stream, end: int, now_ns: int, eof: bool) -> None:
        gate = self._gates.get(stream)
        if gate is None:
            self._append(piece, stream, end, eof)
            return
        begin = self._ahead(stream)
        now = time.monotonic()
        for part in gate.parts(piece, begin, end, self._line(stream), now):
            if part.block is None:
                gate.drop(part, self._ahead(stream), now)
                if gate.due == 0.0:  # so much that it may not wait
                    self._settle(stream, now_ns)
            else:
                self._settle(stream, now_ns)
                self._append(piece._replace(block=part.block), stream, part.end, eof)

    def _settle(self, stream: Stream, now_ns: int) -> None:
        """Append the marker of what was dropped, which carries the mark over it, and count it."""
        gate = self._gates.get(stream)
        if gate is None or gate.dropping is None:
            return
        gone = gate.dropping
        intent = Intent(stream, gone.begin, gone.end, now_ns, False, Kind.DROPPED, gone.lines)
        self._ledger.note(intent, gone.open_line)
        self._finish(intent, self._marker(intent), gone.open_line)
        gate.dropping = None
        self.spools[stream].release(self._mark[stream])

    def _append(self, piece: Piece, stream: Stream, end: int, eof: bool) -> None:
        block, begin = piece.block, self._mark[stream]
        kind = Kind.MESSAGE if block.encoding is Encoding.MESSAGE else Kind.LINES
        intent = Intent(stream, begin, end, block.first_ns, eof, kind)
        self._ledger.note(intent, self._splitters[stream].line_of(piece, begin))
        self._finish(intent, block, piece.open_line)

    def _finish(self, intent: Intent, block: Block, open_line: OpenLine | None) -> None:
        """Append the block of a noted intent; ``open_line`` is open behind it."""
        stream = intent.stream
        position = self.journal.append(block, self._mark_with(stream, intent.end))
        self._is_in(intent, open_line)
        if self.on_append is not None:
            self._announce(block, position)

    def _is_in(self, intent: Intent, open_line: OpenLine | None) -> None:
        stream = intent.stream
        self._mark[stream] = intent.end
        if intent.kind is Kind.DROPPED and self._counter is not None:
            self._counter.count(stream, intent.lines, intent.begin, intent.end)
        self._ledger.open_lines[stream] = open_line

    def _announce(self, block: Block, end: Position) -> None:
        assert self.on_append is not None
        lines, _ = self.journal.written()
        self.on_append(Entry(block, end, lines - block.lines))

    def _mark_with(self, stream: Stream, end: int) -> Mark:
        if stream is Stream.STDOUT:
            return Mark(end, self._mark[Stream.STDERR])
        return Mark(self._mark[Stream.STDOUT], end)

    def _marker(self, intent: Intent) -> Block:
        assert self._options.rate is not None, "lines were dropped, and now there is no rate limit"
        size = intent.end - intent.begin
        return marker(intent.stream, intent.time_ns, intent.lines, size, self._options.rate)

    # --- after a kill

    def _resume(self, resume: Resume) -> None:
        """Take up the ledger: close lines that ended, and finish the append a kill interrupted."""
        noted = dict(self._ledger.open_lines)
        for stream, line in noted.items():
            if line is not None and not self._is_open(stream, line):
                self._ledger.open_lines[stream] = None
        intent = self._ledger.intent
        if intent is not None and intent.begin == self._mark[intent.stream] < intent.end:
            self._replay(intent, resume.records, noted[intent.stream])
            return
        if intent is not None and intent.kind is Kind.DROPPED and intent.end == self._mark[intent.stream]:
            self._is_in(intent, self._ledger.open_lines[intent.stream])  # perhaps not counted yet
        if resume.records:
            log.error(
                "resume the journal: it holds %d records behind its mark %s, but the ledger names no append there",
                resume.records,
                resume.mark,
            )

    def _is_open(self, stream: Stream, line: OpenLine) -> bool:
        mark = self._mark[stream]
        return mark > line.start and self.spools[stream].read(mark - 1, mark) != b"\n"

    def _replay(self, intent: Intent, records: int, noted: OpenLine | None) -> None:
        """Append the same block again, without its first ``records`` records, which are in."""
        stream = intent.stream
        line = self._ledger.open_lines[stream]
        if intent.kind is Kind.DROPPED:
            block, after = self._marker(intent), noted
        else:
            data = self.spools[stream].read(intent.begin, intent.end)
            block, _, after = self._splitters[stream].again(
                data, intent.begin, intent.time_ns, line, intent.eof, intent.kind is Kind.MESSAGE
            )
        if records >= block.lines:
            # All of it got in and only the mark did not: this moves the mark, and nothing is lost.
            self.journal.give_up(self._mark_with(stream, intent.end))
            self._is_in(intent, after)
            return
        self._ledger.note(intent, noted)
        self._finish(intent, _without_first(block, records), after)


def _without_first(block: Block, records: int) -> Block:
    """A block of lines without its first ones."""
    if not records:
        return block
    rest = block.data.split(b"\n", records)[records]
    return replace(block, data=rest, lines=block.lines - records)


def _with_own_time(piece: Piece, time_ns: int) -> Iterator[tuple[Piece, int]]:
    """A piece whose first line was read at ``time_ns``: that line, or message, by itself and then the rest.

    Each with how many bytes are behind it.
    """
    block = piece.block
    if block.partial is not None:
        yield piece, 0
        return
    size = block.data.find(b"\n") + 1 if block.encoding is Encoding.LINES else len(block.data)
    own = replace(block, data=block.data[:size], lines=1, first_ns=time_ns, last_ns=time_ns)
    yield piece._replace(block=own), len(block.data) - size
    if size < len(block.data):
        yield piece._replace(block=replace(block, data=block.data[size:], lines=block.lines - 1)), 0
