"""The files of a segment journal: their names, and the record of which segments retention removed, and why.

Shared by the writer, by readers and by retention, each in any process. What is in a segment is
``logdrivers/journals/segment_format.py``; which segments go is ``logdrivers/journals/retention.py``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from logdrivers.journals.segment_format import HEADER_SIZE, SegmentHeader

__all__ = [
    "HOST_BUDGET",
    "JOURNAL_FULL",
    "REMOVED",
    "Removal",
    "journal_directory",
    "lost_lines",
    "note_removal",
    "read_header",
    "read_limits",
    "removals",
    "segment_numbers",
    "segment_path",
    "write_limits",
]

#: In the journal's directory: a record of each segment that retention removed, 16 bytes.
REMOVED = "removed"
#: Why unread lines went: the journal's own limit, or that of all journals of the host.
JOURNAL_FULL, HOST_BUDGET = "journal_full", "host_budget"
_CAUSES = (JOURNAL_FULL, HOST_BUDGET)
#: In the journal's directory: what retention has to keep to, for whoever trims it from outside.
_LIMITS = "limits"
_RECORD = 16
_NUMBER_BITS = 56
_MOST_RECORDS = 8192
_DAMAGED = "damaged"


def journal_directory(directory: Path) -> Path:
    """Where the segments of a container with this log directory are."""
    return directory / "journal"


def segment_path(journal: Path, number: int) -> Path:
    """The file of a segment."""
    return journal / f"{number:08d}.seg"


def segment_numbers(journal: Path) -> list[int]:
    """The segments there are, oldest first."""
    try:
        names = os.listdir(journal)  # noqa: PTH208 asked at every read: no Path for each name
    except FileNotFoundError:
        return []
    return sorted(int(name[:-4]) for name in names if name.endswith(".seg") and name[:-4].isdecimal())


def read_header(journal: Path, number: int) -> SegmentHeader | None:
    """A segment's header; None if it has none that is valid, or is gone."""
    try:
        with segment_path(journal, number).open("rb") as file:
            return SegmentHeader.parse(file.read(HEADER_SIZE))
    except FileNotFoundError:
        return None


def write_limits(journal: Path, keep_bytes: int, most_bytes: int) -> None:
    """Write down the limits the journal was opened with. Raises OSError."""
    path = journal / _LIMITS
    text = f"{keep_bytes} {most_bytes}\n"
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == text:
            return
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def read_limits(journal: Path) -> tuple[int, int] | None:
    """Bytes to keep of what was read, and of what was not; None if nobody wrote them down. Raises ValueError."""
    try:
        text = (journal / _LIMITS).read_text()
    except FileNotFoundError:
        return None
    fields = text.split()
    if len(fields) != 2 or not all(map(str.isdecimal, fields)):
        raise ValueError(f"{journal / _LIMITS}: expected two numbers of bytes, found {text[:80]!r}")
    return int(fields[0]), int(fields[1])


class Removal(NamedTuple):
    """A segment that is gone."""

    number: int
    first_line: int
    cause: str


def note_removal(journal: Path, removal: Removal) -> None:
    """Add to the record. Raises OSError (disk full) with nothing of it kept."""
    first = removal.number | _CAUSES.index(removal.cause) << _NUMBER_BITS
    packed = first.to_bytes(8, "little") + removal.first_line.to_bytes(8, "little")
    path = journal / REMOVED
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(descriptor).st_size
        whole = size - size % _RECORD
        if size != whole:
            os.ftruncate(descriptor, whole)  # a torn record, of a power cut
        if os.write(descriptor, packed) != _RECORD:
            os.ftruncate(descriptor, whole)
            raise OSError(28, "could not write a whole record", str(path))
    finally:
        os.close(descriptor)
    if whole > _MOST_RECORDS * _RECORD:
        _forget_oldest(path)


def _forget_oldest(path: Path) -> None:
    """Halve a long record: whoever has not looked for so many segments counts from the oldest known."""
    data = path.read_bytes()
    new = path.with_suffix(".new")
    new.write_bytes(data[len(data) // _RECORD // 2 * _RECORD :])
    new.replace(path)


def removals(journal: Path) -> list[Removal]:
    """The segments that are gone, oldest first."""
    try:
        data = (journal / REMOVED).read_bytes()
    except FileNotFoundError:
        return []
    found: dict[int, Removal] = {}
    for at in range(0, len(data) - _RECORD + 1, _RECORD):
        first = int.from_bytes(data[at : at + 8], "little")
        number, cause = first & (1 << _NUMBER_BITS) - 1, first >> _NUMBER_BITS
        name = _CAUSES[cause] if cause < len(_CAUSES) else JOURNAL_FULL
        line = int.from_bytes(data[at + 8 : at + _RECORD], "little")
        found[number] = Removal(number, line, name)  # noted twice if the first removal was killed
    return sorted(found.values())


def lost_lines(journal: Path, first_line: int, end_line: int) -> Mapping[str, int]:
    """Why the lines ``[first_line, end_line)`` are not in the journal: lines by cause, at least one cause."""
    numbers = segment_numbers(journal)
    header = read_header(journal, numbers[0]) if numbers else None
    held_from = header.first_line if header else end_line
    gone = [one for one in removals(journal) if one.first_line < held_from]
    # Each cause holds from its line to the next; what was removed before the record begins had to make room.
    starts = [(0, JOURNAL_FULL), *((one.first_line, one.cause) for one in gone), (held_from, _DAMAGED)]
    lost: dict[str, int] = {}
    for (start, cause), (stop, _) in zip(starts, [*starts[1:], (end_line, "")], strict=True):
        lines = min(stop, end_line) - max(start, first_line)
        if lines > 0:
            lost[cause] = lost.get(cause, 0) + lines
    return lost
