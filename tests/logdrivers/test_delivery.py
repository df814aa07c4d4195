"""Everything written is delivered, held or counted as dropped, whatever the sink and the process do."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.delivery import Counters, Delivery, read_counters
from logdrivers.driver import Rejected, SinkDown
from logdrivers.journal import Batch, Entry, Position


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
            assert self.news.wait_for(lambda: len(self.taken) >= lines, 20), self.taken

    def close(self) -> None:
        self.closed.set()


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
    assert counters.dropped["other"] == 13
    assert balanced(counters)


def test_a_state_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"x" * 4096)
    with pytest.raises(ValueError, match="not a state file"):
        Delivery(MemoryJournal(), Sink(), tmp_path / "s", "t")
