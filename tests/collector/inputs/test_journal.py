from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from collector.container import Container, LogSource
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.inputs.journal import JournalTail
from collector.inputs.tails import Tails
from collector.sink import Source
from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs.json_file import Encoder, decode
from logdrivers.journal import Mark
from logdrivers.journals.reader_cursors import COLLECTOR, cursors
from logdrivers.journals.segments import SegmentJournal, SegmentReader

SOURCE = Source("c" * 64, "web", "busybox", "host", "journal")
T0 = 1_795_203_812_000_000_000


def block(first: int, last: int, stream: Stream = Stream.STDOUT) -> Block:
    data = b"".join(b"line %d\n" % number for number in range(first, last))
    return Block(data, Encoding.LINES, stream, T0 + first, T0 + first, last - first)


def lines(intake) -> list[bytes]:
    return [
        line
        for _, stored in intake.blocks
        for line in (
            stored.data.split(b"\n")[:-1]
            if stored.encoding is Encoding.LINES
            else [r.log.rstrip(b"\n") for r in decode(stored.data)]
        )
    ]


def numbers(first: int, last: int) -> list[bytes]:
    return [b"line %d" % number for number in range(first, last)]


@pytest.fixture
def journal(tmp_path: Path):
    made = SegmentJournal(tmp_path, budget=1 << 20)
    made.resume()
    yield made
    made.close()


@pytest.fixture
def make(tmp_path, intake):
    def tail() -> JournalTail:
        return JournalTail(lambda: SegmentReader(tmp_path), "journal:c", SOURCE, intake, block_bytes=4096)

    return tail


def drain(tail: JournalTail) -> None:
    while tail.turn():
        pass


def test_large_blocks_as_they_are_and_small_ones_together(journal, make, intake):
    for part in (block(0, 1), block(1, 2, Stream.STDERR), block(2, 102), block(102, 103), block(103, 105)):
        journal.append(part, Mark(0, 0))
    drain(make())
    assert [(b.encoding, b.lines) for _, b in intake.blocks] == [
        (Encoding.JSON_FILE, 2),
        (Encoding.LINES, 100),
        (Encoding.JSON_FILE, 3),
    ]
    assert intake.blocks[1][1] == block(2, 102)
    merged = intake.blocks[0][1]
    assert merged.data == Encoder().encode(block(0, 1)) + Encoder().encode(block(1, 2, Stream.STDERR))
    assert (merged.stream, merged.first_ns, merged.last_ns) == (Stream.MIXED, T0, T0 + 1)
    assert lines(intake) == numbers(0, 105)


def test_a_single_piece_stays_what_it_is(journal, make, intake):
    piece = Block(b"x" * 100, Encoding.LINES, Stream.STDOUT, T0, T0, 1, Partial("ab" * 32, 1, False))
    journal.append(piece, Mark(0, 0))
    drain(make())
    assert intake.blocks == [(SOURCE, piece)]


def test_resumes_after_any_block(journal, make, intake):
    for number in range(40):
        journal.append(block(number, number + 1), Mark(0, 0))
        if number % 3 == 0:
            tail = make()
            tail.turn()
            tail.close()
    drain(make())
    assert lines(intake) == numbers(0, 40)


def test_a_store_that_fails_in_the_middle_of_a_batch(journal, make, intake):
    for part in (block(0, 50), block(50, 100), block(100, 150)):
        journal.append(part, Mark(0, 0))
    tail = make()
    intake.fail = 1
    with pytest.raises(OSError, match="No space"):
        tail.turn()
    drain(tail)
    assert lines(intake) == numbers(0, 150)


def test_lines_that_retention_removed_are_counted_exactly(tmp_path, intake, monkeypatch):
    journal = SegmentJournal(tmp_path, budget=256 << 10)
    journal.resume()
    tail = JournalTail(lambda: SegmentReader(tmp_path), "journal:c", SOURCE, intake)
    journal.append(block(0, 10), Mark(0, 0))
    tail.turn()
    tail.close()
    written = 10
    for _ in range(200):  # text that does not compress
        data = b"".join(
            b"%s\n" % bytes((i * 7 + written * 13 + j * j) % 94 + 33 for j in range(90)) for i in range(50)
        )
        journal.append(Block(data, Encoding.LINES, Stream.STDOUT, T0, T0, 50), Mark(0, 0))
        written += 50
    journal.close()
    tail = JournalTail(lambda: SegmentReader(tmp_path), "journal:c", SOURCE, intake)
    append = intake.append

    def append_once(*args: object) -> None:
        append(*args)
        intake.fail = 1  # the marker is in, what follows it is not

    with monkeypatch.context() as patch:
        patch.setattr(intake, "append", append_once)
        with pytest.raises(OSError, match="No space"):
            tail.turn()
    tail.close()
    intake.fail = 0
    tail = JournalTail(lambda: SegmentReader(tmp_path), "journal:c", SOURCE, intake)
    drain(tail)
    missing = written - 10 - tail.counters.lines
    assert missing > 0
    assert tail.lag_lines() == 0
    marks = [line for line in lines(intake) if line.startswith(b"taffrail: ")]
    assert marks == [b"taffrail: %d lines dropped here: journal_full" % missing]
    assert lines(intake)[10] == marks[0]
    assert intake.blocks[1][1].stream is Stream.STDERR


