"""``docker logs`` on the journal of every driver: what the engine streams for each option, as Docker's own suite asks.

Tail, since and until, alone and together, on logs that are live, stopped and empty; following from nothing,
from the middle, through starts, by many at once; pieces of long lines and a clock that steps back 90
minutes among the lines. What is expected is computed from the lines, one at a time, by Docker's rule.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from journal_forms import DRIVERS, MINUTE, SECOND, Form, Line, Log

from logdrivers.block import Stream
from logdrivers.journal import Batch, JournalReader, Position
from runtime.api.logs import log_directories, stream_logs
from runtime.container import Container
from runtime.log_changes import Following, LogChanges
from runtime.logview import LogView, Selection
from runtime.waiters import Waiters

#: In 2033: what comes later than now is not yet over for a follower.
T0 = 2_000_000_000 * SECOND
TIMES = [None, -1, 0, 20, 25, 40, 90 * 60, 200 * 60]
TAILS = [None, 0, 1, 2, 5, 8, 9, 42]


class Running:
    """As much of a container as reading its log needs: whether it runs, and who waits for its end."""

    def __init__(self, *, running: bool) -> None:
        self.handle = object() if running else None
        self._waiters: Waiters | None = None

    @property
    def waiters(self) -> Waiters:
        self._waiters = self._waiters or Waiters()
        return self._waiters

    def end(self) -> None:
        self.handle = None
        if self._waiters is not None:
            self._waiters.tell_exit(0)


def at(seconds: int | None) -> int:
    return 0 if seconds is None else T0 + seconds * SECOND


def expected(lines: list[Line], tail: int | None, since_ns: int, until_ns: int) -> bytes:
    """The last lines; of those, up to the first that is too late, those that are not too early."""
    chosen = lines if tail is None else lines[len(lines) - tail :] if 0 < tail < len(lines) else lines
    if tail == 0:
        chosen = []
    if until_ns:
        chosen = list(itertools.takewhile(lambda line: line.time_ns <= until_ns, chosen))
    return b"".join(line.text.encode() for line in chosen if line.time_ns >= since_ns)


class Watched:
    """A reader that tells whether it has been read from, which comes after finding where."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def read(self, start: Position, max_bytes: int = 1 << 20) -> Batch:
        self.reads += 1
        return self._reader.read(start, max_bytes)


def stream(
    reader: JournalReader | Watched,
    container: Running,
    tail: int | None,
    since_ns: int,
    until_ns: int,
    changes: Following | None = None,
) -> AsyncIterator[bytes]:
    follow = changes is not None
    selection = Selection(since_ns=since_ns, until_ns=until_ns, framed=False, frame_per_line=follow)
    view = LogView(selection)
    return stream_logs(
        cast(Container, container), cast(JournalReader, reader), view, selection, tail, changes
    )


def shown(log: Log, container: Running, tail: int | None, since_ns: int, until_ns: int) -> bytes:
    async def read() -> bytes:
        pieces = [data async for data in stream(log.reader(), container, tail, since_ns, until_ns)]
        return b"".join(pieces)

    return asyncio.run(read())


class Follower:
    """``docker logs -f`` as a task, and what it has shown."""

    def __init__(
        self, log: Log, container: Running, tail: int | None = None, since_ns: int = 0, until_ns: int = 0
    ) -> None:
        self.shown = b""
        self._reader = Watched(log.reader())
        self._first_reads = 2 if tail else 1  # finding the last so many lines reads once
        changes = LogChanges().follow(log_directories(log.directory))
        pieces = stream(self._reader, container, tail, since_ns, until_ns, changes)
        self.task = asyncio.create_task(self._read(pieces, changes))

    async def _read(self, pieces: AsyncIterator[bytes], changes: Following) -> None:
        with changes:
            async for data in pieces:
                self.shown += data

    async def shows(self, data: bytes) -> None:
        """Wait until it has shown this and no more."""
        async with asyncio.timeout(100):
            while self.shown != data:
                assert data.startswith(self.shown), (self.shown, data)
                assert not self.task.done(), (self.shown, data)
                await asyncio.sleep(0)

    async def begun(self) -> None:
        """Wait until it has found where to begin."""
        async with asyncio.timeout(100):
            while self._reader.reads < self._first_reads:
                await asyncio.sleep(0)

    async def ends(self) -> bytes:
        async with asyncio.timeout(100):
            await self.task
        return self.shown


def write_messages(log: Log) -> None:
    """Nine lines: both streams, a long line in pieces with stderr in between, a clock that steps back."""
    log.write("one", "two", time_ns=T0)
    log.write("oops", time_ns=T0 + 10 * SECOND, stream=Stream.STDERR)
    log.write_piece("a long", 1, False, T0 + 20 * SECOND)
    log.write("oops again", time_ns=T0 + 25 * SECOND, stream=Stream.STDERR)
    log.write_piece(" line", 2, True, T0 + 20 * SECOND)
    log.write("much later", time_ns=T0 + 90 * MINUTE)
    log.write("stepped back", time_ns=T0 + 30 * SECOND)
    log.write("last", time_ns=T0 + 40 * SECOND)


@pytest.fixture(params=DRIVERS)
def form(request: pytest.FixtureRequest) -> Form:
    return DRIVERS[request.param]


@pytest.fixture
def log(form: Form, tmp_path: Path) -> Iterator[Log]:
    log = Log(form, tmp_path / "log")
    yield log
    log.close()


@pytest.fixture
def container() -> Running:
    return Running(running=True)


