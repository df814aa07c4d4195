"""The files of a real Docker Engine's json-file and local drivers beside ours, for the same output."""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file as json_codec
from logdrivers.codecs import local as local_codec
from logdrivers.driver import Driver, Info, OptionError
from logdrivers.journal import JournalReader, Mark
from logdrivers.json_file import JsonFileDriver, log_path
from logdrivers.local import LocalDriver, local_log_path

NS = 1_795_203_851_793_123_456
#: Every byte but the newline, in lines that begin like a record's own syntax, too.
NASTY = (
    bytes(range(10)) + bytes(range(11, 256)) + b"\n"
    b'plain <&> "q" tab\tend\n\n\r\nback\\slash \\u0009 \\n \x1b[1m\x07\x7f\n'
    b"caf\xc3\xa9 \xff\xfe \xe2\x82 \xe2\x80\xa8 \xe2\x80\xa9 \xed\xa0\x80 \xf4\x90\x80\x80 \xc0\xaf \xef\xbf\xbd\n"
    b'{"log":"x","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n'
    b'","stream":"stderr","time":"\n'
)
LONG = (16383, 16384, 16385, 32768)


def octal(data: bytes) -> str:
    return "".join(f"\\{byte:03o}" for byte in data)


def nasty_script() -> str:
    """Each stream on its own, the other after it: between streams Docker keeps no order."""
    parts = [f"printf '{octal(NASTY)}'"]
    parts += [f"head -c {size} /dev/zero | tr '\\0' x; echo" for size in LONG]
    parts += ["sleep 0.3", f"printf '{octal(NASTY)}' >&2", "sleep 0.3", "printf 'no newline'"]
    return "; ".join(parts)


def pieces(size: int, mark: str) -> Iterator[Block]:
    """A line of so many bytes as the copier cuts it."""
    data = b"x" * size
    if size < 16384:
        yield Block(data + b"\n", Encoding.LINES, Stream.STDOUT, NS, NS, 1)
        return
    cuts = [data[at : at + 16384] for at in range(0, size, 16384)]
    if len(cuts[-1]) == 16384:
        cuts.append(b"")
    for ordinal, cut in enumerate(cuts, 1):
        partial = Partial(mark * 64, ordinal, ordinal == len(cuts))
        yield Block(cut, Encoding.LINES, Stream.STDOUT, NS, NS, 1, partial)


def nasty_blocks() -> Iterator[Block]:
    yield Block(NASTY, Encoding.LINES, Stream.STDOUT, NS, NS, NASTY.count(b"\n"))
    for number, size in enumerate(LONG):
        yield from pieces(size, f"{number:x}")
    yield Block(NASTY, Encoding.LINES, Stream.STDERR, NS, NS, NASTY.count(b"\n"))
    yield Block(b"no newline", Encoding.LINES, Stream.STDOUT, NS, NS, 1, Partial("f" * 64, 1, False))


def written_by_ours(driver: Driver, theirs: Info, directory: Path, blocks: Iterator[Block]) -> Info:
    info = Info(
        theirs.container_id, theirs.container_name, theirs.image_id, theirs.image_name, theirs.command,
        theirs.created_ns, directory, theirs.options, theirs.labels, theirs.env, theirs.hostname,
    )  # fmt: skip
    driver.validate(info.options)
    journal = driver.journal(info)
    journal.resume()
    for number, block in enumerate(blocks, 1):
        journal.append(block, Mark(number, 0))
    journal.close()
    return info


def without_times(data: bytes) -> bytes:
    return re.sub(rb'"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z"', b'"time":"T"', data)


def is_error(record: bytes) -> bool:
    return b'","stream":"stderr"' in record


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"labels": "app", "env": "TEAM", "tag": "{{.Name}}/{{.ID}}/{{.ImageID}}"},
        {"labels-regex": "^a", "env-regex": "^TE"},
    ],
    ids=["plain", "attributes", "patterns"],
)
def test_json_file_is_the_same_to_the_byte(
    docker_engine: Any, tmp_path: Path, options: dict[str, str]
) -> None:
    theirs = docker_engine.container("json-file", options, nasty_script())
    ours = written_by_ours(JsonFileDriver(), theirs, tmp_path, nasty_blocks())
    expected, found = (without_times(log_path(info).read_bytes()) for info in (theirs, ours))
    # Between streams a Docker Engine keeps no order: one after the other.
    by_stream = [sorted(data.split(b"\n"), key=is_error) for data in (found, expected)]
    assert by_stream[0] == by_stream[1]
    assert log_path(ours).stat().st_mode == log_path(theirs).stat().st_mode


def values(records: list[local_codec.Record]) -> list[tuple[object, ...]]:
    """All but times and ids; between streams a Docker Engine keeps no order: one after the other."""
    by_stream = sorted(records, key=lambda record: record.stream)
    return [(r.stream, r.line, r.partial and (r.partial.ordinal, r.partial.last)) for r in by_stream]


def stdout_of(info: Info) -> bytes:
    """What our reader reads there."""
    reader = LocalDriver().reader(info)
    return b"".join(block.data for block in all_blocks(reader) if block.stream is Stream.STDOUT)


def all_blocks(reader: JournalReader) -> list[Block]:
    blocks: list[Block] = []
    position = reader.first()
    while entries := reader.read(position).entries:
        blocks += [entry.block for entry in entries]
        position = entries[-1].end
    reader.close()
    return blocks


