"""What every reader has read goes above one size, what some reader has not above another, and is counted."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.journal import Mark, Position
from logdrivers.journals import files as journal_files
from logdrivers.journals import retention
from logdrivers.journals.files import HOST_BUDGET, JOURNAL_FULL, Removal, lost_lines, note_removal, removals
from logdrivers.journals.reader_cursors import (
    COLLECTOR,
    DELIVERY,
    EXPIRY_NS,
    ReaderCursor,
    cursors,
    register_reader,
)
from logdrivers.journals.retention import journal_bytes, trim_host
from logdrivers.journals.segments import SegmentJournal, SegmentReader

MOST, KEEP = 1 << 20, 256 << 10
LINES = 20  # a block
SLACK = 8192  # the last block of a segment


def block(time_ns: int = 0) -> Block:
    """Lines that do not compress, 4 kB."""
    now = time_ns or time.time_ns()
    return Block(
        b"".join(os.urandom(100).hex().encode() + b"\n" for _ in range(LINES)),
        Encoding.LINES, Stream.STDOUT, now, now, LINES,
    )  # fmt: skip


class Writer:
    """A journal being written, with what it takes on disk."""

    def __init__(self, directory: Path, keep: int = KEEP) -> None:
        self.directory = directory / "journal"
        self.journal = SegmentJournal(directory, MOST, keep)
        self.reader = SegmentReader(directory)

    def write(self, size: int, time_ns: int = 0) -> None:
        """Append about so many bytes on disk."""
        until = self.journal.written()[1] + 2 * size  # hexadecimal digits compress to half
        while self.journal.written()[1] < until:
            self.journal.append(block(time_ns), Mark(self.journal.written()[0], 0))

    def size(self) -> int:
        return journal_bytes(self.directory)

    def first_line(self) -> int:
        return self.reader.read(self.reader.first(), 1).entries[0].first_line

    def lines(self) -> int:
        return self.journal.written()[0]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path)
    yield made
    made.reader.close()
    made.journal.close()


def test_without_readers_lines_are_kept_for_docker_logs_only(writer: Writer) -> None:
    writer.write(3 * KEEP)
    assert KEEP / 2 < writer.size() <= KEEP + SLACK


def test_lines_a_reader_has_not_read_are_kept_up_to_the_larger_size(writer: Writer) -> None:
    cursor = ReaderCursor(writer.directory, DELIVERY)
    writer.write(3 * KEEP)
    assert writer.first_line() == 0
    cursor.move(writer.journal.end(), writer.lines())
    writer.write(KEEP // 4)
    assert writer.size() <= KEEP + SLACK
    held_from = writer.first_line()
    assert held_from > 0
    cursor.close()


def test_the_slowest_reader_decides(writer: Writer) -> None:
    quick, slow = (ReaderCursor(writer.directory, name) for name in (DELIVERY, COLLECTOR))
    writer.write(2 * KEEP)
    quick.move(writer.journal.end(), writer.lines())
    slow.move(writer.reader.first(), 3 * LINES)
    writer.write(KEEP)
    assert writer.first_line() <= 3 * LINES
    slow.remove()
    quick.move(writer.journal.end(), writer.lines())
    writer.write(KEEP // 4)
    assert writer.size() <= KEEP + SLACK
    assert [cursor.name for cursor in cursors(writer.directory)] == [DELIVERY]
    quick.close()


def test_unread_lines_go_above_the_larger_size_and_say_why(writer: Writer) -> None:
    register_reader(writer.directory, DELIVERY)
    writer.write(2 * MOST)
    assert MOST - KEEP < writer.size() <= MOST + SLACK
    held_from = writer.first_line()
    assert writer.reader.losses(0, held_from + 7) == {JOURNAL_FULL: held_from, "damaged": 7}


def test_a_reader_that_is_gone_expires_but_the_delivery_does_not(writer: Writer) -> None:
    ReaderCursor(writer.directory, COLLECTOR).close()
    old = time.time_ns() - EXPIRY_NS - 10**9
    writer.write(2 * KEEP, old)
    writer.write(KEEP // 2)
    assert writer.first_line() == 0, "it registered a moment ago"
    with mock.patch("logdrivers.journals.reader_cursors.time.time_ns", return_value=old):
        cursor = ReaderCursor(writer.directory, COLLECTOR)
        cursor.move(Position(1, 1), 1)
    writer.write(KEEP // 4)
    assert writer.first_line() > 0
    with mock.patch("logdrivers.journals.reader_cursors.time.time_ns", return_value=old):
        ReaderCursor(writer.directory, DELIVERY).close()
    held_from = writer.first_line()
    writer.write(KEEP)
    assert writer.first_line() == held_from
    cursor.close()


def test_an_idle_reader_that_has_read_everything_does_not_expire(writer: Writer) -> None:
    old = time.time_ns() - EXPIRY_NS - 10**9
    writer.write(KEEP // 2, old)
    with mock.patch("logdrivers.journals.reader_cursors.time.time_ns", return_value=old):
        cursor = ReaderCursor(writer.directory, COLLECTOR)
        cursor.move(writer.journal.end(), writer.lines())
    read = writer.lines()
    writer.write(2 * KEEP)
    assert writer.first_line() <= read
    cursor.close()


def test_a_cursor_that_cannot_be_read_holds_everything(
    writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    (writer.directory / "readers").mkdir()
    (writer.directory / "readers" / "x.cursor").write_bytes(b"nonsense" * 40)
    writer.write(2 * KEEP)
    assert writer.first_line() == 0
    assert "cannot read how far a reader" in caplog.text


def test_an_empty_cursor_of_a_full_disk_holds_everything(writer: Writer) -> None:
    (writer.directory / "readers").mkdir()
    (writer.directory / "readers" / "x.cursor").touch()
    writer.write(2 * KEEP)
    assert writer.first_line() == 0


def test_a_host_limit_takes_what_was_read_before_it_takes_anything_unread(tmp_path: Path) -> None:
    read, unread = Writer(tmp_path / "a", MOST), Writer(tmp_path / "b", MOST)
    for one in (read, unread):
        register_reader(one.directory, DELIVERY)
        one.write(3 * KEEP)
    cursor = ReaderCursor(read.directory, DELIVERY)
    cursor.move(read.journal.end(), read.lines())
    total = read.size() + unread.size()
    journals = [read.directory, unread.directory]
    assert trim_host(journals, total).freed == 0

    done = trim_host(journals, 4 * KEEP)
    assert done.total == total
    assert done.unread == 0
    assert read.size() + unread.size() <= 4 * KEEP
    assert unread.first_line() == 0
    assert read.first_line() > 0

    done = trim_host(journals, KEEP)
    assert done.unread > 0
    assert read.size() + unread.size() <= KEEP
    held_from = unread.first_line()
    assert unread.reader.losses(0, held_from) == {HOST_BUDGET: held_from}
    for one in (read, unread):
        before = one.lines()
        one.write(1000)  # the writers go on, unharmed
        batch = one.reader.read(Position(1, 0))
        assert batch.entries[-1].first_line + LINES == one.lines() > before
        one.journal.close()
    cursor.close()


def test_logs_that_cannot_be_trimmed_count_but_cost_no_unread_line(writer: Writer) -> None:
    register_reader(writer.directory, DELIVERY)
    writer.write(3 * KEEP)
    done = trim_host([writer.directory], MOST, other_bytes=10 * MOST)
    assert done.total > 10 * MOST
    assert done.freed == 0
    cursor = ReaderCursor(writer.directory, DELIVERY)
    cursor.move(writer.journal.end(), writer.lines())
    assert trim_host([writer.directory], MOST, other_bytes=10 * MOST).freed > 0
    cursor.close()


def test_the_newest_segment_stays_and_a_journal_that_is_gone_is_no_error(
    writer: Writer, tmp_path: Path
) -> None:
    writer.write(KEEP // 2)
    trim_host([writer.directory, tmp_path / "gone"], 0)
    assert len(list(writer.directory.glob("*.seg"))) == 1
    again = SegmentJournal(tmp_path, MOST, KEEP)
    assert again.written() == writer.journal.written()
    again.close()


def test_two_processes_never_remove_at_once(writer: Writer) -> None:
    writer.write(KEEP // 2)
    with retention._removing(writer.directory) as first, retention._removing(writer.directory) as second:
        assert (first, second) == (True, False)
    with retention._removing(writer.directory) as again:
        assert again


def test_a_kill_between_the_note_and_the_removal_counts_once(writer: Writer) -> None:
    register_reader(writer.directory, DELIVERY)
    writer.write(3 * KEEP)
    note_removal(writer.directory, Removal(1, 0, HOST_BUDGET))  # and its segment is still there
    assert writer.reader.losses(0, 5) == {"damaged": 5}
    trim_host([writer.directory], 2 * KEEP)
    assert [one.number for one in removals(writer.directory)] == sorted(
        {one.number for one in removals(writer.directory)}
    )
    held_from = writer.first_line()
    assert lost_lines(writer.directory, 0, held_from) == {HOST_BUDGET: held_from}


def test_a_full_disk_does_not_keep_segments_from_going(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_reader(writer.directory, DELIVERY)
    writer.write(2 * KEEP)
    refused: list[int] = []

    def refuse_once(journal: Path, removal: Removal) -> None:
        if removal.number not in refused:
            refused.append(removal.number)
            raise OSError(errno.ENOSPC, "No space left on device")
        note_removal(journal, removal)

    monkeypatch.setattr(retention, "note_removal", refuse_once)
    trim_host([writer.directory], KEEP)
    assert [one.number for one in removals(writer.directory)] == refused
    assert writer.size() <= KEEP


def test_a_torn_record_is_cut_off_and_a_long_one_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in range(33):
        (tmp_path / "removed").write_bytes(bytes(size))
        note_removal(tmp_path, Removal(9, 90, HOST_BUDGET))
        assert removals(tmp_path)[-1] == Removal(9, 90, HOST_BUDGET)
        assert (tmp_path / "removed").stat().st_size == size // 16 * 16 + 16
    (tmp_path / "removed").unlink()
    monkeypatch.setattr(journal_files, "_MOST_RECORDS", 10)
    for number in range(1, 40):
        note_removal(tmp_path, Removal(number, number * 10, JOURNAL_FULL))
    assert 5 <= len(removals(tmp_path)) <= 12
    assert removals(tmp_path)[-1].number == 39
