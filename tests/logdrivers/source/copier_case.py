"""A container whose output goes through a real pipe, spool, copier and journal, and the account of its bytes.

What came out, with every marker standing for the bytes it names, is what went in; the count of dropped lines is
the sum of the markers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file
from logdrivers.driver import Info
from logdrivers.registry import get
from logdrivers.source.copier import Copier
from logdrivers.source.ledger import Ledger
from logdrivers.source.options import parse_source
from logdrivers.source.rate_limit import SOURCE_STATE_NAME, DropCounter, Dropped, read_dropped
from logdrivers.source.spool import Spool

OUT, ERR = Stream.STDOUT, Stream.STDERR
MIB = 1 << 20
DRIVERS = ("json-file", "local", "fluentd")
MARKER = re.compile(rb"taffrail: (\d+) lines \((\d+) bytes\) dropped: over rate-limit \d+ bytes/s\n")
#: Before a test has put another in its place.
REAL_WRITE = os.write


class Killed(BaseException):
    """Stands for kill -9 at this very point."""


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
        return [text for of, text in record_texts(self.blocks()) if of is stream]

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


def a_case(tmp_path: Path, options: dict[str, str], driver: str = "fluentd") -> Case:
    return Case(tmp_path, driver, options)


def record_texts(blocks: Iterable[Block]) -> Iterator[tuple[Stream, bytes]]:
    """The stream of each record of blocks, and what it says."""
    for block in blocks:
        if block.encoding is Encoding.JSON_FILE:
            yield from ((record.stream, record.log) for record in json_file.decode(block.data))
        elif block.partial is not None:
            yield block.stream, block.data + (b"\n" if block.partial.last else b"")
        elif block.encoding is Encoding.MESSAGE:
            yield block.stream, block.data
        else:
            yield from ((block.stream, line + b"\n") for line in block.data.split(b"\n")[:-1])
