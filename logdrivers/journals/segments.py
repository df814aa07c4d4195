"""The journal of every driver that has no file format of its own: framed, checksummed, compressed segments.

``<directory>/journal/NNNNNNNN.seg``; a block is one frame and one write, however small, so a line waits for
nothing. Before a segment begins, ``retention.py`` removes whole oldest ones: until then every line is held
for whoever has not read it. The bytes are ``segment_format.py``, reading is ``segment_reader.py``.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import zstandard

from logdrivers.block import Block
from logdrivers.driver import OptionError
from logdrivers.journal import Mark, Position, Resume
from logdrivers.journals.files import journal_directory, segment_numbers, segment_path, write_limits
from logdrivers.journals.retention import trim
from logdrivers.journals.segment_format import HEADER_SIZE, SegmentHeader, encode_frame, frames
from logdrivers.journals.segment_reader import SegmentReader
from logdrivers.options import parse_bytes_binary

__all__ = [
    "DEFAULT_BUDGET",
    "DEFAULT_KEEP",
    "SEGMENT_OPTIONS",
    "SegmentJournal",
    "SegmentReader",
    "parse_budget",
    "parse_keep",
]

_log = logging.getLogger(__name__)

#: Log options of this journal, beside the driver's own.
SEGMENT_OPTIONS = frozenset({"journal-max-size", "journal-keep-size"})
DEFAULT_BUDGET = 256 << 20  #: bytes on disk per container, of lines that some reader has not read
DEFAULT_KEEP = 20 << 20  #: bytes on disk per container, of lines that every reader has read
_SMALLEST_BUDGET = 256 << 10
_LARGEST_SEGMENT = 4 << 20
_SEGMENTS_PER_BUDGET = 8
_LEVEL = 1


def parse_budget(options: Mapping[str, str]) -> int:
    """``journal-max-size`` in bytes (``1m`` is 1,048,576). Raises OptionError naming what was expected."""
    return _parse_size(options, "journal-max-size", DEFAULT_BUDGET)


def parse_keep(options: Mapping[str, str]) -> int:
    """``journal-keep-size`` in bytes, not above ``journal-max-size``. Raises OptionError."""
    return min(_parse_size(options, "journal-keep-size", DEFAULT_KEEP), parse_budget(options))


def _parse_size(options: Mapping[str, str], name: str, default: int) -> int:
    text = options.get(name)
    if text is None:
        return default
    size = parse_bytes_binary(text)
    if size < _SMALLEST_BUDGET:
        raise OptionError(f"{name} must be at least {_SMALLEST_BUDGET >> 10}k: {text}")
    return size


class SegmentJournal:
    """The journal in ``directory`` (the container's log directory). One owner, not thread-safe."""

    def __init__(self, directory: Path, budget: int = DEFAULT_BUDGET, keep: int = DEFAULT_KEEP) -> None:
        self._directory = journal_directory(directory)
        self._directory.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._budget, self._keep = budget, min(keep, budget)
        self._segment_bytes = min(_LARGEST_SEGMENT, max(self._keep // _SEGMENTS_PER_BUDGET, HEADER_SIZE))
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)
        self._descriptor = -1
        self._torn = 0
        self._header = SegmentHeader(0, 0, 0, 0, Mark(0, 0))  # as one would begin now, but for its number
        self._size = 0
        for left in self._directory.iterdir():  # glob would make a regular expression in every shim
            if left.suffix == ".new":
                left.unlink()
        self._recover()
        try:
            write_limits(self._directory, self._keep, budget)
        except OSError as error:  # the disk is full: this writer keeps to them all the same
            _log.warning("write down the limits of %s: %s", self._directory, error)

    # --- Journal

    def resume(self) -> Resume:
        """Where the writer before got to; a frame is in or not, so there are no single records."""
        return Resume(self._header.mark, 0, self._torn)

    def append(self, block: Block, mark: Mark) -> Position:
        """Write one block as a frame. Raises OSError with nothing of it kept."""
        if self._size >= self._segment_bytes:
            self._begin(self._header.number + 1)
        now = self._header
        frame = encode_frame(block, mark, now.first_line, now.bytes_before, now.high_ns, self._compressor)
        self._write(frame)
        source = len(block.data) + (block.partial is not None and block.partial.last)
        lines = 1 if block.partial else block.lines
        self._header = SegmentHeader(
            now.number,
            now.first_line + lines,
            now.bytes_before + source,
            max(now.high_ns, block.last_ns),
            mark,
        )
        return Position(now.number, self._size)

    def give_up(self, mark: Mark) -> None:
        """The source up to ``mark`` will not be appended (the caller counts what that loses)."""
        self._header = self._header._replace(mark=mark)
        self._begin(self._header.number + 1)  # whose header keeps the mark

    def written(self) -> tuple[int, int]:
        """Lines (pieces of long ones each count) and bytes, as the container wrote them, since it was made."""
        return self._header.first_line, self._header.bytes_before

    def end(self) -> Position:
        """The position behind the last frame."""
        return Position(self._header.number, self._size)

    def close(self) -> None:
        """Close the file. What was appended stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    # --- files

    def _write(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:] if written else data)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += written

    def _begin(self, number: int) -> None:
        """Begin a segment, which appears complete with its header, and make room for it."""
        trim(self._directory, self._keep, self._budget, self._segment_bytes)
        path = segment_path(self._directory, number)
        new = path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o640)
        header = self._header._replace(number=number)
        try:
            if os.write(descriptor, header.pack()) != HEADER_SIZE:
                raise OSError(28, "could not write the whole header of a segment", str(new))
            new.replace(path)
        except OSError:
            os.close(descriptor)
            raise
        self.close()
        self._descriptor, self._header, self._size = descriptor, header, HEADER_SIZE

    def _recover(self) -> None:
        """Find where the journal stands, from the last segment that has a header; cut what is torn."""
        for number in reversed(segment_numbers(self._directory)):
            path = segment_path(self._directory, number)
            data = path.read_bytes()
            header = SegmentHeader.parse(data)
            if header is None or header.number != number:
                _log.warning("journal segment %s has no valid header: removed, %d bytes", path, len(data))
                self._torn += len(data)
                path.unlink()
                continue
            self._header, self._size = header, HEADER_SIZE
            last = next(iter(deque(frames(data, HEADER_SIZE, sealed=True), maxlen=1)), None)
            if last is not None:
                self._size = last.end
                self._header = SegmentHeader(
                    number,
                    last.end_line,
                    last.bytes_before + last.source_bytes,
                    max(last.high_ns, last.last_ns),
                    last.mark,
                )
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            if len(data) > self._size:
                self._torn += len(data) - self._size
                _log.warning("journal segment %s: cut %d bytes of a torn frame off", path, self._torn)
                os.ftruncate(self._descriptor, self._size)
            return
        self._begin(1)
