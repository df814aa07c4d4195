"""Forms of journals under test, and what was written to them; tests of this directory import it by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file as codec
from logdrivers.driver import Driver, Info
from logdrivers.fluentd import FluentdDriver
from logdrivers.gelf import GelfDriver
from logdrivers.journal import Journal, JournalReader, Mark, Position
from logdrivers.journald import JournaldDriver
from logdrivers.journals.segments import SegmentJournal, SegmentReader
from logdrivers.json_file import JsonFileDriver
from logdrivers.local import LocalDriver
from logdrivers.syslog import SyslogDriver

NS = 1_795_203_812_000_000_000
SECOND = 10**9
MINUTE = 60 * SECOND


@dataclass(frozen=True)
class Form:
    journal: Callable[[Path], Journal]
    reader: Callable[[Path], JournalReader]
    exact_tail: bool  #: ``tail`` gives exactly so many lines


def of(driver: Driver, *, exact_tail: bool = False, **options: str) -> Form:
    """The journal that a driver makes with these options."""
    chosen = {key.replace("_", "-"): value for key, value in options.items()}
    driver.validate(chosen)

    def info(directory: Path) -> Info:
        return Info("c0ffee" + "0" * 58, "/x", "sha256:1", "i", ("sh",), 0, directory, options=chosen)

    def reader(directory: Path) -> JournalReader:
        found = driver.reader(info(directory))
        assert found is not None
        return found

    return Form(lambda path: driver.journal(info(path)), reader, exact_tail)


def rotated(driver: JsonFileDriver | LocalDriver, **options: str) -> Form:
    """The files of a driver that keeps lines on the host."""
    return of(driver, exact_tail=True, **options)


def journald() -> Form:
    """journald's journal on a host that may have none: one that is there already is gone on with."""
    form = of(JournaldDriver())

    def journal(directory: Path) -> Journal:
        segments = directory / "journal"
        if not segments.exists():
            segments.mkdir(parents=True)
            (segments / "00000001.seg").touch()
        return form.journal(directory)

    return replace(form, journal=journal)


FORMS = {
    "json-file": rotated(JsonFileDriver()),
    "json-file-max-size-1b": rotated(JsonFileDriver(), max_size="1b", max_file="200"),
    "json-file-max-size-1k": rotated(JsonFileDriver(), max_size="1k", max_file="200"),
    "json-file-compressed": rotated(JsonFileDriver(), max_size="500b", max_file="200", compress="true"),
    "local": rotated(LocalDriver()),
    "local-max-size-0": rotated(LocalDriver(), max_size="0", max_file="250", compress="false"),
    "local-max-size-1k": rotated(LocalDriver(), max_size="1k", max_file="200", compress="false"),
    "local-compressed": rotated(LocalDriver(), max_size="500b", max_file="200"),
    "local-attributes": rotated(LocalDriver(), max_size="500b", max_file="200", tag="{{.ID}}"),
    "segments": Form(SegmentJournal, SegmentReader, exact_tail=False),
}
_NOWHERE = "tcp://127.0.0.1:1"
#: Every driver that can be read, as containers use it; ten files of one byte hold ten lines.
DRIVERS = {
    "json-file": rotated(JsonFileDriver()),
    "json-file-1b": rotated(JsonFileDriver(), max_size="1b", max_file="10"),
    "json-file-1b-compressed": rotated(JsonFileDriver(), max_size="1b", max_file="10", compress="true"),
    "local": rotated(LocalDriver()),
    "local-1b": rotated(LocalDriver(), max_size="1b", max_file="10", compress="false"),
    "local-1b-compressed": rotated(LocalDriver(), max_size="1b", max_file="10", compress="true"),
    "gelf": of(GelfDriver(), gelf_address=_NOWHERE),
    "fluentd": of(FluentdDriver(), fluentd_address=_NOWHERE),
    "syslog": of(SyslogDriver(), syslog_address=_NOWHERE),
    "journald": journald(),
}


@dataclass(frozen=True)
class Line:
    text: str
    time_ns: int
    stream: Stream


class Log:
    """A journal under test, and what was written to it."""

    def __init__(self, form: Form, directory: Path) -> None:
        self.form = form
        self.directory = directory
        self.journal = form.journal(directory)
        self.lines: list[Line] = []
        self.readers: list[JournalReader] = []

    def write(self, *texts: str, time_ns: int = NS, stream: Stream = Stream.STDOUT) -> None:
        data = "".join(text + "\n" for text in texts).encode()
        block = Block(data, Encoding.LINES, stream, time_ns, time_ns, len(texts))
        self.lines += [Line(text + "\n", time_ns, stream) for text in texts]
        self.journal.append(block, Mark(len(self.lines), 0))

    def write_piece(self, text: str, ordinal: int, last: bool, time_ns: int = NS) -> None:
        partial = Partial("ab" * 32, ordinal, last)
        block = Block(text.encode(), Encoding.LINES, Stream.STDOUT, time_ns, time_ns, 1, partial)
        self.lines.append(Line(text + ("\n" if last else ""), time_ns, Stream.STDOUT))
        self.journal.append(block, Mark(len(self.lines), 0))

    def reader(self) -> JournalReader:
        reader = self.form.reader(self.directory)
        self.readers.append(reader)
        return reader

    def close(self) -> None:
        self.journal.close()
        for reader in self.readers:
            reader.close()


def lines_of(block: Block) -> list[Line]:
    if block.encoding is Encoding.JSON_FILE:
        return [Line(r.log.decode(), r.time_ns, r.stream) for r in codec.decode(block.data)]
    if block.partial is not None:
        end = "\n" if block.partial.last else ""
        return [Line(block.data.decode() + end, block.first_ns, block.stream)]
    return [Line(text + "\n", block.first_ns, block.stream) for text in block.data.decode().split("\n")[:-1]]


def read_from(reader: JournalReader, position: Position, max_bytes: int = 1 << 20) -> list[Line]:
    found: list[Line] = []
    expected: int | None = None
    while entries := (batch := reader.read(position, max_bytes)).entries:
        assert batch.lost_lines == 0
        for entry in entries:
            assert expected in (None, entry.first_line)
            expected = entry.first_line + entry.block.lines
            assert entry.end > position
            position = entry.end
            lines = lines_of(entry.block)
            assert len(lines) == entry.block.lines
            assert min(line.time_ns for line in lines) == entry.block.first_ns
            assert max(line.time_ns for line in lines) == entry.block.last_ns
            found += lines
    return found
