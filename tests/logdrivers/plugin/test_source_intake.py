"""A Docker Engine's frames, put together again: long lines, messages, rate limits, and kills at any write."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest

from logdrivers.block import Partial, Stream
from logdrivers.driver import Info
from logdrivers.plugin.frames import encode
from logdrivers.plugin.source_intake import SourceFiles, SourceIntake
from logdrivers.registry import get
from logdrivers.source.options import parse_source
from logdrivers.source.rate_limit import SOURCE_STATE_NAME, Dropped, read_dropped
from logdrivers.statefile import StateFile
from tests.logdrivers.source.copier_case import record_texts

OUT, ERR = Stream.STDOUT, Stream.STDERR
PIECE = 16384
MARKER = re.compile(rb"taffrail: (\d+) lines \((\d+) bytes\) dropped: over rate-limit \d+ bytes/s\n")


def engine_frames(stream: Stream, text: bytes, number: int) -> bytes:
    """What a Docker Engine makes of a container's output: a frame a line, pieces of 16 KiB."""
    out = []
    for line in text.split(b"\n")[:-1]:
        ordinal = 0
        name = f"{number:064d}"
        while len(line) >= PIECE:
            ordinal += 1
            out.append(encode(stream, time.time_ns(), line[:PIECE], Partial(name, ordinal, False)))
            line = line[PIECE:]
        partial = Partial(name, ordinal + 1, True) if ordinal else None
        out.append(encode(stream, time.time_ns(), line, partial))
    return b"".join(out)


class Container:
    """A FIFO and what is made of it."""

    def __init__(self, directory: Path, driver: str, options: dict[str, str]) -> None:
        self.directory, self.driver = directory, get(driver)
        self.info = Info("c" * 64, "/c", "", "", (), 0, directory / "log", options)
        self.fifo = directory / "fifo"
        os.mkfifo(self.fifo)
        self.writer = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK)
        self.sent = {OUT: b"", ERR: b""}
        self.intake = self.open()

    def open(self) -> SourceIntake:
        intake = SourceIntake(
            "c",
            self.info.container_id,
            lambda: self.driver.journal(self.info),
            SourceFiles(self.directory / "c.spool", self.info.directory / SOURCE_STATE_NAME),
            self.directory / "state",
            parse_source(self.info.options),
        )
        intake.open(self.fifo)
        return intake

    def write(self, stream: Stream, text: bytes, number: int = 0) -> None:
        self.sent[stream] += text
        data = engine_frames(stream, text, number)
        assert REAL_WRITE(self.writer, data) == len(data)

    def texts(self, stream: Stream) -> list[bytes]:
        reader = self.driver.reader(self.info)
        assert reader is not None
        found = [
            text
            for of, text in record_texts(e.block for e in reader.read(reader.first(), 1 << 28).entries)
            if of is stream
        ]
        reader.close()
        return found

    def close(self) -> None:
        self.intake.close()
        os.close(self.writer)


REAL_WRITE = os.write


@pytest.fixture(params=["json-file", "gelf"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 32768, 300_000])
def test_pieces_are_one_line_again(tmp_path: Path, driver: str, size: int) -> None:
    container = Container(tmp_path, driver, {"max-line-size": "1m"})
    container.write(OUT, b"before\n" + b"x" * size + b"\nafter\n")
    assert container.intake.drain()
    assert [len(text) for text in container.texts(OUT)] == [7, size + 1, 6]
    container.close()


def test_messages_are_joined_and_the_last_waits_for_its_time(tmp_path: Path, driver: str) -> None:
    container = Container(tmp_path, driver, {"multiline": "java", "multiline-timeout": "1s"})
    container.write(OUT, b"x\ny\n\tat A.b\n")
    assert container.intake.round()
    assert container.texts(OUT) == [b"x\n"]
    due = container.intake.due
    assert due is not None
    while container.intake.due is not None:  # as the pump does
        container.intake.round()
    assert time.monotonic() >= due
    assert container.texts(OUT) == [b"x\n", b"y\n\tat A.b\n"]
    container.close()


