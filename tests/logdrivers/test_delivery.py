"""Everything written is delivered, held or counted as dropped, whatever the sink and the process do."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.delivery import STATE_NAME, Counters, Delivery, read_counters
from logdrivers.driver import Rejected, SinkDown
from logdrivers.journal import Batch, Entry, Mark, Position
from logdrivers.journals.reader_cursors import DELIVERY, ReaderCursor, cursors, register_reader
from logdrivers.journals.retention import trim_host
from logdrivers.journals.segments import SegmentJournal, SegmentReader
from logdrivers.statefile import StateFile


class MemoryJournal:
    """A journal in memory whose oldest entries can be removed, as retention does."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.removed = 0
        self.reads = 0

    def append(self, *lines: bytes) -> Entry:
        first = self.end_line()
        block = Block(b"".join(lines), Encoding.LINES, Stream.STDOUT, 1, 1, len(lines))
        entry = Entry(block, Position(1, len(self.entries) + 1), first)
        self.entries.append(entry)
        return entry

    def first(self) -> Position:
        return Position(1, self.removed)

    def end(self) -> Position:
        return Position(1, len(self.entries))

    def end_line(self) -> int:
        return self.entries[-1].first_line + self.entries[-1].block.lines if self.entries else 0

    def read(self, start: Position, max_bytes: int = 1 << 20) -> Batch:
        self.reads += 1
        return Batch(self.entries[max(start.offset, self.removed) :][:3], 0)

    def locate(self, time_ns: int) -> Position:
        raise NotImplementedError

    def tail(self, lines: int) -> Position:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Sink:
    """Keeps what it takes; fails or refuses as told, one instruction a call."""

    def __init__(self, *instructions: Exception | None) -> None:
        self.instructions = list(instructions)
        self.taken: list[bytes] = []
        self.news = threading.Condition()
        self.closed = threading.Event()

    def send(self, blocks: Sequence[Block]) -> None:
        outcome = self.instructions.pop(0) if self.instructions else None
        if isinstance(outcome, Exception) and not isinstance(outcome, Rejected):
            raise outcome
        with self.news:
            self.taken += [line for block in blocks for line in block.data.splitlines()]
            self.news.notify_all()
        if outcome is not None:
            raise outcome

    def wait(self, lines: int) -> None:
        with self.news:
            assert self.news.wait_for(lambda: len(self.taken) >= lines, 100), self.taken

    def close(self) -> None:
        self.closed.set()


