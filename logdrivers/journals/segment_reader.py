"""Reading a segment journal while it is written, from any process: frames are checked, what is missing is counted.

Segments are found by their numbers, so retention moves no place. Lines and times are found through the
segments' headers and a walk over one segment's frames.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path

import zstandard

from logdrivers.journal import Batch, Entry, Position
from logdrivers.journals.files import (
    journal_directory,
    lost_lines,
    read_header,
    removals,
    segment_numbers,
    segment_path,
)
from logdrivers.journals.segment_format import HEADER_SIZE, Frame, SegmentHeader, block_of, frames

__all__ = ["SegmentReader", "journal_directory", "segment_numbers", "segment_path"]

_CHUNK = 1 << 20


class SegmentReader:
    """A JournalReader over the segments of a container's log directory; there need not be any yet.

    Lines lost to retention are counted exactly for a reader that follows, and from the start of the segment
    it asked for when a position comes from elsewhere.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = journal_directory(directory)
        self._decompressor = zstandard.ZstdDecompressor()
        self._headers: dict[int, SegmentHeader] = {}
        self._open = -1, -1  # number and descriptor of the segment being read
        self._known = Position(0, 0), 0  # where the last read ended, and its line

    # --- JournalReader

    def first(self) -> Position:
        """The oldest position still held."""
        numbers = segment_numbers(self._directory)
        return Position(numbers[0] if numbers else 1, HEADER_SIZE)

    def end(self) -> Position:
        """The position behind the newest complete frame."""
        return self._end()[0]

    def end_line(self) -> int:
        """Lines written before ``end``, since the journal was made."""
        return self._end()[1]

    def read(self, start: Position, max_bytes: int = 1 << 20) -> Batch:
        """Entries from ``start`` on."""
        entries: list[Entry] = []
        position = start
        lost = 0
        expected = self._line_before(start)
        numbers = segment_numbers(self._directory)
        for number in numbers:
            if number < position.segment:
                continue
            position = max(position, Position(number, HEADER_SIZE))
            for frame, data, base in self._frames(position, sealed=number != numbers[-1]):
                if expected is None:
                    expected = self._removed_line(start, frame.first_line)
                lost += max(0, frame.first_line - expected)
                block = block_of(frame, data, self._decompressor)
                position = Position(number, base + frame.end)
                entries.append(Entry(block, position, frame.first_line))
                expected = frame.end_line
                max_bytes -= frame.raw_bytes
                if max_bytes <= 0:
                    break
            if max_bytes <= 0:
                break
        if entries and expected is not None:
            self._known = position, expected
        return Batch(entries, lost)

    def locate(self, time_ns: int) -> Position:
        """The first frame that can hold a line of this time or later, or the end."""
        numbers, headers = self._all_headers()
        # Everything before a segment whose header knows no such time is older.
        at = max(0, sum(1 for header in headers if header.high_ns < time_ns) - 1)
        for number in numbers[at:]:
            position = Position(number, HEADER_SIZE)
            for frame, _, base in self._frames(position, sealed=number != numbers[-1]):
                if frame.last_ns >= time_ns:
                    return Position(number, base + frame.start)
        return self.end()

    def tail(self, lines: int) -> Position:
        """The start of the last frame with at least so many lines from there on, or the first position."""
        end, end_line = self._end()
        if lines <= 0:
            return end
        numbers, headers = self._all_headers()
        wanted = end_line - lines
        at = bisect_right(headers, wanted, key=lambda header: header.first_line) - 1
        if at < 0:
            return self.first()
        best = Position(numbers[at], HEADER_SIZE)
        for frame, _, base in self._frames(best, sealed=numbers[at] != numbers[-1]):
            if frame.first_line > wanted:
                break
            best = Position(numbers[at], base + frame.start)
        return best

    def losses(self, first_line: int, end_line: int) -> Mapping[str, int]:
        """Why the lines ``[first_line, end_line)`` are not in the journal: their number by cause."""
        return lost_lines(self._directory, first_line, end_line)

    def close(self) -> None:
        """Close the file."""
        if self._open[1] >= 0:
            os.close(self._open[1])
        self._open = -1, -1

    # --- segments

    def _frames(self, position: Position, sealed: bool) -> Iterator[tuple[Frame, bytes, int]]:
        """Frames of one segment from a position on, each with the bytes it is in and their offset."""
        descriptor = self._descriptor(position.segment)
        if descriptor < 0:
            return
        base, size = position.offset, _CHUNK
        while data := os.pread(descriptor, size, base):
            whole = len(data) < size  # up to the end of the file
            done = 0
            for frame in frames(data, 0, sealed and whole):
                yield frame, data, base
                done = frame.end
            if whole:
                return
            # The next frame goes beyond these bytes, or the bytes are damaged: with more of them it shows.
            size = _CHUNK if done else size * 4
            base += done

    def _descriptor(self, number: int) -> int:
        if self._open[0] != number:
            try:
                path = segment_path(self._directory, number)
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return -1
            self.close()
            self._open = number, descriptor
        return self._open[1]

    def _header(self, number: int) -> SegmentHeader | None:
        header = self._headers.get(number)
        if header is None:
            header = read_header(self._directory, number)
            if header is not None:
                self._headers[number] = header
        return header

    def _all_headers(self) -> tuple[list[int], list[SegmentHeader]]:
        numbers: list[int] = []
        headers: list[SegmentHeader] = []
        for number in segment_numbers(self._directory):
            if (header := self._header(number)) is not None:
                numbers.append(number)
                headers.append(header)
        for gone in set(self._headers).difference(numbers):
            del self._headers[gone]
        return numbers, headers

    def _end(self) -> tuple[Position, int]:
        numbers = segment_numbers(self._directory)
        if not numbers:
            return self.first(), 0
        header = self._header(numbers[-1])
        position = Position(numbers[-1], HEADER_SIZE)
        line = header.first_line if header else 0
        if self._known[0] > position:
            position, line = self._known
        for frame, _, base in self._frames(position, sealed=False):
            position, line = Position(position.segment, base + frame.end), frame.end_line
        self._known = position, line
        return position, line

    # --- lines

    def _line_before(self, start: Position) -> int | None:
        """The line expected at a position; None if only its frame knows."""
        if start == self._known[0]:
            return self._known[1]
        if start.offset <= HEADER_SIZE and (header := self._header(start.segment)) is not None:
            return header.first_line
        return None

    def _removed_line(self, start: Position, found: int) -> int:
        """The line to count losses from, for a position nobody knows the line of."""
        if self._header(start.segment) is not None:
            return found  # its segment is there, and so is what follows the position
        gone = removals(self._directory)
        if not gone:
            return 0 if start.segment <= 1 else found
        return next((one.first_line for one in gone if one.number >= start.segment), found)
