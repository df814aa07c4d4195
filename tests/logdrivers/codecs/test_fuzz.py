"""Every encoder takes every block and says what is in it; every decoder takes or refuses any bytes in its own words.

Blocks are of each encoding with any bytes in their lines; what is decoded is what was encoded, cut, with bytes
changed, left out and put in.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import gelf_decode, json_file, local, syslog_decode
from logdrivers.codecs.forward import ForwardEncoder
from logdrivers.codecs.forward_decode import DecodeError, ForwardDecoder, Message
from logdrivers.codecs.gelf import Datagrams, GelfEncoder, chunk
from logdrivers.codecs.journald import JournaldEncoder, decode_entry
from logdrivers.codecs.local import LocalEncoder, LocalRecords
from logdrivers.codecs.syslog import SyslogEncoder
from logdrivers.driver import Info
from logdrivers.journal import Mark
from logdrivers.journals.segment_format import SegmentHeader, block_of, encode_frame, frames
from logdrivers.plugin import frames as plugin_frames

INFO = Info("c" * 64, "/web", "sha256:1", "img", ("run",), 0, Path("/nowhere"))
TIMES = st.integers(0, 2**62)
STREAMS = st.sampled_from([Stream.STDOUT, Stream.STDERR])
#: What means something to one of the formats, among bytes of any kind.
SPECIAL = st.sampled_from(
    [b"", b"\r", b"\0", b"\x1f\x8b", b"\x1e\x0f", b"\xff\xfe", b'"', b"\\", b'{"log":"', b"<30>", b"\xe2\x80\xa8",
     b"\xed\xa0\x80", b"<&>", b"\x92\xce", b"TFSG", b"MESSAGE\n", b"12 ", b"\x7f"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(SPECIAL, st.binary(max_size=12)), max_size=5).map(
    lambda parts: b"".join(parts).replace(b"\n", b" ")
)


@st.composite
def line_blocks(draw: st.DrawFn) -> Block:
    texts = draw(st.lists(TEXTS, min_size=1, max_size=8))
    time_ns = draw(TIMES)
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.LINES, draw(STREAMS), time_ns, time_ns, len(texts))


@st.composite
def pieces(draw: st.DrawFn) -> Block:
    time_ns = draw(TIMES)
    partial = Partial(draw(st.text("0123456789abcdef", min_size=64, max_size=64)), draw(st.integers(1, 2**31 - 1)),
                      draw(st.booleans()))  # fmt: skip
    return Block(draw(TEXTS), Encoding.LINES, draw(STREAMS), time_ns, time_ns, 1, partial)


@st.composite
def long_messages(draw: st.DrawFn) -> Block:
    time_ns = draw(TIMES)
    texts = draw(st.lists(TEXTS, min_size=2, max_size=5))
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.MESSAGE, draw(STREAMS), time_ns, time_ns, 1)


@st.composite
def record_blocks(draw: st.DrawFn) -> Block:
    parts = draw(st.lists(line_blocks(), min_size=1, max_size=4))
    data = b"".join(json_file.Encoder({"k": "v\u2028<"}).encode(part) for part in parts)
    times = [part.first_ns for part in parts]
    return Block(
        data, Encoding.JSON_FILE, Stream.MIXED, min(times), max(times), sum(part.lines for part in parts)
    )


BLOCKS = st.one_of(line_blocks(), pieces(), long_messages(), record_blocks())


def texts_of(block: Block) -> list[bytes]:
    """The messages of a block, without their last newline."""
    if block.encoding is Encoding.JSON_FILE:
        return [record.log.removesuffix(b"\n") for record in json_file.decode(block.data)]
    if block.partial is not None:
        return [block.data]
    if block.encoding is Encoding.MESSAGE:
        return [block.data[:-1]]
    return block.data.split(b"\n")[:-1]


def as_text(data: bytes) -> str:
    """Bytes as Go's JSON has them: a replacement for each that is not part of a character."""
    return json.loads(b'"' + json_file.escape(data) + b'"')  # type: ignore[no-any-return]


# --- what is encoded says what was written -----------------------------------------------------------------


@given(BLOCKS)
def test_gelf(block: Block) -> None:
    encoder = GelfEncoder(INFO)
    reader = gelf_decode.NulFrames(1 << 20)
    payloads = list(reader.feed(encoder.frames(block)))
    filled = [text for text in texts_of(block) if text]
    assert [orjson.loads(payload)["short_message"] for payload in payloads] == [
        as_text(text) for text in filled
    ]
    assert encoder.empty_lines == len(texts_of(block)) - len(filled)
    for compression in ("gzip", "zlib", "none"):
        datagrams = Datagrams(GelfEncoder(INFO), compression, 1).encode(block)
        unpacked = [
            datagram if compression == "none" else gelf_decode.decompress(datagram, 1 << 20)
            for datagram in datagrams
        ]
        assert unpacked == payloads


