"""Journals are brought within their own limits and the host's, whoever writes them, or nobody."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.journal import Mark
from logdrivers.journals.budget import JournalBudget, keep_budget, other_log_bytes
from logdrivers.journals.files import read_limits
from logdrivers.journals.reader_cursors import DELIVERY, ReaderCursor
from logdrivers.journals.retention import journal_bytes
from logdrivers.journals.segments import SegmentJournal, SegmentReader

MOST, KEEP = 1 << 20, 256 << 10


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def written(directory: Path, size: int) -> SegmentJournal:
    """A journal with about so many bytes that a delivery has not read."""
    directory.mkdir(exist_ok=True)
    journal = SegmentJournal(directory, MOST, KEEP)
    ReaderCursor(directory / "journal", DELIVERY).close()
    while journal_bytes(directory / "journal") < size:
        data = b"".join(os.urandom(100).hex().encode() + b"\n" for _ in range(20))
        journal.append(Block(data, Encoding.LINES, Stream.STDOUT, 1, 1, 20), Mark(0, 0))
    return journal


def test_a_journal_whose_sink_caught_up_is_brought_within_its_own_limit(tmp_path: Path) -> None:
    journal = written(tmp_path, 3 * KEEP)
    assert keep_budget([tmp_path], 1 << 30).freed == 0
    assert journal_bytes(tmp_path / "journal") >= 3 * KEEP
    cursor = ReaderCursor(tmp_path / "journal", DELIVERY)
    cursor.move(journal.end(), journal.written()[0])
    keep_budget([tmp_path], 1 << 30)
    assert journal_bytes(tmp_path / "journal") <= KEEP
    cursor.close()
    journal.close()


def test_the_largest_journal_gives_first_and_others_are_left_alone(tmp_path: Path) -> None:
    large, small = written(tmp_path / "large", 3 * KEEP), written(tmp_path / "small", KEEP)
    (tmp_path / "empty").mkdir()
    done = keep_budget([tmp_path / n for n in ("large", "small", "empty", "gone")], 3 * KEEP)
    assert done.unread == done.freed > 0
    assert journal_bytes(tmp_path / "small" / "journal") >= KEEP
    reader = SegmentReader(tmp_path / "large")
    first = reader.read(reader.first(), 1).entries[0].first_line
    assert reader.losses(0, first) == {"host_budget": first}
    reader.close()
    large.close()
    small.close()


def test_files_of_json_file_and_local_are_added_up(tmp_path: Path) -> None:
    names = ("c-json.log", "c-json.log.1", "c-json.log.2.gz", "local-logs/container.log.1", "config.json")
    (tmp_path / "local-logs").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(bytes(1000))
    assert other_log_bytes(tmp_path) == 4000
    assert keep_budget([tmp_path], 100).total == 4000
    assert {p.name for p in tmp_path.iterdir()} >= {"c-json.log", "c-json.log.1", "config.json"}
    assert other_log_bytes(tmp_path) == 4000


def test_limits_are_those_of_the_last_writer_and_nonsense_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = written(tmp_path, 2 * KEEP)
    journal.close()
    assert read_limits(tmp_path / "journal") == (KEEP, MOST)
    SegmentJournal(tmp_path, 2 * MOST, MOST).close()
    assert read_limits(tmp_path / "journal") == (MOST, 2 * MOST)
    (tmp_path / "journal" / "limits").write_text("much")
    before = journal_bytes(tmp_path / "journal")
    assert keep_budget([tmp_path], 1 << 30).freed == 0
    assert "expected two numbers of bytes, found 'much'" in caplog.text
    assert journal_bytes(tmp_path / "journal") == before


def test_a_writer_goes_on_while_its_journal_is_trimmed_all_the_time(tmp_path: Path) -> None:
    stop = threading.Event()

    def trim() -> None:
        while not stop.is_set():
            keep_budget([tmp_path], KEEP)

    journal = written(tmp_path, 1)
    trimmer = threading.Thread(target=trim)
    trimmer.start()
    try:
        reader = SegmentReader(tmp_path)
        position, line, lost, got = reader.first(), 0, 0, 0
        for number in range(1500):
            data = b"".join(os.urandom(100).hex().encode() + b"\n" for _ in range(20))
            journal.append(Block(data, Encoding.LINES, Stream.STDOUT, 1, 1, 20), Mark(number, 0))
            if number % 100 == 0 or number == 1499:
                while entries := reader.read(position).entries:
                    lost += entries[0].first_line - line
                    assert (
                        sum(reader.losses(line, entries[0].first_line).values())
                        == entries[0].first_line - line
                    )
                    got += sum(entry.block.lines for entry in entries)
                    position, line = entries[-1].end, entries[-1].first_line + 20
    finally:
        stop.set()
        trimmer.join()
    assert got + lost == journal.written()[0]
    journal.close()
    again = SegmentJournal(tmp_path, MOST, KEEP)
    assert (again.written(), again.resume().mark) == (journal.written(), Mark(1499, 0))
    again.close()
    reader.close()


def test_a_budget_is_kept_in_the_background_until_it_is_closed(tmp_path: Path) -> None:
    journal = written(tmp_path, 3 * KEEP)
    refusals = [OSError("not now")]

    def directories() -> list[Path]:
        if refusals:
            raise refusals.pop()
        return [tmp_path]

    budget = JournalBudget(directories, KEEP)
    budget._seconds = 0.01
    budget.start()
    until(lambda: journal_bytes(tmp_path / "journal") <= KEEP)
    budget.close()
    assert not any(thread.name == "journal budget" for thread in threading.enumerate())
    journal.close()