@pytest.fixture(params=["live", "stopped"])
def messages(request: pytest.FixtureRequest, log: Log, container: Running) -> Log:
    write_messages(log)
    if request.param == "stopped":
        log.journal.close()
        container.end()
    return log


@pytest.mark.parametrize("tail", TAILS)
def test_tail_since_and_until_in_every_combination(
    messages: Log, container: Running, tail: int | None
) -> None:
    for since, until in itertools.product(TIMES, TIMES):
        found = shown(messages, container, tail, at(since), at(until))
        assert found == expected(messages.lines, tail, at(since), at(until)), (since, until)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("running", [True, False])
def test_nothing_is_shown_of_nothing(log: Log, tail: int | None, running: bool) -> None:
    for since, until in itertools.product([None, 0], [None, 0]):
        assert shown(log, Running(running=running), tail, at(since), at(until)) == b""


def test_following_what_has_ended_shows_it_and_ends(log: Log) -> None:
    write_messages(log)

    async def play() -> bytes:
        return await Follower(log, Running(running=False)).ends()

    assert asyncio.run(play()) == expected(log.lines, None, 0, 0)


@pytest.mark.parametrize("tail", [None, 0, 1, 42])
def test_follow_from_an_empty_log(log: Log, tail: int | None) -> None:
    async def play() -> None:
        container = Running(running=True)
        follower = Follower(log, container, tail)
        await follower.begun()
        write_messages(log)
        await follower.shows(expected(log.lines, None, 0, 0))
        container.end()
        await follower.ends()

    asyncio.run(play())


@pytest.mark.parametrize("tail", [None, 0, 1, 3, 42])
def test_follow_from_the_middle(log: Log, tail: int | None) -> None:
    async def play() -> None:
        container = Running(running=True)
        log.write("before", "and", "more", time_ns=T0)
        before = expected(log.lines, tail, 0, 0)
        follower = Follower(log, container, tail)
        await follower.begun()
        await follower.shows(before)
        for number in range(5):
            log.write(f"line {number}", time_ns=T0 + number)
            await follower.shows(before + expected(log.lines[3:], None, 0, 0))
        container.end()
        assert await follower.ends() == before + expected(log.lines[3:], None, 0, 0)

    asyncio.run(play())


@pytest.mark.parametrize("since", [-1, 0, 20, 26, 40, 90 * 60])
def test_follow_since(log: Log, since: int) -> None:
    async def play() -> None:
        container = Running(running=True)
        log.write("early", time_ns=T0 - SECOND)
        follower = Follower(log, container, None, at(since))
        await follower.begun()
        write_messages(log)
        await follower.shows(expected(log.lines, None, at(since), 0))
        container.end()
        await follower.ends()

    asyncio.run(play())


@pytest.mark.parametrize("until", [-1, 0, 19, 24, 26, 90 * 60 - 1])
@pytest.mark.parametrize("since", [None, 10])
def test_follow_ends_by_itself_at_the_first_line_behind_until(
    log: Log, since: int | None, until: int
) -> None:
    async def play() -> bytes:
        follower = Follower(log, Running(running=True), None, at(since), at(until))
        await follower.begun()
        write_messages(log)
        return await follower.ends()

    assert asyncio.run(play()) == expected(log.lines, None, at(since), at(until))


def test_follow_until_a_time_that_has_passed_ends_with_what_there_is(log: Log) -> None:
    past = 1_000_000_000 * SECOND
    log.write("then", time_ns=past - 5)

    async def play() -> bytes:
        return await Follower(log, Running(running=True), None, 0, past).ends()

    assert asyncio.run(play()) == b"then\n"


def test_follow_goes_on_through_restarts_that_keep_the_log(form: Form, tmp_path: Path) -> None:
    """A follower lives as long as the run it began in; the next begins where a tail of nothing is."""
    shown_in_all = b""
    written: list[Line] = []
    for start in range(5):
        log = Log(form, tmp_path / "log")

        async def play(log: Log = log, start: int = start) -> bytes:
            container = Running(running=True)
            follower = Follower(log, container, 0)
            await follower.begun()
            log.write(f"start {start}", time_ns=T0 + start)
            log.write(f"end {start}", time_ns=T0 + start)
            container.end()
            return await follower.ends()

        shown_in_all += asyncio.run(play())
        written += log.lines
        log.close()
    assert shown_in_all == expected(written, None, 0, 0)


def test_many_follow_at_once(log: Log) -> None:
    async def play() -> list[bytes]:
        container = Running(running=True)
        followers = [Follower(log, container) for _ in range(5)]
        for number in range(8):
            log.write(f"line {number}", time_ns=T0 + number)
            await asyncio.sleep(0)
            if number == 3:
                for follower in followers:
                    await follower.shows(expected(log.lines, None, 0, 0))
                followers += [Follower(log, container) for _ in range(5)]
        for follower in followers:
            await follower.shows(expected(log.lines, None, 0, 0))
        container.end()
        return [await follower.ends() for follower in followers]

    assert asyncio.run(play()) == [expected(log.lines, None, 0, 0)] * 10


def test_ten_files_of_a_byte_hold_ten_lines_and_a_tail_of_them(tmp_path: Path) -> None:
    for name in (name for name in DRIVERS if "-1b" in name):
        log = Log(DRIVERS[name], tmp_path / name)
        for number in range(35):
            log.write(f"line {number}", time_ns=T0 + number)
        container = Running(running=False)
        for tail in (None, 10, 42):
            assert shown(log, container, tail, 0, 0) == expected(log.lines[-10:], None, 0, 0), (name, tail)
        assert shown(log, container, 3, 0, 0) == expected(log.lines[-3:], None, 0, 0)
        log.close()
