"""Reading a rotated log while it is written and rotated, from any process: nothing is skipped, nothing waits.

A place is a generation and an offset in it, so a rotation does not move it; the file being read stays open
until its end, whatever it is called or whether it still has a name. Lines and times are found through the
samples of the index (``logdrivers/journals/generations.py``) and one short read.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from pathlib import Path

from logdrivers.journal import Batch, Entry, Position
from logdrivers.journals.generation_files import GenerationFiles, chunks, whole_records
from logdrivers.journals.generations import Sample
from logdrivers.journals.records import RecordFormat

__all__ = ["RotatedReader"]


class RotatedReader:
    """A JournalReader over the log at ``path`` and its up to ``max_file - 1`` older files.

    Lines lost to rotation are counted exactly for a reader that follows, and to the nearest sample before
    (about a MiB of log) for a position from elsewhere whose generation is gone.
    """

    def __init__(self, path: Path, max_file: int, records: RecordFormat) -> None:
        self._records = records
        self._files = GenerationFiles(path, max_file, records)
        self._known = Position(0, 0), 0  # a position whose line number is known: where the last read ended
        self._last = Position(0, 0), 0  # the end when it was last asked for, and its line
        self._stamp: tuple[int, int, int] | None = None  # of the files then

    def first(self) -> Position:
        """The oldest position still held."""
        starts = self._files.refresh()
        held = self._files.held()
        for start in starts:
            if start.generation in held:
                return _place(start)
        return self.end()

    def end(self) -> Position:
        """The position behind the newest whole record."""
        starts = self._files.refresh()
        if not starts:
            return Position(1, 0)
        generation = starts[-1].generation
        place = max(_place(self._files.last_sample(generation)), self._known[0], self._last[0])
        source = self._files.open(generation)
        if source is None or place.segment != generation:
            return place
        offset = place.offset + sum(len(data) for data in chunks(self._records, source, place.offset))
        return Position(generation, offset)

    def end_line(self) -> int:
        """Lines written before ``end``, since the journal was made."""
        stamp = self._files.stamp()
        if stamp is None or stamp != self._stamp:
            end = self.end()
            self._last = end, self._line(end)
            self._stamp = stamp
        return self._last[1]

    def read(self, start: Position, max_bytes: int = 1 << 20) -> Batch:
        """Records from ``start`` on, in entries that each lie in one generation."""
        entries: list[Entry] = []
        lost = 0
        position = start
        for this in self._files.refresh():
            if this.generation < position.segment:
                continue
            position = max(position, _place(this))
            while max_bytes > 0 and (found := self._entries(position, max_bytes)):
                if not entries and start.segment < this.generation:
                    lost = max(0, found[0].first_line - self._line(start))
                entries += found
                max_bytes -= found[-1].end.offset - position.offset
                position = found[-1].end
                self._known = position, found[-1].first_line + found[-1].block.lines
            if max_bytes <= 0:
                break
        if entries:
            self._files.close_before(position.segment)
        return Batch(entries, lost)

    def locate(self, time_ns: int) -> Position:
        """The first record of this time or later, or the end. Right also where the clock stepped back."""
        if not self._files.refresh():
            return self.end()
        samples = self._files.samples
        # Everything before this sample is older: the next lower highest time says so.
        at = max(0, bisect_left(samples, time_ns, key=lambda sample: sample.high_ns) - 1)
        place = _place(samples[at])
        for start in self._files.refresh():
            if start.generation < place.segment:
                continue
            place = max(place, _place(start))
            source = self._files.open(start.generation)
            if source is None:
                continue
            for data in chunks(self._records, source, place.offset, self._files.limit(start.generation)):
                found = self._records.first_since(data, time_ns)
                if found is not None:
                    return Position(place.segment, place.offset + found)
                place = Position(place.segment, place.offset + len(data))
        return self.end()

    def tail(self, lines: int) -> Position:
        """The position with exactly so many lines behind it, or the first if there are not as many."""
        if lines <= 0:
            return self.end()
        first = self.first()
        wanted = self.end_line() - lines
        if wanted <= self._line(first):
            return first
        samples = self._files.samples
        sample = samples[bisect_right(samples, wanted, key=lambda sample: sample.line) - 1]
        source = self._files.open(sample.generation)
        if source is None:  # rotated away since
            return self.first()
        missing, offset = wanted - sample.line, sample.offset
        for data in chunks(self._records, source, offset, self._files.limit(sample.generation)):
            there = self._records.count(data)
            if there > missing:
                return Position(sample.generation, offset + self._records.behind(data, missing))
            missing -= there
            offset += len(data)
        return Position(sample.generation, offset)

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _entries(self, position: Position, max_bytes: int) -> list[Entry]:
        """What follows a position in its generation; nothing if the file is gone or read to its end."""
        source = self._files.open(position.segment)
        if source is None:
            return []
        limit = self._files.limit(position.segment)
        data = whole_records(self._records, source, position.offset, limit, max_bytes)
        if not data:
            return []
        line, offset = self._line(position), position.offset
        entries: list[Entry] = []
        for size, block in self._records.blocks(data):
            offset += size
            entries.append(Entry(block, Position(position.segment, offset), line))
            line += 1 if block.partial is not None else block.lines
        return entries

    def _line(self, position: Position) -> int:
        """The number of the line at a position; of the sample before it if its file is gone."""
        if self._known[0] == position:
            return self._known[1]
        samples = self._files.samples
        at = bisect_right(samples, position, key=_place) - 1
        if at < 0:
            return samples[0].line if samples else 0
        sample = samples[at]
        line, offset = sample.line, sample.offset
        if self._last[0].segment == sample.generation and offset <= self._last[0].offset <= position.offset:
            offset, line = self._last[0].offset, self._last[1]
        if position.segment == sample.generation and position.offset > offset:
            source = self._files.open(position.segment)
            if source is not None:
                line += sum(map(self._records.count, chunks(self._records, source, offset, position.offset)))
        return line


def _place(sample: Sample) -> Position:
    return Position(sample.generation, sample.offset)