@given(BLOCKS, st.booleans(), st.sampled_from(["messages", "packed", "compressed", "acknowledged"]))
def test_forward(block: Block, sub_second: bool, mode: str) -> None:
    encoder = ForwardEncoder(INFO, "tag", sub_second)
    if mode == "messages":
        data = encoder.messages(block)
    elif mode == "acknowledged":
        data = b"".join(encoder.acknowledged(block, [f"c{n}" for n in range(block.lines)]))
    else:
        data = encoder.packed(block, "chunk", compressed=mode == "compressed")
    messages = [message for message in ForwardDecoder().feed(data) if isinstance(message, Message)]
    assert [event.record[b"log"] for message in messages for event in message.events] == texts_of(block)
    assert sum(message.malformed for message in messages) == 0
    if block.encoding is not Encoding.JSON_FILE and sub_second and block.first_ns < 2**32 * 10**9:
        assert {event.time_ns for message in messages for event in message.events} == {block.first_ns}


@given(BLOCKS, st.sampled_from(["", "rfc3164", "rfc5424", "rfc5424micro"]), st.booleans())
def test_syslog(block: Block, form: str, counted: bool) -> None:
    encoder = SyslogEncoder("c0ffee", "host", 42, 3, form, counted)
    datagrams = encoder.messages(block)
    filled = [text if counted else text.replace(b"\n", b"#012") for text in texts_of(block) if text]
    assert encoder.empty_lines == len(texts_of(block)) - len(filled)
    assert len(datagrams) == len(filled)
    for datagram, text in zip(datagrams, filled, strict=True):
        assert datagram.endswith(text + b"\n")
        syslog_decode.decode(datagram)
    if counted:
        assert syslog_decode.FrameReader().feed(encoder.frames(block)) == [d.rstrip(b"\n") for d in datagrams]
    else:
        assert encoder.frames(block) == b"".join(datagrams)


@given(BLOCKS)
def test_journald(block: Block) -> None:
    entries = [decode_entry(entry) for entry in JournaldEncoder(INFO).entries(block)]
    assert [entry["MESSAGE"] for entry in entries] == texts_of(block)
    assert [int(entry["CONTAINER_LOG_ORDINAL"]) for entry in entries] == list(range(1, len(entries) + 1))


@given(BLOCKS)
def test_json_file(block: Block) -> None:
    if block.encoding is Encoding.JSON_FILE:
        return
    data = json_file.Encoder({"tag": "t"}).encode(block)
    records = json_file.decode(data)
    newline = b"" if block.partial is not None and not block.partial.last else b"\n"
    assert [record.log for record in records] == [as_text(t).encode() + newline for t in texts_of(block)]
    assert {(record.time_ns, record.stream) for record in records} == {(block.first_ns, block.stream)}
    assert json_file.count_records(data) == len(records) == block.lines


@given(BLOCKS)
def test_local(block: Block) -> None:
    data = LocalEncoder().encode(block)
    assert [record.line for record in local.decode(data)] == texts_of(block)
    records = LocalRecords()
    assert (records.whole(data), records.count(data)) == (len(data), block.lines)
    assert b"".join(made.data for _, made in records.blocks(data)) == b"".join(
        text + (b"" if block.partial is not None else b"\n") for text in texts_of(block)
    )


@given(st.lists(BLOCKS, min_size=1, max_size=5), st.integers(0, 2**40), st.integers(0, 2**62))
def test_segments(blocks: list[Block], line: int, high_ns: int) -> None:
    compressor, decompressor = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()
    data = b"".join(encode_frame(b, Mark(n, n), line, n, high_ns, compressor) for n, b in enumerate(blocks))
    found = list(frames(data, 0, sealed=True))
    assert [block_of(frame, data, decompressor) for frame in found] == blocks
    assert {frame.first_line for frame in found} == {line}


# --- any bytes are taken, or refused in words --------------------------------------------------------------


def _gelf_stream(data: bytes) -> None:
    reader = gelf_decode.NulFrames(1 << 16)
    for payload in [*reader.feed(data), reader.take()]:
        _allowed(gelf_decode.GelfError, lambda payload=payload: gelf_decode.decode(payload))  # type: ignore[misc]


def _gelf_datagram(data: bytes) -> None:
    chunks = gelf_decode.ChunkAssembler()
    payload = chunks.add(b"\x1e\x0f" + data, "sender", 0.0)
    chunks.expire(100.0)
    assert chunks.pending_bytes == 0
    gelf_decode.decode(gelf_decode.decompress(data if payload is None else payload, 1 << 16))


def _forward(data: bytes) -> None:
    decoder = ForwardDecoder(1 << 16)
    list(decoder.feed(data))
    assert decoder.pending_bytes <= len(data)


def _syslog(data: bytes) -> None:
    reader = syslog_decode.FrameReader(1 << 16)
    for message in reader.feed(data) + reader.end():
        _allowed(ValueError, lambda message=message: syslog_decode.decode(message))  # type: ignore[misc]


def _json_file(data: bytes) -> None:
    bad: list[bytes] = []
    for record in json_file.decode(data, bad):
        record.log.decode()
        orjson.dumps(record.attrs)
    json_file.count_records(data)


