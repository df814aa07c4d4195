"""A message of several lines is one of whatever a driver sends or keeps, with its newlines in its text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgpack
import orjson
import pytest
import zstandard

from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file
from logdrivers.codecs.forward import ForwardEncoder
from logdrivers.codecs.gelf import GelfEncoder
from logdrivers.codecs.journald import JournaldEncoder, decode_entry
from logdrivers.codecs.local import LocalEncoder, LocalRecords
from logdrivers.codecs.syslog import SyslogEncoder
from logdrivers.driver import Info
from logdrivers.journal import Mark
from logdrivers.journals.segment_format import block_of, encode_frame, frames
from logdrivers.none import NoneDriver
from logdrivers.plugin.frames import decode as decode_frames
from logdrivers.plugin.reading import _frames as plugin_frames
from logdrivers.plugin.requests import ReadConfig

NS = 1_700_000_000_123_456_789
TEXT = b'Traceback "x" \\ <y>:\n  File\t1, \x7f\n\nValueError: \xc3\xa9 #012\n'
MESSAGE = Block(TEXT, Encoding.MESSAGE, Stream.STDERR, NS, NS, 1)
INFO = Info("c" * 64, "/web", "sha256:1", "img", ("run",), 0, Path("/nowhere"))


def _json_file(block: Block) -> list[bytes]:
    records = json_file.Encoder({"tag": "t"}).encode(block)
    assert records.count(b"\n") == 1
    assert json_file.source_bytes(records) == len(block.data)
    return [record.log for record in json_file.decode(records)]


def _local(block: Block) -> list[bytes]:
    data = LocalEncoder().encode(block)
    assert LocalRecords().count(data) == 1
    assert LocalRecords().source_bytes(data) == len(block.data)
    found = [made for _, made in LocalRecords().blocks(data)]
    assert found == [block]
    return [found[0].data]


def _gelf(block: Block) -> list[bytes]:
    encoder = GelfEncoder(INFO)
    payloads = encoder.payloads(block)
    assert encoder.frames(block) == b"".join(payload + b"\0" for payload in payloads)
    return [orjson.loads(payload)["short_message"].encode() + b"\n" for payload in payloads]


def _forward(block: Block) -> list[bytes]:
    unpacker = msgpack.Unpacker()
    unpacker.feed(ForwardEncoder(INFO, "tag").messages(block))
    return [record["log"].encode() + b"\n" for _, _, record, _ in unpacker]


def _packed_forward(block: Block) -> list[bytes]:
    _, entries, option = msgpack.unpackb(ForwardEncoder(INFO, "tag").packed(block, "chunk"))
    assert option["size"] == 1
    unpacker = msgpack.Unpacker()
    unpacker.feed(entries)
    return [record["log"].encode() + b"\n" for _, record in unpacker]


def _journald(block: Block) -> list[bytes]:
    return [decode_entry(entry)["MESSAGE"] + b"\n" for entry in JournaldEncoder(INFO).entries(block)]


def _syslog_counted(block: Block) -> list[bytes]:
    frame = SyslogEncoder("tag", "host", 7, form="rfc5424", octet_counted=True).frames(block)
    length, _, message = frame.partition(b" ")
    assert len(message) == int(length)
    return [message.partition(b" - ")[2]]


def _segment(block: Block) -> list[bytes]:
    data = encode_frame(block, Mark(1, 2), 5, 6, 7, zstandard.ZstdCompressor())
    (frame,) = frames(data, 0, sealed=True)
    found = block_of(frame, data, zstandard.ZstdDecompressor())
    assert found == block
    assert frame.source_bytes == len(block.data)
    return [found.data]


def _plugin(block: Block) -> list[bytes]:
    config = ReadConfig(since_ns=0, until_ns=0, tail=None, follow=False)
    return decode_frames(b"".join(plugin_frames(block, config, 0))).lines


@pytest.mark.parametrize(
    "way",
    [_json_file, _local, _gelf, _forward, _packed_forward, _journald, _syslog_counted, _segment, _plugin],
)
@pytest.mark.parametrize("text", [TEXT, b"a\nb\n", b"\n\n", b"start\n" + b"  x\n" * 200_000])
def test_a_message_is_one(way: Callable[[Block], list[bytes]], text: bytes) -> None:
    block = Block(text, Encoding.MESSAGE, Stream.STDERR, NS, NS, 1)
    assert way(block) == [text]


def test_where_newlines_end_messages_syslog_writes_them_as_servers_do() -> None:
    encoder = SyslogEncoder("tag", "host", 7, form="rfc3164")
    (message,) = encoder.messages(MESSAGE)
    assert message.count(b"\n") == 1
    assert message.endswith(TEXT[:-1].replace(b"\n", b"#012") + b"\n")
    assert encoder.frames(MESSAGE) == message


def test_records_of_messages_go_on_as_messages() -> None:
    record = json_file.Encoder().encode(MESSAGE)
    block = Block(record, Encoding.JSON_FILE, Stream.STDERR, NS, NS, 1)
    for way in (_gelf, _forward, _journald, _syslog_counted):
        assert way(block) == [TEXT]


def test_none_counts_a_message_as_one_line(tmp_path: Path) -> None:
    journal = NoneDriver().journal(Info("c" * 64, "/web", "", "", (), 0, tmp_path))
    journal.append(MESSAGE, Mark(0, len(TEXT)))
    assert journal.written() == (1, len(TEXT))
    journal.close()
