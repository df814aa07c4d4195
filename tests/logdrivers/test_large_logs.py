"""A time, a last line, the end of a large log are found by an index, not by reading it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.driver import Info
from logdrivers.journal import JournalReader, Mark
from logdrivers.registry import get

BLOCKS, LINES = 600, 200
SECOND = 10**9
START = 1_795_203_812 * SECOND

DRIVERS = {
    "json-file": {},
    "json-file rotating": {"max-size": "5m", "max-file": "100"},
    "local": {"max-size": "1g", "max-file": "2", "compress": "false"},
    "gelf": {"gelf-address": "udp://127.0.0.1:9", "journal-max-size": "1g", "journal-keep-size": "16m"},
}


def read_bytes() -> int:
    """Bytes this thread has read from files so far."""
    return int(Path("/proc/thread-self/io").read_text().split()[1])


@pytest.mark.parametrize("kind", DRIVERS)
def test_searching_reads_a_small_part_of_the_log(tmp_path: Path, kind: str) -> None:
    driver = get(kind.partition(" ")[0])
    info = Info("c" * 64, "/web", "", "", (), 0, tmp_path, DRIVERS[kind])
    journal = driver.journal(info)
    for number in range(BLOCKS):  # a block a second
        data = b"".join(os.urandom(60).hex().encode() + b"\n" for _ in range(LINES))
        time_ns = START + number * SECOND
        journal.append(Block(data, Encoding.LINES, Stream.STDOUT, time_ns, time_ns, LINES), Mark(number, 0))
    journal.close()
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size > 6 << 20

    def opened() -> JournalReader:
        reader = driver.reader(info)
        assert reader is not None
        return reader

    def costs(reader: JournalReader, before: int) -> int:
        reader.close()
        return read_bytes() - before

    most = max(size // 3, 3 << 20)
    for second in (0, 1, BLOCKS // 2, BLOCKS - 1):
        before, reader = read_bytes(), opened()
        entries = reader.read(reader.locate(START + second * SECOND), 1 << 15).entries
        assert entries[0].block.first_ns == START + second * SECOND
        assert entries[0].first_line == second * LINES
        assert costs(reader, before) < most
    before, reader = read_bytes(), opened()
    assert reader.end_line() == BLOCKS * LINES
    entries = reader.read(reader.tail(10)).entries
    assert entries[-1].first_line + entries[-1].block.lines == BLOCKS * LINES
    assert entries[0].first_line <= BLOCKS * LINES - 10
    assert costs(reader, before) < most
