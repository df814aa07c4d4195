"""What every journal and its reader promise, whatever their form: the cases of Docker's reader suite and ours.

A form is a way to open a writer and a reader; a new one is a row in ``FORMS``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from journal_forms import FORMS, MINUTE, NS, SECOND, Form, Line, Log, lines_of, read_from

from logdrivers.block import Stream
from logdrivers.journal import Mark


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


@pytest.fixture
def log(form: Form, tmp_path: Path) -> Iterator[Log]:
    log = Log(form, tmp_path / "log")
    yield log
    log.close()


@pytest.fixture
def mixed(log: Log) -> Log:
    """Both streams, a long line in pieces with another stream between, and a clock that steps back 90 minutes."""
    log.write("one", "two")
    log.write("err one", time_ns=NS + SECOND, stream=Stream.STDERR)
    log.write_piece("first piece", 1, False, NS + 2 * SECOND)
    log.write("err two", "err three", time_ns=NS + 2 * SECOND, stream=Stream.STDERR)
    log.write_piece("", 2, True, NS + 2 * SECOND)
    log.write("", 'quo"te\\', "é\u2028", time_ns=NS + 3 * SECOND)
    log.write("later", time_ns=NS + 90 * MINUTE)
    log.write("stepped back", time_ns=NS + 4 * SECOND)
    log.write("last", time_ns=NS + 91 * MINUTE)
    return log


@pytest.fixture(params=["live", "stopped"])
def state(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("max_bytes", [1, 100, 1 << 20])
def test_all_lines_come_in_order_with_time_and_stream(mixed: Log, state: str, max_bytes: int) -> None:
    if state == "stopped":
        mixed.journal.close()
    reader = mixed.reader()
    assert read_from(reader, reader.first(), max_bytes) == mixed.lines
    assert reader.end_line() == len(mixed.lines)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 12, 13, 42])
def test_tail(mixed: Log, state: str, count: int) -> None:
    if state == "stopped":
        mixed.journal.close()
    reader = mixed.reader()
    found = read_from(reader, reader.tail(count))
    expected = mixed.lines[-count:] if count else []
    if mixed.form.exact_tail:
        assert found == expected
    else:
        assert found[len(found) - len(expected) :] == expected
        assert len(found) <= len(expected) + 2  # the rest of a block
    if not count:
        assert found == []


@pytest.mark.parametrize("seconds", [-1, 0, 1, 2, 3, 4, 5, 89 * 60, 90 * 60, 91 * 60])
def test_since_finds_every_line_of_the_time_or_later(mixed: Log, seconds: int) -> None:
    since = NS + seconds * SECOND
    reader = mixed.reader()
    found = read_from(reader, reader.locate(since))
    assert [line for line in found if line.time_ns >= since] == [
        line for line in mixed.lines if line.time_ns >= since
    ]
    # It begins there, not at the start of all.
    assert found[0].time_ns >= since or not mixed.form.exact_tail


def test_since_a_time_to_come_is_the_end(mixed: Log) -> None:
    reader = mixed.reader()
    assert read_from(reader, reader.locate(NS + 92 * MINUTE)) == []


def test_an_empty_journal(log: Log) -> None:
    reader = log.reader()
    assert reader.end_line() == 0
    for position in (reader.end(), reader.tail(5), reader.locate(NS), reader.first()):
        assert not reader.read(position).entries


def test_a_reader_may_come_before_the_journal(form: Form, tmp_path: Path) -> None:
    reader = form.reader(tmp_path / "log")
    position = reader.first()
    assert not reader.read(position).entries
    assert reader.end_line() == 0
    log = Log(form, tmp_path / "log")
    log.write("a")
    assert read_from(reader, position) == log.lines
    reader.close()
    log.close()


@pytest.mark.parametrize("tail", [None, 0, 1, 42])
def test_follow_from_empty(log: Log, tail: int | None) -> None:
    reader = log.reader()
    position = reader.first() if tail is None else reader.tail(tail)
    found: list[Line] = []
    for number in range(20):
        log.write(f"line {number}", time_ns=NS + number)
        for entry in reader.read(position).entries:
            found += lines_of(entry.block)
            position = entry.end
    assert found == log.lines


def test_follow_from_the_middle(mixed: Log) -> None:
    reader = mixed.reader()
    position = reader.end()
    before = len(mixed.lines)
    mixed.write("new", time_ns=NS + 92 * MINUTE)
    assert read_from(reader, position) == mixed.lines[before:]


def test_follow_through_many_starts(form: Form, tmp_path: Path) -> None:
    reader = form.reader(tmp_path)
    position = reader.first()
    found: list[Line] = []
    written: list[Line] = []
    for start in range(5):
        log = Log(form, tmp_path)
        assert log.journal.resume().mark == Mark(10 if start else 0, 0)
        for number in range(10):
            log.write(f"start {start} line {number}", time_ns=NS + number)
        written += log.lines
        if start % 2:
            log.close()
        for entry in reader.read(position).entries:
            found += lines_of(entry.block)
            position = entry.end
        log.close()
    assert found == written
    reader.close()


def test_positions_outlive_readers_and_writers(log: Log) -> None:
    positions = []
    for number in range(30):
        positions.append(log.journal.end())
        log.write(f"line {number}", time_ns=NS + number)
    log.journal.close()
    for number, position in enumerate(positions):
        reader = log.form.reader(log.directory)
        assert read_from(reader, position) == log.lines[number:]
        assert reader.read(position).entries[0].first_line == number
        reader.close()


def test_followers_in_other_threads_miss_nothing(log: Log) -> None:
    count = 180
    results: dict[int, list[Line]] = {}
    errors: list[BaseException] = []

    def follow(number: int) -> None:
        reader = log.form.reader(log.directory)
        position = reader.first()
        found: list[Line] = []
        try:
            while len(found) < count:
                batch = reader.read(position, 200)
                assert batch.lost_lines == 0
                for entry in batch.entries:
                    found += lines_of(entry.block)
                    position = entry.end
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            reader.close()
            results[number] = found

    threads = [threading.Thread(target=follow, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    for number in range(count):
        log.write(f"line {number}", time_ns=NS + number)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not errors
    assert list(results.values()) == [log.lines] * 3


def test_written_counts_lines_and_source_bytes(mixed: Log) -> None:
    size = sum(len(line.text.encode()) for line in mixed.lines)
    assert mixed.journal.written() == (len(mixed.lines), size)
    mixed.journal.close()
    mixed.journal = mixed.form.journal(mixed.directory)
    assert mixed.journal.written() == (len(mixed.lines), size)
    assert mixed.journal.end() == mixed.reader().end()


def test_giving_up_moves_the_mark_alone(log: Log) -> None:
    log.write("a")
    log.journal.give_up(Mark(7, 3))
    assert log.journal.resume().mark == Mark(7, 3)
    log.journal.close()
    log.journal = log.form.journal(log.directory)
    assert (log.journal.resume().mark, log.journal.resume().records) == (Mark(7, 3), 0)
    log.write("b")
    reader = log.reader()
    assert read_from(reader, reader.first()) == log.lines
