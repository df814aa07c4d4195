"""The json-file journal exactly once through kills, full disks and power cuts."""

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file as codec
from logdrivers.driver import Info
from logdrivers.journal import Mark
from logdrivers.journals.rotated_journal import RotatedJournal
from logdrivers.json_file import log_path
from tests.logdrivers.json_file_logs import DRIVER, NS, all_logs, block_of, info_for, logs_of, numbered


def test_a_kill_at_every_byte_of_an_append_loses_and_repeats_nothing(tmp_path: Path) -> None:
    before = tmp_path / "before"
    info = info_for(before)
    journal = DRIVER.journal(info)
    journal.append(numbered(0, 2), Mark(100, 7))
    journal.close()
    block = block_of("a", 'quo"ted', "z\u2028\ufffd", stream=Stream.STDERR)
    encoded = codec.Encoder().encode(block)
    source_lines = block.data.splitlines(keepends=True)
    for cut in range(len(encoded) + 1):
        killed = info_for(tmp_path / str(cut))
        shutil.copytree(before, killed.directory)
        with log_path(killed).open("ab") as file:
            file.write(encoded[:cut])
        journal = DRIVER.journal(killed)
        resume = journal.resume()
        there = encoded[:cut].count(b"\n")
        assert resume.mark == Mark(100, 7)
        assert resume.records == there
        assert resume.torn_bytes == cut - (encoded.rfind(b"\n", 0, cut) + 1)
        if there:
            assert resume.stream is Stream.STDERR
        assert resume.source_bytes == len(b"".join(source_lines[:there]))
        rest = b"".join(source_lines)[resume.source_bytes :]
        if rest:
            left = Block(rest, Encoding.LINES, Stream.STDERR, NS, NS, rest.count(b"\n"))
            journal.append(left, Mark(100, 7 + len(block.data)))
        assert journal.written() == (5, len(numbered(0, 2).data) + len(block.data))
        journal.close()
        assert logs_of(log_path(killed))[2:] == ["a\n", 'quo"ted\n', "z\u2028\ufffd\n"]
        shutil.rmtree(killed.directory)


def append_until_full(journal: RotatedJournal) -> int:
    """Blocks of ten lines; how many went in whole."""
    for done in range(200):
        try:
            journal.append(numbered(done * 10, 10), Mark(done + 1, 0))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 the loop is the point
            return done
    raise AssertionError("the disk never filled up")


@pytest.mark.parametrize("max_size", ["1g", "5k"])
def test_a_full_disk_leaves_nothing_torn_and_the_block_can_be_appended_again(
    small_disk: Path, max_size: str
) -> None:
    info = info_for(small_disk, max_size=max_size, max_file="20")
    journal = DRIVER.journal(info)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 20_000)
    done = append_until_full(journal)
    assert log_path(info).read_bytes()[-1:] in (b"\n", b"")
    resume = journal.resume()
    assert resume.mark == Mark(done, 0)
    assert len(all_logs(info)) == done * 10 + resume.records
    ballast.unlink()
    journal.append(numbered(done * 10, 10), Mark(done + 1, 0))
    assert journal.written()[0] == (done + 1) * 10
    journal.close()
    assert all_logs(info) == [f"line {n} of the container's output\n" for n in range((done + 1) * 10)]


def test_a_block_given_up_after_a_full_disk_is_not_waited_for(small_disk: Path) -> None:
    info = info_for(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 20_000)
    journal = DRIVER.journal(info)
    done = append_until_full(journal)
    kept = journal.resume().records
    journal.give_up(Mark(done + 1, 0))
    ballast.unlink()
    assert journal.resume().mark == Mark(done + 1, 0)
    journal.append(numbered(5000, 2), Mark(done + 2, 0))
    assert journal.written()[0] == done * 10 + kept + 2
    journal.close()
    assert logs_of(log_path(info))[-1] == "line 5001 of the container's output\n"


def test_a_full_disk_and_a_new_writer(small_disk: Path) -> None:
    info = info_for(small_disk)
    journal = DRIVER.journal(info)
    done = append_until_full(journal)
    kept = journal.resume()
    journal.close()
    journal = DRIVER.journal(info)
    assert journal.resume() == kept
    assert len(logs_of(log_path(info))) == done * 10 + kept.records
    journal.close()


#: Lines that a writer may be ahead of its reader: of two lives they are less than there are files for.
AHEAD = 45


def _write_until_killed(info: Info, started: int, allowed: int) -> None:
    """A writer whose source is the lines 0, 1, 2 …; the mark is how many lines, the block size varies.

    It tells the first, and writes a line for each byte that it is given.
    """
    journal = DRIVER.journal(info)
    resume = journal.resume()
    number = resume.mark.stdout + resume.records
    os.write(started, number.to_bytes(8, "big"))
    size = number % 40 + 1
    while True:
        left = size
        while left:
            left -= len(os.read(allowed, left))
        journal.append(numbered(number, size), Mark(number + size, 0))
        number += size
        size = size % 40 + 1


@pytest.mark.parametrize(
    "options",
    [{}, {"max_size": "2k", "max_file": "99"}, {"max_size": "1", "max_file": "99"},
     {"max_size": "3k", "max_file": "99", "compress": "true"}],
)  # fmt: skip
def test_kill_minus_nine_at_any_point_loses_and_repeats_nothing(
    tmp_path: Path, options: dict[str, str]
) -> None:
    info = info_for(tmp_path, **options)
    reader = DRIVER.reader(info)
    position = reader.first()
    seen: list[str] = []
    for _ in range(12):
        readable, started = os.pipe()
        allowed, allow = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _write_until_killed(info, started, allowed)
            finally:
                os._exit(1)
        os.close(started)  # a writer that ends before it has told ends the wait for it
        try:
            given = int.from_bytes(os.read(readable, 8), "big")
            target = len(seen) + 60
            while len(seen) < target:
                assert os.waitpid(child, os.WNOHANG) == (0, 0)
                if (more := len(seen) + AHEAD - given) > 0:
                    os.write(allow, bytes(more))
                    given += more
                batch = reader.read(position)
                assert batch.lost_lines == 0
                for entry in batch.entries:
                    assert entry.first_line == len(seen)
                    seen += [record.log.decode() for record in codec.decode(entry.block.data)]
                    position = entry.end
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            for descriptor in (readable, allowed, allow):
                os.close(descriptor)
    journal = DRIVER.journal(info)
    while batch := reader.read(position).entries:
        for entry in batch:
            seen += [record.log.decode() for record in codec.decode(entry.block.data)]
            position = entry.end
    assert seen == [f"line {n} of the container's output\n" for n in range(journal.written()[0])]
    assert journal.end() == reader.end()
    assert reader.end_line() == len(seen)
    journal.close()
    reader.close()


def test_zeros_a_power_cut_left_are_cut_off(tmp_path: Path) -> None:
    info = info_for(tmp_path)
    journal = DRIVER.journal(info)
    journal.append(numbered(0, 2), Mark(1, 0))
    journal.close()
    with log_path(info).open("ab") as file:
        file.write(b"\x00" * 500)
    journal = DRIVER.journal(info)
    assert journal.resume().torn_bytes == 500
    journal.append(numbered(2, 1), Mark(2, 0))
    journal.close()
    assert len(logs_of(log_path(info))) == 3
