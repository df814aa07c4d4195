"""Which segments of a journal go: its own two limits, and one limit for all journals of a host.

What every registered reader has read is kept up to one size, for ``docker logs``; what some reader has not, up
to another, and then it is lost and counted by its cause. Removing whole oldest segments is safe from any
process, beside a writer and readers and through kill -9: the newest segment never goes, what goes is noted first.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from logdrivers.journals.files import (
    HOST_BUDGET,
    JOURNAL_FULL,
    Removal,
    note_removal,
    read_header,
    segment_numbers,
    segment_path,
)
from logdrivers.journals.reader_cursors import DELIVERY, EXPIRY_NS, CursorAt, cursors

__all__ = ["Trimmed", "journal_bytes", "trim", "trim_host"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What one pass over the journals of a host did."""

    total: int = 0  #: bytes before it, files that cannot be trimmed included
    freed: int = 0
    unread: int = 0  #: bytes of the freed that some reader had not read


class _Segments:
    """One journal's segments as retention sees them."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._segments: list[tuple[int, int]] = []  # number, bytes; oldest first
        for number in segment_numbers(journal):
            with contextlib.suppress(FileNotFoundError):
                self._segments.append((number, segment_path(journal, number).stat().st_size))
        self.total = sum(size for _, size in self._segments)
        self._unread: int | None = None

    def removable(self) -> bool:
        """Whether there is an oldest segment beside the newest, and the newest is sound."""
        return len(self._segments) > 1 and read_header(self._journal, self._segments[-1][0]) is not None

    def oldest_is_read(self) -> bool:
        """Whether every registered reader is behind the oldest segment."""
        if self._unread is None:
            self._unread = self._unread_line()
        following = read_header(self._journal, self._segments[1][0])
        return following is not None and following.first_line <= self._unread

    def remove_oldest(self, cause: str) -> int:
        """Remove the oldest segment: its bytes."""
        number, size = self._segments.pop(0)
        self.total -= size
        path = segment_path(self._journal, number)
        header = read_header(self._journal, number)
        noted = header is None
        if header is not None:
            removal = Removal(number, header.first_line, cause)
            with contextlib.suppress(OSError):  # the disk is full: first there must be room
                note_removal(self._journal, removal)
                noted = True
        path.unlink(missing_ok=True)
        if header is not None and not noted:
            try:
                note_removal(self._journal, removal)
            except OSError as error:
                log.warning("note that %s was removed (%s): %s", path, cause, error)
        return size

    def _unread_line(self) -> int:
        """The first line that some reader has not read; beyond any line if there is no reader."""
        lines = [cursor.line for cursor in cursors(self._journal) if not self._expired(cursor)]
        return min(lines, default=1 << 63)

    def _expired(self, cursor: CursorAt) -> bool:
        before = time.time_ns() - EXPIRY_NS
        if cursor.name == DELIVERY or cursor.moved_ns > before:
            return False
        following = next((n for n, _ in self._segments if n > cursor.position.segment), None)
        header = read_header(self._journal, following) if following is not None else None
        return header is not None and header.high_ns < before


def trim(journal: Path, keep_bytes: int, most_bytes: int, room: int = 0) -> None:
    """Bring ``journal`` (a directory) within its limits, with ``room`` bytes to come.

    Segments that every registered reader has read go above ``keep_bytes``, others above ``most_bytes``. Does
    nothing while another process is removing segments of this journal. Raises OSError.
    """
    with _removing(journal) as allowed:
        if not allowed:
            return
        segments = _Segments(journal)
        limit = min(keep_bytes, most_bytes)
        while segments.total + room > limit and segments.removable():
            if limit < most_bytes and not segments.oldest_is_read():
                limit = most_bytes
                continue
            segments.remove_oldest(JOURNAL_FULL)


def trim_host(journals: Iterable[Path], most_bytes: int, other_bytes: int = 0) -> Trimmed:
    """Bring all ``journals`` (directories) together within ``most_bytes``, the largest giving first.

    What every reader has read goes while the journals and ``other_bytes`` (logs that cannot be trimmed) are
    over the limit; unread lines, counted as ``host_budget``, only while the journals by themselves are.
    A journal that cannot be read or trimmed is logged and left alone.
    """
    sizes = {journal: journal_bytes(journal) for journal in journals}
    total = sum(sizes.values())
    before = total + other_bytes
    if before <= most_bytes:
        return Trimmed(before)
    read = _take(sizes, before - most_bytes, unread=False)
    lost = 0
    if total - read > most_bytes:
        lost = _take(sizes, total - read - most_bytes, unread=True)
        log.error("the journals of this host took %d bytes, over %d: %d bytes of unread lines are dropped",
                  total, most_bytes, lost)  # fmt: skip
    return Trimmed(before, read + lost, lost)


def journal_bytes(journal: Path) -> int:
    """Bytes of the segments in a journal's directory; 0 if there is none."""
    total = 0
    try:
        with os.scandir(journal) as entries:
            for entry in entries:
                if entry.name.endswith(".seg"):
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return total


def _take(sizes: dict[Path, int], wanted: int, *, unread: bool) -> int:
    """Free ``wanted`` bytes as far as that goes, a segment of the largest journal at a time; bytes freed."""
    heap = [(-size, journal) for journal, size in sizes.items() if size]
    heapq.heapify(heap)
    freed = 0
    while heap and freed < wanted:
        _, journal = heapq.heappop(heap)
        try:
            gone = _take_one(journal, unread=unread)
        except OSError as error:
            log.warning("trim journal %s: %s", journal, error)
            continue
        if gone:
            freed += gone
            sizes[journal] -= gone
            heapq.heappush(heap, (-sizes[journal], journal))
    return freed


def _take_one(journal: Path, *, unread: bool) -> int:
    with _removing(journal) as allowed:
        if not allowed:
            return 0
        segments = _Segments(journal)
        if not segments.removable():
            return 0
        if segments.oldest_is_read():
            return segments.remove_oldest(JOURNAL_FULL)
        if not unread:
            return 0
        return segments.remove_oldest(HOST_BUDGET)


@contextlib.contextmanager
def _removing(journal: Path) -> Iterator[bool]:
    """Be the only one that removes segments of this journal; false if another process is."""
    try:
        descriptor = os.open(journal, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