def test_what_is_unfinished_ends_with_the_stream(tmp_path: Path, driver: str) -> None:
    container = Container(tmp_path, driver, {"multiline": "java", "multiline-timeout": "1m"})
    container.write(OUT, b"y\n\tat A.b\n")
    assert container.intake.drain()
    assert container.intake.end()
    assert container.texts(OUT) == [b"y\n\tat A.b\n"]
    assert container.intake.behind == 0
    container.close()


def test_over_the_rate_lines_are_dropped_and_counted(tmp_path: Path, driver: str) -> None:
    container = Container(tmp_path, driver, {"rate-limit": "1k"})
    for _ in range(10):
        container.write(ERR, b"z" * 1023 + b"\n" * 1)
        container.write(ERR, (b"z" * 1023 + b"\n") * 19)
        container.intake.round()
    assert container.intake.drain()
    assert container.intake.end()
    texts = container.texts(ERR)
    marker = MARKER.fullmatch(texts[-1])
    assert marker is not None
    assert len(texts) - 1 + int(marker[1]) == 200
    assert read_dropped(container.info.directory) == Dropped(int(marker[1]), int(marker[2]))
    container.close()


def test_an_engine_whose_container_is_to_wait_finds_the_fifo_unread(tmp_path: Path, driver: str) -> None:
    container = Container(tmp_path, driver, {"rate-limit": "1k", "rate-limit-policy": "wait"})
    for _ in range(4):
        container.write(OUT, (b"z" * 1023 + b"\n") * 40)
    while container.intake.round():
        pass
    assert container.intake.retry_seconds > 0
    assert len(container.texts(OUT)) < 100
    assert container.intake.drain()  # it has ended: nothing waits any more
    assert len(container.texts(OUT)) == 160
    container.close()


class Killed(BaseException):
    """Stands for SIGKILL: nobody handles it."""


@pytest.mark.parametrize(
    "options",
    [{"max-line-size": "64k"}, {"multiline": "java"}, {"rate-limit": "64k"}],
    ids=["long", "multiline", "rate"],
)
def test_a_kill_at_any_write_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, options: dict[str, str]
) -> None:
    chance = random.Random(f"{driver} {options}")
    left: list[int] = []

    def failing(real):  # type: ignore[no-untyped-def]
        def call(*arguments):  # type: ignore[no-untyped-def]
            if left and left[0] == 0:
                left.clear()
                if chance.random() < 0.5:
                    real(*arguments)
                raise Killed
            if left:
                left[0] -= 1
            return real(*arguments)

        return call

    container = Container(tmp_path, driver, options)
    kills = 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(os.write))
        patch.setattr(os, "pwrite", failing(os.pwrite))
        patch.setattr(StateFile, "write", failing(StateFile.write))
        for step in range(120):
            stream = chance.choice([OUT, ERR])
            start = chance.choice([b"", b"\tat ", b"Caused by: "])
            size = chance.choice([3, 90, 1000, 16384, 40_000, 70_000])
            container.write(stream, start + b"%d," % step + b"k" * size + b"\nnext\n", step)
            if chance.random() < 0.4:
                left[:] = [chance.randint(0, 12)]
            while True:
                try:
                    container.intake.round()
                    break
                except Killed:
                    kills += 1
                    container.intake.close()
                    container.intake = container.open()
            left.clear()
    assert kills > 10
    assert container.intake.drain()
    assert container.intake.end()
    lines = 0
    for stream in (OUT, ERR):
        here = 0
        for text in container.texts(stream):
            if marker := MARKER.fullmatch(text):
                lines, here = lines + int(marker[1]), here + int(marker[2])
            else:
                assert container.sent[stream].startswith(text, here)
                here += len(text)
        assert here == len(container.sent[stream])
    assert read_dropped(container.info.directory).lines == lines
    container.close()