def test_a_gap_within_a_batch_is_counted_and_marked_in_its_place(journal, make, intake, tmp_path):
    ends = [journal.append(block(n, n + 5), Mark(0, 0)).offset for n in range(0, 20, 5)]
    with (tmp_path / "journal" / "00000001.seg").open("r+b") as file:
        file.seek(ends[1] + 30)
        file.write(b"\xff" * 8)
    tail = make()
    drain(tail)
    mark = b"taffrail: 5 lines dropped here: damaged"
    assert lines(intake) == [*numbers(0, 10), mark, *numbers(15, 20)]
    assert (tail.counters.lines, tail.counters.lost_lines) == (15, {"damaged": 5})


def test_a_journal_holds_lines_until_they_are_stored(journal, tmp_path, intake):
    tail = JournalTail(
        lambda: SegmentReader(tmp_path), "journal:c", SOURCE, intake, segments=tmp_path / "journal"
    )
    journal.append(block(0, 10), Mark(0, 0))
    drain(tail)
    (at,) = cursors(tmp_path / "journal")
    assert (at.name, at.position, at.line) == (COLLECTOR, journal.end(), 10)
    journal.append(block(10, 20), Mark(0, 0))
    intake.fail = 1
    with pytest.raises(OSError, match="No space"):
        tail.turn()
    assert cursors(tmp_path / "journal")[0].line == 10
    drain(tail)
    tail.close()
    assert cursors(tmp_path / "journal")[0].line == 20
    tail.turn()
    tail.close(removed=True)
    assert cursors(tmp_path / "journal") == []


def test_without_room_for_a_cursor_lines_are_read_all_the_same(
    journal, tmp_path, intake, caplog, monkeypatch
):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("collector.inputs.journal.ReaderCursor", refuse)
    tail = JournalTail(
        lambda: SegmentReader(tmp_path), "journal:c", SOURCE, intake, segments=tmp_path / "journal"
    )
    for number in range(0, 30, 10):
        journal.append(block(number, number + 10), Mark(0, 0))
        drain(tail)
    assert lines(intake) == numbers(0, 30)
    assert caplog.text.count("cannot have lines held") == 1


def test_a_journal_that_a_power_cut_shortened_goes_on_at_its_end(journal, make, intake, tmp_path):
    journal.append(block(0, 10), Mark(0, 0))
    held = journal.end()
    journal.append(block(10, 20), Mark(0, 0))
    tail = make()
    drain(tail)
    tail.close()
    journal.close()
    os.truncate(tmp_path / "journal" / "00000001.seg", held.offset)
    again = SegmentJournal(tmp_path)
    again.append(block(30, 37), Mark(0, 0))
    again.close()
    # Its end by lines is before what was stored: those lines are not asked for again, what follows is read.
    drain(make())
    os.truncate(tmp_path / "journal" / "00000001.seg", held.offset)
    drain(tail := make())
    again = SegmentJournal(tmp_path)
    again.append(block(40, 45), Mark(0, 0))
    again.close()
    drain(tail)
    assert lines(intake)[-5:] == numbers(40, 45)


def test_what_is_left_of_a_removed_journal_is_counted(journal, make):
    tail = make()
    journal.append(block(0, 10), Mark(0, 0))
    drain(tail)
    journal.append(block(10, 25), Mark(0, 0))
    tail.close(removed=True)
    assert tail.counters.lost_lines == {"removed": 15}


def test_checkpoint_that_is_none_is_refused(journal, make, intake, caplog):
    intake.checkpoints["journal:c"] = b"[]"
    journal.append(block(0, 10), Mark(0, 0))
    drain(make())
    assert lines(intake) == numbers(0, 10)
    assert "resuming journal" in caplog.text


def test_tails_read_the_journal_of_a_driver_without_files(tmp_path, intake):
    containers = Containers()
    log = LogSource("gelf", "", str(tmp_path), {"gelf-address": "udp://graylog:12201"})
    containers.update(Container("c" * 64, "web", engine="taffrail", log=log))
    tails = Tails(containers, intake, Sources(containers, "host"), ["127.0.0.1:12201"])
    thread = threading.Thread(target=tails.run_forever)
    thread.start()
    try:
        journal = SegmentJournal(tmp_path)  # made after the tail looked for it
        journal.resume()
        for number in range(50):
            journal.append(block(10 * number, 10 * number + 10), Mark(0, 0))
        deadline = time.monotonic() + 120
        while len(lines(intake)) < 500:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        journal.close()
    finally:
        tails.stop()
        thread.join()
    assert lines(intake) == numbers(0, 500)
    assert {source.input for source, _ in intake.blocks} == {"journal"}


def test_a_message_of_several_lines_is_one_record(journal, make, intake):
    trace = b"start\n  one\n  two\n"
    for part in (block(0, 100), Block(trace, Encoding.MESSAGE, Stream.STDERR, T0, T0, 1), block(100, 200)):
        journal.append(part, Mark(0, 0))
    tail = make()
    drain(tail)
    assert [(b.encoding, b.lines) for _, b in intake.blocks] == [
        (Encoding.LINES, 100),
        (Encoding.JSON_FILE, 1),
        (Encoding.LINES, 100),
    ]
    (record,) = decode(intake.blocks[1][1].data)
    assert (record.log, record.stream, record.time_ns) == (trace, Stream.STDERR, T0)
    assert tail.counters.lines == 201


def test_a_line_of_a_mebibyte_is_one(journal, make, intake):
    long = b"x" * ((1 << 20) - 1) + b"\n"
    journal.append(Block(long, Encoding.LINES, Stream.STDOUT, T0, T0, 1), Mark(0, 0))
    journal.append(block(0, 3), Mark(0, 0))
    drain(make())
    assert lines(intake) == [long[:-1], *numbers(0, 3)]
