"""Exactly once through a kill at any system call, on real journals, whatever happens at the source.

What came out, with every marker standing for the bytes it names, is what went in; the count of dropped lines is
the sum of the markers.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file
from logdrivers.driver import Info
from logdrivers.registry import get
from logdrivers.source import copier as copier_module
from logdrivers.source.copier import Copier
from logdrivers.source.ledger import Ledger
from logdrivers.source.options import parse_source
from logdrivers.source.rate_limit import SOURCE_STATE_NAME, DropCounter, Dropped, read_dropped
from logdrivers.source.spool import Spool
from logdrivers.statefile import StateFile

OUT, ERR = Stream.STDOUT, Stream.STDERR
MIB = 1 << 20
DRIVERS = ("json-file", "local", "fluentd")
MARKER = re.compile(rb"taffrail: (\d+) lines \((\d+) bytes\) dropped: over rate-limit \d+ bytes/s\n")


class Killed(BaseException):
    """Stands for kill -9 at this very point."""


class Kills:
    """After so many writes of any kind the next one is the last, and only a part of it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> None:
        self._chance = chance
        self.left: int | None = None
        write, pwrite, save = os.write, os.pwrite, StateFile.write

        def part_write(fd: int, data: bytes) -> int:
            if self._now():
                write(fd, bytes(data)[: chance.randint(0, len(data))])
                raise Killed
            return write(fd, data)

        def part_pwrite(fd: int, data: bytes, offset: int) -> int:
            if self._now():
                if chance.random() < 0.5:  # one small record in one page: it is in, or it is not
                    pwrite(fd, data, offset)
                raise Killed
            return pwrite(fd, data, offset)

        def part_save(state: StateFile, *values: object) -> None:
            if self._now():
                if chance.random() < 0.5:
                    save(state, *values)
                raise Killed
            save(state, *values)

        monkeypatch.setattr(os, "write", part_write)
        monkeypatch.setattr(os, "pwrite", part_pwrite)
        monkeypatch.setattr(StateFile, "write", part_save)

    def _now(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        if self.left < 0:
            self.left = None
            return True
        return False


class Case:
    """A container's files and the copier that has them."""

    def __init__(self, directory: Path, driver: str, options: dict[str, str]) -> None:
        self.info = Info("c" * 64, "/n", "", "", (), 0, directory / "log", options)
        self.directory = directory
        self.driver = get(driver)
        self.sent = {OUT: b"", ERR: b""}
        self.pipes: dict[Stream, tuple[int, int]] = {}
        self.copier = self._open()

    def _open(self) -> Copier:
        return Copier(
            self.info.container_id,
            lambda: self.driver.journal(self.info),
            lambda stream, base: Spool(self.directory / stream.text, base),
            Ledger(self.directory / "ledger"),
            parse_source(self.info.options),
            lambda: DropCounter(self.info.directory / SOURCE_STATE_NAME),
        )

    def successor(self) -> None:
        """The kernel closes a killed process's files; another opens them."""
        self.copier.close()
        while True:
            try:
                self.copier = self._open()
                return
            except Killed:
                continue

    def write(self, stream: Stream, data: bytes) -> None:
        """Through a real pipe into the spool."""
        self.sent[stream] += data
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
        while data:
            data = data[REAL_WRITE(write_fd, data) :]
            while self.copier.spools[stream].fill(read_fd, MIB):
                pass
        os.close(write_fd)
        os.close(read_fd)

    def blocks(self) -> Iterator[Block]:
        reader = self.driver.reader(self.info)
        assert reader is not None
        position = reader.first()
        while entries := reader.read(position).entries:
            yield from (entry.block for entry in entries)
            position = entries[-1].end
        reader.close()

    def texts(self, stream: Stream) -> list[bytes]:
        """What each record of a stream says."""
        return [text for of, text in self._texts() if of is stream]

    def _texts(self) -> Iterator[tuple[Stream, bytes]]:
        for block in self.blocks():
            if block.encoding is Encoding.JSON_FILE:
                yield from ((record.stream, record.log) for record in json_file.decode(block.data))
            elif block.partial is not None:
                yield block.stream, block.data + (b"\n" if block.partial.last else b"")
            elif block.encoding is Encoding.MESSAGE:
                yield block.stream, block.data
            else:
                yield from ((block.stream, line + b"\n") for line in block.data.split(b"\n")[:-1])

    def check(self) -> Dropped:
        """Everything is accounted for; what was dropped."""
        lines = size = records = 0
        for stream in (OUT, ERR):
            here = 0
            for text in self.texts(stream):
                records += 1
                if marker := MARKER.fullmatch(text):
                    lines += int(marker[1])
                    size += int(marker[2])
                    here += int(marker[2])
                else:
                    assert self.sent[stream].startswith(text, here), (stream, here, text[:80])
                    here += len(text)
            assert here == len(self.sent[stream])
        assert self.copier.journal.written()[0] == records
        dropped = read_dropped(self.info.directory)
        assert dropped == Dropped(lines, size)
        return dropped


REAL_WRITE = os.write


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic seconds the copier sees."""
    now = [1000.0]
    monkeypatch.setattr(copier_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def some_lines(chance: random.Random, number: int) -> bytes:
    out = []
    for _ in range(chance.randint(0, 6)):
        start = chance.choice([b"", b"", b" ", b"\tat ", b"Caused by: ", b"x"])
        size = chance.choice([0, 5, 90, 90, 1023, 1024, 2000, 16383, 16384, 16385, 40_000])
        out.append(start + (b"%d," % number) * (size // 4) + b"\n")
    return b"".join(out) + b"r" * chance.choice([0, 0, 9, 3000])


def some_bytes(chance: random.Random) -> bytes:
    alphabet = chance.choice([bytes(range(256)), b"\n \tab", b"\n\xff\r\x00"])
    return bytes(chance.choices(alphabet, k=chance.choice([1, 7, 300, 5000])))


OPTIONS = (
    {"max-line-size": "1k"},
    {"max-line-size": "32k", "multiline": "java", "multiline-max-lines": "3"},
    {"multiline-start": "^[^ ]", "multiline-max-size": "2k"},
    {"rate-limit": "1m"},
    {"rate-limit": "64k", "max-line-size": "2k"},
    {"rate-limit": "64k", "multiline": "indented"},
)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(map("=".join, options.items())))
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_kill_at_any_write_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float], driver: str, options: dict[str, str]
) -> None:
    kills_made = 0
    for seed in range(6):
        chance = random.Random(f"{driver} {options} {seed}")
        directory = tmp_path / str(seed)
        directory.mkdir()
        more = {"max-size": "100k", "max-file": "1000", "compress": "false"} if driver != "fluentd" else {}
        case = Case(directory, driver, {**options, **more})
        with monkeypatch.context() as patch:
            kills = Kills(patch, chance)
            for step in range(40):
                stream = chance.choice([OUT, ERR])
                any_bytes = driver == "fluentd" and chance.random() < 0.5  # the others' records are text
                case.write(stream, some_bytes(chance) if any_bytes else some_lines(chance, step))
                clock[0] += chance.choice([0.0, 0.001, 0.05, 0.3, 2.0])
                while True:
                    if chance.random() < 0.3:
                        kills.left = chance.randint(0, 12)
                    try:
                        case.copier.pump(stream, step)
                        case.copier.pump_due(step)
                        case.copier.release()
                        break
                    except Killed:
                        kills_made += 1
                        if chance.random() < 0.3:
                            kills.left = chance.randint(0, 3)
                        case.successor()
        for stream in (OUT, ERR):
            case.copier.pump(stream, 99, eof=True)
            assert case.copier.copied(stream) == len(case.sent[stream])
        case.check()
        assert case.copier.due is None
        case.copier.close()
    assert kills_made > 20


def a_case(tmp_path: Path, options: dict[str, str], driver: str = "fluentd") -> Case:
    return Case(tmp_path, driver, options)


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 32768, MIB - 1, MIB, MIB + 1])
@pytest.mark.parametrize("driver", DRIVERS)
def test_lines_of_any_length_arrive_whole_up_to_a_mebibyte(tmp_path: Path, driver: str, size: int) -> None:
    case = a_case(tmp_path, {"max-line-size": "1m"}, driver)
    case.write(OUT, b"before\n" + b"x" * size)
    case.copier.pump(OUT, 1)
    case.write(OUT, b"\nafter\n")
    case.copier.pump(OUT, 2)
    case.check()
    lengths = [len(text) for text in case.texts(OUT)]
    assert lengths == ([7, size + 1, 6] if size < MIB else [7, MIB, size - MIB + 1, 6])
    case.copier.close()


def test_bytes_of_an_unfinished_line_are_looked_at_once(tmp_path: Path) -> None:
    case = a_case(tmp_path, {"max-line-size": "1m"})
    spool = case.copier.spools[OUT]
    read: list[int] = []
    real = spool.read

    def counted(begin: int, end: int) -> bytes:
        read.append(end - begin)
        return real(begin, end)

    spool.read = counted  # type: ignore[method-assign]
    for _ in range(100):
        case.write(OUT, b"x" * 1000)
        case.copier.pump(OUT, 1)
    assert sum(read) == 100_000
    case.write(OUT, b"\n")
    case.copier.pump(OUT, 1)
    assert [len(text) for text in case.texts(OUT)] == [100_001]
    case.copier.close()


def test_a_message_waits_for_its_end_and_no_longer_than_asked(tmp_path: Path, clock: list[float]) -> None:
    case = a_case(tmp_path, {"multiline": "indented", "multiline-timeout": "2s"})
    assert case.copier.due is None
    case.write(OUT, b"a\nb\n")
    case.copier.pump(OUT, 1)
    assert case.texts(OUT) == [b"a\n"]
    assert case.copier.due == clock[0] + 2
    clock[0] += 1.5
    case.write(OUT, b" 1\n")
    case.copier.pump(OUT, 2)
    assert case.copier.due == clock[0] + 2
    clock[0] += 1.9
    case.write(OUT, b"unfin")
    case.copier.pump(OUT, 3)
    case.copier.pump_due(3)
    assert case.texts(OUT) == [b"a\n"]
    clock[0] += 0.1
    case.copier.pump_due(4)
    assert case.texts(OUT) == [b"a\n", b"b\n 1\n"]
    assert case.copier.due is None
    case.write(OUT, b"ished\n")
    case.copier.pump(OUT, 5)
    case.copier.pump(OUT, 6, eof=True)
    assert case.texts(OUT) == [b"a\n", b"b\n 1\n", b"unfinished\n"]
    case.check()
    case.copier.close()


def test_lines_that_waited_keep_the_time_they_were_read(tmp_path: Path, clock: list[float]) -> None:
    case = a_case(tmp_path, {"multiline": "indented"})
    second = 1_000_000_000
    for number, text in enumerate((b"a\n", b"b\n 1\n", b"c\nd\n", b"e\n"), 1):
        case.write(OUT, text)
        case.copier.pump(OUT, number * second)
    case.copier.pump(OUT, 9 * second, eof=True)
    assert [(block.first_ns // second, block.data) for block in case.blocks()] == [
        (1, b"a\n"),
        (2, b"b\n 1\n"),
        (3, b"c\n"),
        (3, b"d\n"),
        (4, b"e\n"),
    ]
    case.copier.close()


def test_streams_are_joined_each_for_itself(tmp_path: Path, clock: list[float]) -> None:
    case = a_case(tmp_path, {"multiline": "indented"})
    for stream, text in ((OUT, b"a\n"), (ERR, b"b\n"), (OUT, b" 1\n"), (ERR, b" 2\n")):
        case.write(stream, text)
        case.copier.pump(stream, 1)
    clock[0] += 1
    case.copier.pump_due(2)
    assert (case.texts(OUT), case.texts(ERR)) == ([b"a\n 1\n"], [b"b\n 2\n"])
    case.copier.close()


@pytest.fixture
def limited(tmp_path: Path, clock: list[float]) -> Callable[..., Case]:
    return lambda **more: a_case(tmp_path, {"rate-limit": "64k", **more})


def test_over_its_rate_a_container_loses_whole_lines_and_a_marker_says_how_many(
    limited: Callable[..., Case], clock: list[float]
) -> None:
    case = limited()
    line = b"y" * 1023 + b"\n"
    case.write(OUT, line * 100)
    case.copier.pump(OUT, 1)
    assert case.texts(OUT) == [line] * 64
    assert case.copier.due == clock[0] + 1
    clock[0] += 0.5
    case.write(OUT, line * 10)  # none passes until the bucket is full again
    case.copier.pump(OUT, 2)
    assert len(case.texts(OUT)) == 64
    clock[0] += 0.5
    case.copier.pump_due(3)
    said = b"taffrail: 46 lines (47104 bytes) dropped: over rate-limit 65536 bytes/s\n"
    assert case.texts(OUT) == [*[line] * 64, said]
    case.write(OUT, line)
    case.copier.pump(OUT, 4)
    assert case.texts(OUT) == [*[line] * 64, said, line]
    assert case.check() == Dropped(46, 46 * 1024)
    case.copier.close()


def test_both_streams_share_the_rate(limited: Callable[..., Case], clock: list[float]) -> None:
    case = limited()
    case.write(OUT, b"y" * 65_535 + b"\n")
    case.copier.pump(OUT, 1)
    case.write(ERR, b"z\n")
    case.copier.pump(ERR, 1)
    case.copier.pump(ERR, 2, eof=True)
    assert MARKER.fullmatch(case.texts(ERR)[0])
    assert case.check() == Dropped(1, 2)
    case.copier.close()


def test_a_line_in_pieces_passes_or_is_dropped_whole(
    limited: Callable[..., Case], clock: list[float]
) -> None:
    case = limited()
    long = b"l" * 100_000
    case.write(OUT, long)  # more than a burst: it passes because nothing else did
    case.copier.pump(OUT, 1)
    case.write(OUT, long + b"\n")
    case.copier.pump(OUT, 2)
    assert b"".join(case.texts(OUT)) == long + long + b"\n"
    case.write(OUT, long)
    case.copier.pump(OUT, 3)
    clock[0] += 60
    case.copier.pump_due(4)  # a marker in the middle of the line
    case.successor()
    case.write(OUT, b"its end\nnext\n")
    case.copier.pump(OUT, 5)
    case.copier.pump(OUT, 6, eof=True)
    assert b"its end" not in b"".join(case.texts(OUT))
    assert case.texts(OUT)[-1] == b"next\n"
    assert case.check() == Dropped(1, 100_008)
    case.copier.close()


def test_a_dropped_message_is_one_line(limited: Callable[..., Case], clock: list[float]) -> None:
    case = limited(multiline="indented")
    case.write(OUT, b"y" * 65_000 + b"\na\n" + b" 1\n" * 300 + b"b\n")
    case.copier.pump(OUT, 1)
    case.copier.pump(OUT, 2, eof=True)
    assert case.check() == Dropped(2, 904)
    case.copier.close()


def test_a_disk_that_refuses_the_marker_gets_it_later(
    limited: Callable[..., Case], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = limited()
    case.write(OUT, b"y\n" * 40_000)
    case.copier.pump(OUT, 1)
    clock[0] += 5

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(OSError, match="No space"):
            case.copier.pump_due(2)
    case.copier.reopen()
    case.copier.pump(OUT, 3, eof=True)
    assert case.check() == Dropped(40_000 - 32_768, 2 * (40_000 - 32_768))
    case.copier.close()


def test_a_container_whose_writes_wait_loses_nothing(tmp_path: Path, clock: list[float]) -> None:
    case = a_case(tmp_path, {"rate-limit": "64k", "rate-limit-policy": "wait"})
    assert case.copier.allowance() == 65_536
    case.copier.spend(65_536)
    assert case.copier.allowance() == 0
    assert case.copier.pause_seconds() == pytest.approx(0.1)
    clock[0] += 0.25
    assert case.copier.allowance() == 16_384
    assert not (case.info.directory / SOURCE_STATE_NAME).exists()
    case.copier.close()


def test_markers_are_few_and_none_waits_long(limited: Callable[..., Case], clock: list[float]) -> None:
    case = limited()
    case.write(OUT, b"l" * 5_000_000 + b"\nx\n")  # passes, and nothing else for more than a minute
    case.copier.pump(OUT, 1)
    for _ in range(30):
        clock[0] += 1
        case.write(OUT, b"y\n")
        case.copier.pump(OUT, 2)
        case.copier.pump_due(2)
    assert [bool(MARKER.fullmatch(text)) for text in case.texts(OUT)].count(True) == 2
    case.copier.pump(OUT, 3, eof=True)
    assert case.check() == Dropped(31, 62)
    case.copier.close()


def test_the_rest_of_a_dropped_line_leaves_no_marker_for_each_read(
    limited: Callable[..., Case], clock: list[float]
) -> None:
    case = limited()
    case.write(OUT, b"y" * 65_535 + b"\n" + b"z" * 20_000)
    case.copier.pump(OUT, 1)
    clock[0] += 5
    case.copier.pump_due(1)
    for _ in range(300):
        clock[0] += 0.01
        case.write(OUT, b"z" * 20_000)
        case.copier.pump(OUT, 2)
        case.copier.pump_due(2)
    case.write(OUT, b"\nnext\n")
    case.copier.pump(OUT, 3, eof=True)
    assert case.texts(OUT)[-1] == b"next\n"
    assert [bool(MARKER.fullmatch(text)) for text in case.texts(OUT)].count(True) <= 5
    assert case.check() == Dropped(1, 301 * 20_000 + 1)
    case.copier.close()
