"""A FIFO into a journal: every frame once, through kills, refusals and ends in the middle of a frame."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logdrivers.block import Block, Stream
from logdrivers.codecs import json_file
from logdrivers.driver import Driver, Info
from logdrivers.journal import Journal, Mark, Position
from logdrivers.plugin.blocks import BlockMaker
from logdrivers.plugin.frames import encode
from logdrivers.plugin.intake import Intake
from logdrivers.registry import get

T = 1_795_203_851_793_123_456


class Container:
    """A FIFO, and what is made of it."""

    def __init__(self, directory: Path, driver: str) -> None:
        self.directory = directory
        self.driver: Driver = get(driver)
        self.info = Info("c" * 64, "/c", "", "", (), 0, directory / "log")
        self.fifo = directory / "fifo"
        os.mkfifo(self.fifo)
        self.writer = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK)
        self.sent = 0

    def write(self, count: int, cut: int = 0) -> None:
        """Write so many more lines, the last one short of ``cut`` bytes."""
        lines = range(self.sent, self.sent + count)
        data = b"".join(encode(Stream.STDOUT, T + n, b"line %d" % n) for n in lines)
        assert os.write(self.writer, data[: len(data) - cut]) == len(data) - cut
        self.sent += count

    def intake(self, open_journal: Callable[[], Journal] | None = None) -> Intake:
        def journal() -> Journal:
            return self.driver.journal(self.info)

        return Intake(
            "c", open_journal or journal, self.directory / "spool", self.directory / "state", BlockMaker()
        )

    def lines(self) -> list[bytes]:
        reader = self.driver.reader(self.info)
        assert reader is not None
        entries = reader.read(reader.first(), 1 << 24).entries
        reader.close()
        return [r.log.rstrip() for entry in entries for r in json_file.decode(entry.block.data)]


@pytest.fixture(params=["json-file", "gelf"])
def container(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Container]:
    made = Container(tmp_path, request.param)
    yield made
    os.close(made.writer)


def numbered(*counts: range) -> list[bytes]:
    return [b"line %d" % n for count in counts for n in count]


def test_lines_go_from_the_fifo_to_the_journal_and_a_piece_of_a_frame_waits(container: Container) -> None:
    intake = container.intake()
    intake.open(container.fifo)
    container.write(1000, cut=3)
    assert intake.drain()
    assert container.lines() == numbered(range(999))
    os.write(container.writer, b"999")
    assert intake.drain()
    assert container.lines() == numbered(range(1000))
    assert intake.behind == 0
    intake.close()


class Killed(BaseException):
    """Stands for SIGKILL: nobody handles it."""


class Fragile:
    """A journal around a real one that fails at one append, before or after it took the block."""

    def __init__(self, journal: Journal, failure: BaseException, after: bool, plan: list[int]) -> None:
        self._journal, self._failure, self._after, self._plan = journal, failure, after, plan

    def append(self, block: Block, mark: Mark) -> Position:
        self._plan[0] -= 1
        if self._plan[0]:
            return self._journal.append(block, mark)
        if self._after:
            self._journal.append(block, mark)
        raise self._failure

    def __getattr__(self, name: str) -> object:
        return getattr(self._journal, name)


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_around_an_append_neither_loses_nor_doubles(container: Container, after: bool) -> None:
    plan = [2]
    broken = container.intake(
        lambda: Fragile(container.driver.journal(container.info), Killed(), after, plan)
    )  # type: ignore[return-value]
    broken.open(container.fifo)
    container.write(100)
    broken.drain()
    container.write(100)
    with pytest.raises(Killed):
        broken.drain()
    container.write(100)
    intake = container.intake()
    intake.open(container.fifo)
    assert intake.drain()
    assert container.lines() == numbered(range(300))
    intake.close()


def test_a_kill_within_an_append_to_json_file_goes_on_behind_its_last_record(tmp_path: Path) -> None:
    container = Container(tmp_path, "json-file")
    intake = container.intake()
    intake.open(container.fifo)
    container.write(10)
    intake.drain()
    log = next((tmp_path / "log").glob("*-json.log"))
    state = next((tmp_path / "log").glob("*-json.state"))
    before = state.read_bytes()
    container.write(10)
    intake.drain()
    intake.close()
    for cut in range(0, 700, 53):  # as if the kill had come before the state was saved
        full = log.read_bytes()
        log.write_bytes(full[: len(full) - cut])
        state.write_bytes(before)
        again = container.intake()
        assert again.drain()
        assert container.lines() == numbered(range(20))
        again.close()
    os.close(container.writer)


def test_a_full_disk_holds_lines_back_until_there_is_room(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logdrivers.plugin.intake._RETRY_SECONDS", 0.0)
    refusal = OSError(errno.ENOSPC, "no space")
    plan = [1]
    intake = container.intake(lambda: Fragile(container.driver.journal(container.info), refusal, False, plan))  # type: ignore[return-value]
    intake.open(container.fifo)
    container.write(100)
    assert not intake.drain()
    assert intake.failures == 1
    assert intake.behind > 0
    assert intake.drain()
    assert container.lines() == numbered(range(100))
    intake.close()


def test_a_stream_that_ends_within_a_frame_is_counted_and_the_next_goes_on(container: Container) -> None:
    intake = container.intake()
    intake.open(container.fifo)
    container.write(11, cut=5)
    assert intake.drain()
    assert intake.end()
    torn = len(encode(Stream.STDOUT, T, b"line 10")) - 5
    assert intake.lost == (torn, 0)
    intake.open(container.fifo)
    container.write(10)
    assert intake.drain()
    assert container.lines() == numbered(range(10), range(11, 21))
    intake.close()
    assert container.intake().lost == (torn, 0)


def test_bytes_that_are_no_frames_are_counted(container: Container) -> None:
    intake = container.intake()
    intake.open(container.fifo)
    container.write(5)
    os.write(container.writer, bytes(40))
    assert intake.drain()
    assert intake.lost == (0, 40)
    container.write(5)
    assert intake.drain()
    assert container.lines() == numbered(range(10))
    intake.close()