def until(condition: Callable[[], bool], seconds: float = 100.0) -> bool:
    """Wait for a condition; whether it came."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def balanced(counters: Counters) -> bool:
    return counters.written == counters.delivered + counters.held + sum(counters.dropped.values())


def test_lines_offered_and_lines_read_arrive_once_and_in_order(tmp_path: Path) -> None:
    journal, sink = MemoryJournal(), Sink()
    journal.append(b"1\n", b"2\n")
    delivery = Delivery(journal, sink, tmp_path / "s", "t")
    delivery.start()
    for i in range(3, 300, 2):
        delivery.offer(journal.append(b"%d\n" % i, b"%d\n" % (i + 1)))
    sink.wait(300)
    delivery.stop(5)
    assert sink.taken == [b"%d" % i for i in range(1, 301)]
    assert delivery.counters() == Counters(300, 300)
    assert sink.closed.is_set()


def test_a_sink_that_keeps_up_costs_no_reading(tmp_path: Path) -> None:
    journal, sink = MemoryJournal(), Sink()
    delivery = Delivery(journal, sink, tmp_path / "s", "t")
    for i in range(50):
        delivery.offer(journal.append(b"%d\n" % i))
    delivery.start()
    sink.wait(50)
    assert journal.reads == 0
    delivery.stop()


def test_a_sink_that_is_down_gets_everything_when_it_is_back(tmp_path: Path) -> None:
    journal, sink = MemoryJournal(), Sink(SinkDown("refused"), RuntimeError("a fault of the sink"))
    for i in range(10):
        journal.append(b"%d\n" % i)
    delivery = Delivery(journal, sink, tmp_path / "s", "t")
    assert delivery.counters().held == 10
    delivery.start()
    sink.wait(10)
    delivery.stop(5)
    assert sink.taken == [b"%d" % i for i in range(10)]
    assert delivery.counters() == Counters(10, 10)


def test_what_the_sink_refuses_is_counted_by_cause(tmp_path: Path) -> None:
    journal, sink = MemoryJournal(), Sink(Rejected("too_large", 2))
    journal.append(b"1\n", b"2\n", b"3\n")
    delivery = Delivery(journal, sink, tmp_path / "s", "t")
    delivery.start()
    sink.wait(3)
    delivery.stop(5)
    assert delivery.counters() == Counters(3, 1, {"too_large": 2})
    assert balanced(delivery.counters())


def test_several_causes_of_one_batch_are_counted_each(tmp_path: Path) -> None:
    journal, sink = MemoryJournal(), Sink(Rejected("too_large", 1, {"empty_line": 2}))
    journal.append(b"1\n", b"\n", b"\n", b"4\n")
    delivery = Delivery(journal, sink, tmp_path / "s", "t")
    delivery.start()
    sink.wait(4)
    delivery.stop(5)
    assert delivery.counters() == Counters(4, 1, {"too_large": 1, "empty_line": 2})
    assert balanced(delivery.counters())


def test_what_retention_took_from_a_sink_that_was_down_is_counted(tmp_path: Path) -> None:
    journal, sink = MemoryJournal(), Sink()
    for i in range(10):
        journal.append(b"%d\n" % i)
    journal.removed = 4
    delivery = Delivery(journal, sink, tmp_path / "s", "t")
    delivery.start()
    sink.wait(6)
    delivery.stop(5)
    assert delivery.counters() == Counters(10, 6, {"journal_full": 4})
    assert sink.taken == [b"taffrail: 4 lines dropped here: journal_full", *(b"%d" % i for i in range(4, 10))]


def test_a_marker_that_the_sink_did_not_get_is_sent_once_by_the_next_process(tmp_path: Path) -> None:
    journal, down = MemoryJournal(), Sink(*[SinkDown("away")] * 1000)
    for i in range(10):
        journal.append(b"%d\n" % i)
    first = Delivery(journal, down, tmp_path / "s", "t")
    journal.removed = 3
    first.start()
    assert until(lambda: first.counters().dropped == {"journal_full": 3})
    first.stop()
    journal.removed = 5  # and two more, that the first had counted as held
    for instructions in ([None, SinkDown("away after the marker")], []):
        sink = Sink(*instructions)
        delivery = Delivery(journal, sink, tmp_path / "s", "t")
        delivery.start()
        sink.wait(5 if not instructions else 1)
        if instructions:
            assert until(lambda d=delivery: not d.counters().sink_up)
            assert sink.taken == [b"taffrail: 5 lines dropped here: journal_full"]
        delivery.stop()
    assert sink.taken == [b"%d" % i for i in range(5, 10)]
    assert delivery.counters() == Counters(10, 5, {"journal_full": 5})


def test_a_refused_marker_costs_no_line(tmp_path: Path) -> None:
    journal, sink = MemoryJournal(), Sink(Rejected("too_strange", 1))
    for i in range(3):
        journal.append(b"%d\n" % i)
    journal.removed = 1
    delivery = Delivery(journal, sink, tmp_path / "s", "t")
    delivery.start()
    sink.wait(3)
    delivery.stop(5)
    assert delivery.counters() == Counters(3, 2, {"journal_full": 1})


def test_lines_lost_behind_which_nothing_follows_are_not_held_for_ever(tmp_path: Path) -> None:
    journal, sink = MemoryJournal(), Sink()
    for i in range(4):
        journal.append(b"%d\n" % i)
    journal.removed = 4
    delivery = Delivery(journal, sink, tmp_path / "s", "t")
    delivery.start()
    sink.wait(1)
    assert delivery.caught_up()
    delivery.offer(journal.append(b"more\n"))
    sink.wait(2)
    delivery.stop(5)
    assert sink.taken == [b"taffrail: 4 lines dropped here: journal_full", b"more"]
    assert delivery.counters() == Counters(5, 1, {"journal_full": 4})


def test_what_a_segment_journal_lost_is_counted_by_cause_and_marked_in_its_place(tmp_path: Path) -> None:
    journal, journals = SegmentJournal(tmp_path, 1 << 20), tmp_path / "journal"
    cursor = ReaderCursor(journals, DELIVERY)

    def write(blocks: int) -> None:
        for _ in range(blocks):
            data = b"".join(os.urandom(100).hex().encode() + b"\n" for _ in range(20))
            journal.append(Block(data, Encoding.LINES, Stream.STDOUT, 1, 1, 20), Mark(0, 0))

    write(800)
    sink = Sink()
    delivery = Delivery(SegmentReader(tmp_path), sink, tmp_path / STATE_NAME, "t")
    own = SegmentReader(tmp_path).read(SegmentReader(tmp_path).first(), 1).entries[0].first_line
    trim_host([journals], 500_000)
    held_from = SegmentReader(tmp_path).read(SegmentReader(tmp_path).first(), 1).entries[0].first_line
    assert 0 < own < held_from
    damaged = journals / sorted(journals.glob("*.seg"))[-3]
    with damaged.open("r+b") as file:
        file.seek(30_000)
        file.write(b"\xff" * 10)
    delivery.start()
    delivery.wake()
    assert until(delivery.caught_up)
    delivery.stop(5)
    counters = delivery.counters()
    assert counters.dropped == {"journal_full": own, "host_budget": held_from - own, "damaged": 20}
    assert counters.written == 16000 == counters.delivered + sum(counters.dropped.values())
    marks = [line.decode() for line in sink.taken if line.startswith(b"taffrail")]
    assert marks == [
        f"taffrail: {own} lines dropped here: journal_full",
        f"taffrail: {held_from - own} lines dropped here: host_budget",
        "taffrail: 20 lines dropped here: damaged",
    ]
    assert len(sink.taken) == counters.delivered + 3
    (at,) = cursors(journals)
    assert (at.name, at.line, at.position) == (DELIVERY, 16000, journal.end())
    cursor.close()
    journal.close()


def test_a_damaged_state_file_is_put_aside_and_the_cursor_tells_the_place(tmp_path: Path) -> None:
    journal, sink = SegmentJournal(tmp_path), Sink()
    for number in range(10):
        line = b"%d\n" % number
        journal.append(Block(line, Encoding.LINES, Stream.STDOUT, 1, 1, 1), Mark(0, 0))
        if number in (5, 9):
            delivery = Delivery(SegmentReader(tmp_path), sink, tmp_path / STATE_NAME, "t")
            delivery.start()
            delivery.stop(5)
            (tmp_path / STATE_NAME).write_bytes(b"nonsense" * 100)
    assert sink.taken == [b"%d" % i for i in range(10)]
    assert delivery.counters() == Counters(10, 10)
    assert (tmp_path / f"{STATE_NAME}.damaged").exists()
    journal.close()


def test_a_state_file_of_the_version_before_is_gone_on_with(tmp_path: Path) -> None:
    journal, sink = SegmentJournal(tmp_path), Sink()
    for number in range(10):
        line = b"%d\n" % number
        end = journal.append(Block(line, Encoding.LINES, Stream.STDOUT, 1, 1, 1), Mark(0, 0))
        if number == 5:
            before = StateFile(tmp_path / STATE_NAME, "5QB119s" + "24sQ" * 8)
            before.write(*end, 6, 6, 4, True, b"", b"too_large", 2, *[b"", 0] * 7)
            before.close()
    assert read_counters(tmp_path / STATE_NAME) == Counters(6, 4, {"too_large": 2})
    delivery = Delivery(SegmentReader(tmp_path), sink, tmp_path / STATE_NAME, "t")
    delivery.start()
    delivery.stop(5)
    assert sink.taken == [b"%d" % i for i in range(6, 10)]
    assert delivery.counters() == Counters(10, 8, {"too_large": 2})
    (cursor,) = cursors(tmp_path / "journal")
    assert cursor.line == 10
    journal.close()


@pytest.mark.parametrize("damaged", [STATE_NAME, f"journal/readers/{DELIVERY}.cursor"])
def test_what_is_damaged_before_anything_was_sent_holds_no_line_back(tmp_path: Path, damaged: str) -> None:
    journal, sink = SegmentJournal(tmp_path), Sink()
    journal.append(Block(b"line\n", Encoding.LINES, Stream.STDOUT, 1, 1, 1), Mark(0, 0))
    register_reader(tmp_path / "journal", DELIVERY)
    (tmp_path / damaged).write_bytes(b"nonsense" * 100)
    delivery = Delivery(SegmentReader(tmp_path), sink, tmp_path / STATE_NAME, "t")
    delivery.start()
    delivery.stop(5)
    assert sink.taken == [b"line"]
    assert delivery.counters() == Counters(1, 1)
    journal.close()


def test_lines_that_a_power_cut_took_before_they_were_sent_are_not_held_for_ever(tmp_path: Path) -> None:
    journal, down = MemoryJournal(), Sink(*[SinkDown("away")] * 1000)
    first = Delivery(journal, down, tmp_path / "s", "t")
    first.start()
    for i in range(10):
        first.offer(journal.append(b"%d\n" % i))
    first.stop()
    del journal.entries[7:]
    sink = Sink()
    second = Delivery(journal, sink, tmp_path / "s", "t")
    second.start()
    sink.wait(7)
    second.stop(5)
    assert second.counters() == Counters(7, 7)


def test_a_journal_that_a_power_cut_shortened_goes_on_at_its_end(tmp_path: Path) -> None:
    journal, sink = MemoryJournal(), Sink()
    delivery = Delivery(journal, sink, tmp_path / "s", "t")
    delivery.start()
    for i in range(10):
        delivery.offer(journal.append(b"%d\n" % i))
    sink.wait(10)
    delivery.stop(5)
    del journal.entries[7:]
    again = Delivery(journal, sink, tmp_path / "s", "t")
    assert again.counters() == Counters(7, 7)
    again.start()
    again.offer(journal.append(b"after\n"))
    sink.wait(11)
    again.stop(5)
    assert sink.taken[10:] == [b"after"]
    assert again.counters() == Counters(8, 8)


def test_the_next_process_goes_on_where_the_last_one_was_killed(tmp_path: Path) -> None:
    journal, down = MemoryJournal(), Sink(*[SinkDown("away")] * 1000)
    first = Delivery(journal, down, tmp_path / "s", "t")
    first.start()
    for i in range(5):
        first.offer(journal.append(b"%d\n" % i))
    held = read_counters(tmp_path / "s")  # as another process sees it
    assert held is not None
    assert (held.written, held.held) == (5, 5)
    first.stop()
    sink = Sink()
    second = Delivery(journal, sink, tmp_path / "s", "t")
    second.start()
    sink.wait(5)
    second.stop(5)
    third = Delivery(journal, Sink(), tmp_path / "s", "t")
    assert third.counters() == Counters(5, 5)
    assert third.caught_up()


def test_stopping_ends_a_pause_after_a_failure(tmp_path: Path) -> None:
    journal, sink = MemoryJournal(), Sink(*[SinkDown("away")] * 1000)
    journal.append(b"1\n")
    delivery = Delivery(journal, sink, tmp_path / "s", "t")
    delivery.start()
    assert until(lambda: not delivery.counters().sink_up)
    delivery.stop(0.05)
    assert not any(thread.name == "delivery t" for thread in threading.enumerate())
    kept = read_counters(tmp_path / "s")
    assert kept is not None
    assert (kept.held, kept.sink_up, kept.last_error) == (1, False, "away")


def test_causes_beyond_the_records_room_are_counted_together(tmp_path: Path) -> None:
    journal, sink = MemoryJournal(), Sink(*[Rejected(f"cause{i}", 1) for i in range(20)])
    delivery = Delivery(journal, sink, tmp_path / "s", "t")
    delivery.start()
    for i in range(20):
        delivery.offer(journal.append(b"%d\n" % i))
        sink.wait(i + 1)
    delivery.stop(5)
    counters = delivery.counters()
    assert sum(counters.dropped.values()) == 20
    assert counters.dropped["other"] == 9
    assert balanced(counters)


def test_a_state_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"x" * 4096)
    with pytest.raises(ValueError, match="not a state file"):
        Delivery(MemoryJournal(), Sink(), tmp_path / "s", "t")