def _local(data: bytes) -> None:
    records = LocalRecords()
    whole = data[: records.whole(data)]
    found = list(local.decode(data))
    assert len(found) == records.count(data)
    assert sum(size for size, _ in records.blocks(whole)) == len(whole)
    records.time_range(whole)
    records.source_bytes(whole)


def _segments(data: bytes) -> None:
    SegmentHeader.parse(data)
    decompressor = zstandard.ZstdDecompressor()
    for sealed in (False, True):
        for frame in frames(data, 0, sealed):
            block_of(frame, data, decompressor)


def _plugin(data: bytes) -> None:
    plugin_frames.decode(data)


def _allowed(refusal: type[Exception], decode: Callable[[], object]) -> None:
    with contextlib.suppress(refusal):
        decode()


DECODERS: dict[str, tuple[Callable[[bytes], object], type[Exception], Callable[[Block], bytes]]] = {
    "gelf stream": (_gelf_stream, gelf_decode.GelfError, lambda b: GelfEncoder(INFO).frames(b)),
    "gelf datagram": (
        _gelf_datagram,
        gelf_decode.GelfError,
        lambda b: b"".join(Datagrams(GelfEncoder(INFO), "gzip", 1).encode(b)[:1]) or chunk(b"x" * 20_000)[0],
    ),
    "forward": (_forward, DecodeError, lambda b: ForwardEncoder(INFO, "tag").messages(b)),
    "forward packed": (
        _forward,
        DecodeError,
        lambda b: ForwardEncoder(INFO, "t").packed(b, "c", compressed=True),
    ),
    "syslog": (_syslog, ValueError, lambda b: SyslogEncoder("t", "h", 1).frames(b)),
    "syslog counted": (
        _syslog,
        ValueError,
        lambda b: SyslogEncoder("t", "h", 1, 3, "rfc5424micro", True).frames(b),
    ),
    "journald": (
        decode_entry,
        ValueError,
        lambda b: JournaldEncoder(INFO).entries(b)[0],
    ),
    "json-file": (
        _json_file,
        ValueError,
        lambda b: b.data if b.encoding is Encoding.JSON_FILE else json_file.Encoder({"a": "b"}).encode(b),
    ),
    "local": (_local, ValueError, lambda b: LocalEncoder({"a": "b"}).encode(b)),
    "segments": (
        _segments,
        ValueError,
        lambda b: encode_frame(b, Mark(1, 2), 3, 4, 5, zstandard.ZstdCompressor(level=1)),
    ),
    "plugin": (
        _plugin,
        plugin_frames.FrameError,
        lambda b: plugin_frames.encode(b.stream, b.first_ns, texts_of(b)[0], b.partial),
    ),
}


@pytest.mark.parametrize("name", DECODERS)
@given(st.binary(max_size=400))
def test_any_bytes(name: str, data: bytes) -> None:
    decode, refusal, _ = DECODERS[name]
    _allowed(refusal, lambda: decode(data))


@pytest.mark.parametrize("name", DECODERS)
@given(block=BLOCKS, data=st.data())
@settings(max_examples=200)
def test_damaged_bytes(name: str, block: Block, data: st.DataObject) -> None:
    decode, refusal, encode = DECODERS[name]
    damaged = bytearray(encode(block))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        kind = data.draw(st.sampled_from(["cut", "change", "insert", "remove", "repeat"]))
        if kind == "cut":
            del damaged[at:]
        elif kind == "change":
            damaged[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
        elif kind == "insert":
            damaged[at:at] = data.draw(st.binary(min_size=1, max_size=6))
        elif kind == "remove":
            del damaged[at : at + data.draw(st.integers(1, 8))]
        else:
            damaged[at:at] = damaged[max(0, at - 20) : at]
    _allowed(refusal, lambda: decode(bytes(damaged)))


@pytest.mark.parametrize("name", ["gelf stream", "gelf datagram", "forward", "json-file"])
@pytest.mark.parametrize("text", [b"[", b'{"a":', b"\x91", b"\x81\xa1a", b'{"log":"x","attrs":['])
def test_what_is_nested_beyond_reason(name: str, text: bytes) -> None:
    decode, refusal, _ = DECODERS[name]
    _allowed(refusal, lambda: decode(text * 12_000))
    _allowed(refusal, lambda: decode(text * 12_000 + b"\n"))


@pytest.mark.parametrize("text", [b'"\\ud800"', b'{"\\udc00":1}', b"[[]]", b'"\\ud83d\\ude00"'])
def test_attributes_that_json_can_say_and_utf_8_cannot(text: bytes) -> None:
    time = b'"time":"2026-11-20T19:43:32Z"'
    _json_file(b'{"log":"x\\n","stream":"stdout","attrs":{"a":%s},%s}' % (text, time))
    _json_file(b'{"log":"x\\n","stream":"stdout","attrs":{%s:"b"},%s}' % (text, time))
    _json_file(b'{"log":"x\\n","attrs":{"\\ud800":"b"},%s,"stream":"stdout"}' % time)