def test_local_is_the_same_to_the_byte_and_reads_dockers(docker_engine: Any, tmp_path: Path) -> None:
    theirs = docker_engine.container("local", {}, nasty_script())
    data = local_log_path(theirs.directory).read_bytes()
    records = list(local_codec.decode(data))
    # Encoding what was decoded, with its own times and pieces' ids, gives Docker's bytes again.
    encoder = local_codec.LocalEncoder()
    again = [
        encoder.encode(
            Block(
                record.line + (b"" if record.partial else b"\n"), Encoding.LINES, record.stream,
                record.time_ns, record.time_ns, 1, record.partial,
            )
        )
        for record in records
    ]  # fmt: skip
    assert b"".join(again) == data
    assert {len(record.partial.id) for record in records if record.partial} == {64}
    # And ours, of the whole blocks, differs from it in times and ids alone.
    ours = written_by_ours(LocalDriver(), theirs, tmp_path, nasty_blocks())
    mine = list(local_codec.decode(local_log_path(tmp_path).read_bytes()))
    assert values(mine) == values(records)
    assert mine[-1].end == records[-1].end == len(data)
    assert local_log_path(ours.directory).stat().st_mode == local_log_path(theirs.directory).stat().st_mode
    assert stdout_of(theirs) == stdout_of(ours)


def test_docker_reads_our_local_files(docker_engine: Any, tmp_path: Path) -> None:
    options = {"max-size": "20k", "max-file": "5"}
    theirs = docker_engine.container("local", options, "true")
    blocks = (
        Block(b"line %d of ours \xff\n" % n, Encoding.LINES, Stream.STDOUT, NS + n, NS + n, 1)
        for n in range(900)
    )
    written_by_ours(LocalDriver(), theirs, tmp_path, blocks)
    # The container wrote nothing: its files become ours, by Docker's names.
    for path in sorted(local_log_path(tmp_path).parent.glob("container.log*")):
        (local_log_path(theirs.directory).parent / path.name).write_bytes(path.read_bytes())
    shown = docker_engine.run("logs", "--timestamps", theirs.container_id).stdout.splitlines()
    assert [line.partition(b" ")[2] for line in shown] == [b"line %d of ours \xff" % n for n in range(900)]
    assert shown[0].startswith(b"2026-11-20T19:44:11.793123456Z ")


LINES = "i=0; while [ $i -lt 1000 ]; do echo line $i of it; i=$((i+1)); done"


def files(newest: Path) -> dict[str, bytes]:
    """The log files there are, decompressed, by what their names end in."""
    return {
        path.name.removeprefix(newest.name): gzip.decompress(data) if path.suffix == ".gz" else data
        for path in newest.parent.glob(newest.name + "*")
        for data in [path.read_bytes()]
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("json-file", {"max-size": "5k"}),  # one file, and yet Docker keeps a second
        ("json-file", {"max-size": "5k", "max-file": "2"}),
        ("json-file", {"max-size": "30k", "max-file": "3", "compress": "true"}),
        ("local", {"max-size": "5k", "max-file": "1", "compress": "false"}),
        ("local", {"max-size": "5k", "max-file": "0", "compress": "false"}),
        ("local", {"max-size": "5k"}),
        ("local", {"max-size": "0", "max-file": "4", "compress": "false"}),
        ("local", {}),
    ],
)
def test_rotation_leaves_the_same_files(
    docker_engine: Any, tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    driver: Driver = JsonFileDriver() if name == "json-file" else LocalDriver()
    theirs = docker_engine.container(name, options, LINES)
    newest = log_path(theirs) if name == "json-file" else local_log_path(theirs.directory)
    expected = settled(
        newest, options.get("compress") == "true" or (name == "local" and "compress" not in options)
    )
    # The records Docker still has, one by one with their times: the oldest file begins where one began.
    oldest_first = [expected[suffix] for suffix in sorted(expected, key=number_of, reverse=True)]
    blocks = list(one_by_one(name, b"".join(oldest_first)))
    ours = written_by_ours(driver, theirs, tmp_path, iter(blocks))
    found = files(log_path(ours) if name == "json-file" else local_log_path(ours.directory))
    assert sorted(found) == sorted(expected)
    assert found == expected


def number_of(suffix: str) -> int:
    return int(suffix.removesuffix(".gz").removeprefix(".") or 0)


def settled(newest: Path, compressed: bool) -> dict[str, bytes]:
    """Docker's files once it has compressed those that it compresses."""
    deadline = time.monotonic() + 100
    while True:
        names = [path.name.removeprefix(newest.name) for path in newest.parent.glob(newest.name + "*")]
        if not compressed or all(not name or name.endswith(".gz") for name in names):
            return files(newest)
        assert time.monotonic() < deadline, names
        time.sleep(0.05)


def one_by_one(name: str, data: bytes) -> Iterator[Block]:
    if name == "json-file":
        for record in json_codec.decode(data):
            yield Block(record.log, Encoding.LINES, record.stream, record.time_ns, record.time_ns, 1)
        return
    for found in local_codec.decode(data):
        yield Block(found.line + b"\n", Encoding.LINES, found.stream, found.time_ns, found.time_ns, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"max-size": "-1"}, {"max-size": "x1"}, {"max-size": "0"}, {"max-file": "0"}, {"max-file": "-1"},
        {"max-file": "x"}, {"max-file": "1"}, {"compress": "maybe"}, {"foo": "1"},
        {"max-file": "1", "compress": "false"}, {"max-file": "0", "compress": "false"},
    ],
    ids=str,
)  # fmt: skip
def test_local_refuses_what_docker_refuses(docker_engine: Any, options: dict[str, str]) -> None:
    try:
        LocalDriver().validate(options)
        ours = ""
    except OptionError as error:
        ours = str(error)
    assert ours == docker_engine.refusal("local", options)
