"""The tail of one container's journal: how lines of drivers that write no json-file get into the store.

Entries go on as they are; runs of small ones are put together as json-file records, because the store, too,
pays by the block, and so are messages of several lines. A marker stands where lines were lost. When to read,
and whose journal it is, are decided by ``tails.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import orjson

from collector.inputs.intake import Intake
from collector.inputs.losses import TailCounters
from collector.sink import Source
from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs.json_file import Encoder
from logdrivers.journal import Entry, JournalReader, Position
from logdrivers.journals.gaps import lost_by_cause, marker
from logdrivers.journals.reader_cursors import COLLECTOR, ReaderCursor

__all__ = ["JournalTail"]

log = logging.getLogger(__name__)

#: A block with fewer lines than this is put together with its neighbours.
_SMALL = 32
_ENCODER = Encoder()


class JournalTail:
    """Reads one journal from its checkpoint on. Not thread-safe; ``turn`` never waits."""

    def __init__(
        self,
        open_reader: Callable[[], JournalReader],
        key: str,
        source: Source,
        intake: Intake,
        block_bytes: int = 1 << 18,
        *,
        segments: Path | None = None,
    ) -> None:
        """``segments``: the directory of a segment journal, which then holds what is not stored yet."""
        self.source = source  #: may be replaced when the container is renamed
        self.counters = TailCounters()
        self._open_reader = open_reader  # called at the first turn: the journal may not be there yet
        self._reader: JournalReader | None = None
        self._key = key
        self._intake = intake
        self._block_bytes = block_bytes
        self._position: Position | None = None
        self._line = 0  # lines of the journal before the position
        self._segments = segments
        self._cursor: ReaderCursor | None = None
        self._refused = False  # whether it could not register, and that was said

    def turn(self) -> bool:
        """Read and store about one block. Returns whether more may be there.

        Raises OSError when the journal cannot be read or the store cannot take the block; nothing is lost
        and the next turn tries the same again.
        """
        reader = self._reader = self._reader or self._open_reader()
        if self._position is None:
            self._position = self._resume(reader)
        if self._cursor is None:
            self._move_cursor()
        batch = reader.read(self._position, self._block_bytes)
        for entries in _runs(batch.entries):
            if entries[0].first_line > self._line:
                self._note_gap(reader, entries[0])
            self._store(entries)
        if batch.entries:
            self._move_cursor()
        return bool(batch.entries)

    def _resume(self, reader: JournalReader) -> Position:
        value = self._intake.checkpoint(self._key)
        if value is not None:
            try:
                fields = orjson.loads(value)
                self._line = int(fields["line"])
                return self._within(reader, Position(int(fields["segment"]), int(fields["offset"])))
            except (KeyError, TypeError, ValueError) as error:
                log.error(
                    "resuming journal %s failed, reading it from its start: %s: %r", self._key, error, value
                )
        return reader.first()

    def _within(self, reader: JournalReader, position: Position) -> Position:
        """The position, or the journal's end if a power cut has taken what was stored already."""
        end, end_line = reader.end(), reader.end_line()
        if position <= end or self._line <= end_line:
            return position
        log.error("journal %s lacks its last %d lines, which are stored", self._key, self._line - end_line)
        self._line = end_line
        return end

    def _store(self, entries: Sequence[Entry]) -> None:
        last = entries[-1]
        block = last.block
        if len(entries) > 1 or block.encoding is Encoding.MESSAGE:
            block = _merge([entry.block for entry in entries])
        line = last.first_line + last.block.lines
        self._append(block, last.end, line)
        self._position, self._line = last.end, line
        self.counters.lines += block.lines
        self.counters.bytes += len(block.data)

    def _append(self, block: Block, end: Position, line: int) -> None:
        value = b'{"segment":%d,"offset":%d,"line":%d}' % (*end, line)
        self._intake.append(self.source, block, (self._key, value))

    def _note_gap(self, reader: JournalReader, behind: Entry) -> None:
        """Store a marker for the lines missing before an entry, and count them."""
        assert self._position is not None
        for cause, lines in lost_by_cause(reader, self._line, behind.first_line, "retention").items():
            self._append(marker(cause, lines, behind.block.first_ns), self._position, self._line + lines)
            self._line += lines
            self.counters.lose(cause, lines, 0)
            log.warning("journal %s: %d lines were lost before they were read: %s", self._key, lines, cause)

    def _move_cursor(self) -> None:
        """Tell retention how far we are; without a cursor (disk full) lines may go before they are read."""
        if self._segments is None or not self._segments.is_dir():
            return
        try:
            self._cursor = self._cursor or ReaderCursor(self._segments, COLLECTOR)
        except (OSError, ValueError) as error:
            if not self._refused:
                log.warning("cannot have lines held in journal %s until they are read: %s", self._key, error)
            self._refused = True
            return
        assert self._position is not None
        self._cursor.move(self._position, self._line)

    def lag_lines(self) -> int:
        """Lines in the journal that are not stored yet."""
        return 0 if self._reader is None else max(0, self._reader.end_line() - self._line)

    def close(self, removed: bool = False) -> None:
        """Close the journal; ``removed`` says that what is unread will not be read."""
        if self._reader is None:
            return
        if removed and (unread := self.lag_lines()):
            self.counters.lose("removed", unread, 0)
        if self._cursor is not None:
            if removed:
                self._cursor.remove()
            else:
                self._cursor.close()
            self._cursor = None
        self._reader.close()
        self._reader = None


def _runs(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Cut into runs of small entries, and large ones by themselves; no line is missing within a run."""
    start = 0
    for place, entry in enumerate(entries):
        large = entry.block.lines >= _SMALL
        if start < place and (large or entry.first_line > _end_line(entries[place - 1])):
            yield entries[start:place]
            start = place
        if large:
            yield entries[place : place + 1]
            start = place + 1
    if start < len(entries):
        yield entries[start:]


def _end_line(entry: Entry) -> int:
    return entry.first_line + entry.block.lines


def _merge(blocks: Sequence[Block]) -> Block:
    return Block(
        b"".join(_ENCODER.encode(block) for block in blocks),
        Encoding.JSON_FILE,
        blocks[0].stream if len({block.stream for block in blocks}) == 1 else Stream.MIXED,
        min(block.first_ns for block in blocks),
        max(block.last_ns for block in blocks),
        sum(block.lines for block in blocks),
    )
