"""Forward, both directions: Docker's messages, and every mode of the protocol to events."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file
from logdrivers.codecs.forward import ForwardEncoder, ack
from logdrivers.codecs.forward_decode import DecodeError, Event, ForwardDecoder, Handshake, Message
from logdrivers.driver import Info
from logdrivers.tag import render_tag

TIME = 1_795_203_851_793_123_456


def info(**labels: str) -> Info:
    return Info(
        "0123456789abcdef" * 4,
        "/web",
        "sha256:" + "fe" * 32,
        "shop/web",
        ("sh",),
        0,
        Path("/nonexistent"),
        {"labels": ",".join(labels)},
        labels,
    )


def lines(*texts: bytes, time_ns: int = TIME) -> Block:
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.LINES, Stream.STDOUT, time_ns, time_ns, len(texts))


def unpack(data: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=1 << 30)
    unpacker.feed(data)
    return list(unpacker)


# --- encoding ---


@pytest.mark.parametrize("name", ["forward", "forward-sub-second"])
def test_every_message_is_dockers_but_for_the_order_of_keys(captures: Any, name: str) -> None:
    about = captures.container(name)
    encoder = ForwardEncoder(about, render_tag(about.options["tag"], about), name == "forward-sub-second")
    stream, theirs = captures.stream(name), msgpack.Unpacker(raw=True)
    theirs.feed(stream)
    by_text = {(s.encode(), text): partial for s, text, partial in captures.written}
    end = 0
    for message in theirs:
        start, end = end, theirs.tell()
        record = message[2]
        time_ns = (
            message[1] * 10**9
            if isinstance(message[1], int)
            else int.from_bytes(message[1].data[:4], "big") * 10**9
            + int.from_bytes(message[1].data[4:], "big")
        )
        text = record[b"log"]
        partial = by_text.pop((record[b"source"], text))
        block = Block(
            text if partial else text + b"\n",
            Encoding.LINES,
            Stream[record[b"source"].decode().upper()],
            time_ns,
            time_ns,
            1,
            Partial(record[b"partial_id"].decode(), *partial) if partial else None,
        )
        ours = encoder.messages(block)
        assert unpack(ours) == [message]
        # The same forms of every value, too: equal in length and up to the record.
        assert len(ours) == end - start
        head = ours.index(b"\xd2" if name == "forward" else b"\xd7\x00") + 5
        assert ours[:head] == stream[start : start + head]
        assert ours[-1:] == stream[end - 1 : end] == b"\x80"
    assert not by_text


@given(st.lists(st.binary(max_size=80).map(lambda b: b.replace(b"\n", b"")), max_size=10), st.booleans())
def test_each_line_is_one_message_with_its_bytes(texts: list[bytes], sub_second: bool) -> None:
    encoder = ForwardEncoder(info(), "a.tag", sub_second)
    messages = unpack(encoder.messages(lines(*texts)))
    assert [m[2][b"log"] for m in messages] == texts
    assert all(m[0] == b"a.tag" and m[3] == {} for m in messages)
    (packed,) = unpack(encoder.packed(lines(*texts), "chunk=="))
    assert packed[0] == b"a.tag"
    assert packed[2] == {b"chunk": b"chunk==", b"size": len(texts)}
    assert [[m[1], m[2]] for m in messages] == unpack(packed[1])


@pytest.mark.parametrize("length", [0, 31, 32, 255, 256, 4095, 4096, 65535, 65536])
def test_lines_of_every_length_have_the_shortest_header(length: int) -> None:
    text = b"x" * length
    out = ForwardEncoder(info(), "t").messages(lines(text))
    assert out.endswith(b"\xa3log" + msgpack.packb("x" * length) + b"\x80")


def test_more_than_fifteen_fields_fit() -> None:
    labels = {f"label{i}": str(i) for i in range(20)}
    (message,) = unpack(ForwardEncoder(info(**labels), "t").messages(lines(b"x")))
    assert {k.decode(): v.decode() for k, v in message[2].items()}.items() >= labels.items()


def test_labels_replace_dockers_own_fields_but_never_the_line() -> None:
    (message,) = unpack(ForwardEncoder(info(log="gone", source="mine"), "t").messages(lines(b"line")))
    assert (message[2][b"log"], message[2][b"source"]) == (b"line", b"mine")
    assert len(message[2]) == 4


@pytest.mark.parametrize("seconds", [-40_000, -1, 0, 127, 128, 40_000, 2**31 - 1, 2**31])
def test_times_take_gos_signed_forms(seconds: int) -> None:
    out = ForwardEncoder(info(), "t").messages(lines(b"x", time_ns=seconds * 10**9))
    assert unpack(out)[0][1] == seconds
    assert out[3] not in (0xCC, 0xCD, 0xCE, 0xCF)


@given(st.lists(st.text(max_size=20).map(lambda t: t.replace("\n", "").encode()), min_size=1, max_size=5))
def test_records_of_a_json_file_say_the_same_as_lines(texts: list[bytes]) -> None:
    encoder = ForwardEncoder(info(), "t", sub_second=True)
    data = json_file.Encoder().encode(lines(*texts))
    records = Block(data, Encoding.JSON_FILE, Stream.STDOUT, TIME, TIME, len(texts))
    assert encoder.messages(records) == encoder.messages(lines(*texts))


def test_an_open_record_is_marked_as_partial() -> None:
    data = b'{"log":"open","stream":"stderr","time":"2026-11-20T19:44:11.793Z"}\n'
    block = Block(data, Encoding.JSON_FILE, Stream.STDERR, TIME, TIME, 1)
    (message,) = unpack(ForwardEncoder(info(), "t").messages(block))
    assert (message[2][b"log"], message[2][b"source"], message[2][b"partial_message"]) == (
        b"open",
        b"stderr",
        b"true",
    )


# --- decoding ---

SECONDS = 1_795_203_851
EVENT_TIME = msgpack.ExtType(0, SECONDS.to_bytes(4, "big") + (5).to_bytes(4, "big"))


def decoded(data: bytes, **limits: int) -> list[Message | Handshake]:
    return list(ForwardDecoder(**limits).feed(data))


def packed(*entries: object) -> bytes:
    return b"".join(msgpack.packb(entry) for entry in entries)


ENTRIES: tuple[list[object], ...] = ([SECONDS, {"log": "one"}], [EVENT_TIME, {"log": "two"}])
EVENTS = (
    Event(SECONDS * 10**9, {b"log": b"one"}),
    Event(SECONDS * 10**9 + 5, {b"log": b"two"}),
)
MODES: dict[str, tuple[bytes, Message]] = {
    "message": (msgpack.packb(["t", SECONDS, {"log": "one"}]), Message("t", EVENTS[:1])),
    "message with option": (
        msgpack.packb(["t", EVENT_TIME, {"log": "two"}, {"chunk": "c"}]),
        Message("t", EVENTS[1:], b"c"),
    ),
    "forward": (msgpack.packb(["t", list(ENTRIES)]), Message("t", list(EVENTS))),
    "forward with nil option": (msgpack.packb(["t", list(ENTRIES), None]), Message("t", list(EVENTS))),
    "packed": (
        msgpack.packb(["t", packed(*ENTRIES), {"chunk": "c", "size": 2}]),
        Message("t", list(EVENTS), b"c"),
    ),
    "packed as str": (msgpack.packb(["t", packed(*ENTRIES)], use_bin_type=False), Message("t", list(EVENTS))),
    "gzip": (
        msgpack.packb(["t", gzip.compress(packed(*ENTRIES)), {"compressed": "gzip", "chunk": "c"}]),
        Message("t", list(EVENTS), b"c"),
    ),
    "gzip, a member an entry": (
        msgpack.packb(["t", b"".join(gzip.compress(packed(e)) for e in ENTRIES), {"compressed": "gzip"}]),
        Message("t", list(EVENTS)),
    ),
    "zstd": (
        msgpack.packb(["t", zstandard.compress(packed(*ENTRIES)), {"compressed": "zstd"}]),
        Message("t", list(EVENTS)),
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: str) -> None:
    data, message = MODES[mode]
    assert decoded(data) == [message]


def test_all_modes_in_one_stream_cut_anywhere() -> None:
    stream = b"".join(data for data, _ in MODES.values())
    expected = [message for _, message in MODES.values()]
    for size in (1, 7, len(stream)):
        decoder = ForwardDecoder()
        found: list[Message | Handshake] = []
        for start in range(0, len(stream), size):
            found += decoder.feed(stream[start : start + size])
        assert found == expected
        assert decoder.pending_bytes == 0


def test_the_bytes_of_an_unfinished_message_are_known() -> None:
    data, message = MODES["forward"]
    decoder = ForwardDecoder()
    assert list(decoder.feed(data + data[:-3])) == [message]
    assert decoder.pending_bytes == len(data) - 3


def test_json_beside_messagepack_told_by_the_first_byte() -> None:
    texts = [
        json.dumps(["t", SECONDS, {"log": "é"}], ensure_ascii=False),
        json.dumps(["t", [[SECONDS, {"log": "b"}]], {"chunk": "c"}]),
        json.dumps(["t", SECONDS, {"log": '"]}[{\\', "\\\\": [[], {}, ["]"]]}]),
    ]
    stream = "\n".join(texts).encode()
    for size in (1, 5, len(stream)):
        decoder = ForwardDecoder()
        found: list[Message | Handshake] = []
        for start in range(0, len(stream), size):
            found += decoder.feed(stream[start : start + size])
        assert found == [
            Message("t", (Event(SECONDS * 10**9, {"log": "é"}),)),
            Message("t", [Event(SECONDS * 10**9, {"log": "b"})], b"c"),
            Message("t", (Event(SECONDS * 10**9, {"log": '"]}[{\\', "\\\\": [[], {}, ["]"]]}),)),
        ]
        assert decoder.pending_bytes == 0


JSON_VALUES = st.recursive(
    st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(JSON_VALUES, max_size=3))
def test_json_texts_are_found_wherever_they_are_cut(logs: list[Any]) -> None:
    stream = b" ".join(json.dumps(["t", SECONDS, {"log": log}]).encode() for log in logs)
    decoder = ForwardDecoder()
    found = [m for at in range(len(stream)) for m in decoder.feed(stream[at : at + 1])]
    assert found == [Message("t", (Event(SECONDS * 10**9, {"log": log}),)) for log in logs]
    assert decoder.pending_bytes == 0


@pytest.mark.parametrize("compressed", ["gzip", "zstd"])
def test_compressed_entries_that_are_cut_off_anywhere_are_refused(compressed: str) -> None:
    compress = gzip.compress if compressed == "gzip" else zstandard.compress
    data = compress(packed(ENTRIES[0])) + compress(packed(ENTRIES[1]))
    whole = {0: [], len(compress(packed(ENTRIES[0]))): EVENTS[:1], len(data): EVENTS}
    for end in range(len(data) + 1):
        message = msgpack.packb(["t", data[:end], {"compressed": compressed}])
        if end in whole:
            assert decoded(message) == [Message("t", list(whole[end]))]
            continue
        with pytest.raises(DecodeError) as caught:
            decoded(message)
        assert caught.value.cause == "malformed"


def test_an_event_time_as_ext8_is_one_too() -> None:
    ext8 = b"\xc7\x08\x00" + EVENT_TIME.data
    assert msgpack.packb(EVENT_TIME) == b"\xd7\x00" + EVENT_TIME.data
    data = b"\x93\xa1t" + ext8 + msgpack.packb({"log": "two"})
    assert decoded(data) == [Message("t", EVENTS[1:])]


@pytest.mark.parametrize(
    ("time", "time_ns"),
    [
        (SECONDS + 0.5, SECONDS * 10**9 + 500_000_000),
        (msgpack.Timestamp(SECONDS, 7), SECONDS * 10**9 + 7),
        (-1, None),
        (None, None),
        (True, None),
        (1 << 60, None),
    ],
)
def test_times_of_any_client(time: object, time_ns: int | None) -> None:
    (message,) = decoded(msgpack.packb(["t", time, {}]))
    assert isinstance(message, Message)
    assert message.events[0].time_ns == time_ns


def test_entries_that_are_none_are_counted() -> None:
    (message,) = decoded(msgpack.packb(["t", [[SECONDS, {"a": 1}], 5, [SECONDS], [SECONDS, "x"]]]))
    assert message == Message("t", [Event(SECONDS * 10**9, {b"a": 1})], None, malformed=3)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (msgpack.packb(5), r"expected \[tag"),
        (msgpack.packb(["t"]), r"expected \[tag"),
        (msgpack.packb([5, SECONDS, {}]), "expected a string, got 5"),
        (msgpack.packb(["t", SECONDS, "x"]), "expected"),
        (msgpack.packb(["t", b"\x92\x01", {}]), "in the middle"),
        (msgpack.packb(["t", b"x", {"compressed": "gzip"}]), "not gzip|cut off"),
        (msgpack.packb(["t", gzip.compress(b"x" * 99)[:-9], {"compressed": "gzip"}]), "cut off|not gzip"),
        (msgpack.packb(["t", b"xxxxxxx", {"compressed": "zstd"}]), "not zstd"),
        (msgpack.packb(["t", b"x", {"compressed": "lz4"}]), "'lz4', expected gzip, zstd or text"),
        (b"\xc1", "not a Forward message"),
        (b"\x91" * 5000, "not a Forward message"),
        (b"GET / HTTP/1.1\r\n\r\n", r"expected \[tag"),
        (b'["t", 1, 2]', "expected"),
        (b'{"t": [1]}', "expected"),
        (b'["t", 1, {}] ]', "has not begun"),
        (b'["t", 1, {}] 5 ["t"]', "not a Forward message"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, what: str) -> None:
    with pytest.raises(DecodeError, match=what) as caught:
        decoded(data)
    assert caught.value.cause == "malformed"


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb(["t", SECONDS, {"log": "x" * 2_000_000}])[:-1],
        msgpack.packb(["t", gzip.compress(b"\0" * 2_000_000), {"compressed": "gzip"}]),
        msgpack.packb(["t", zstandard.compress(b"\0" * 2_000_000), {"compressed": "zstd"}]),
        b"[" + b" " * 2_000_000,
    ],
)
def test_nothing_larger_than_the_limit_is_held_or_unpacked(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decoded(data, max_message_bytes=1_000_000)
    assert caught.value.cause == "message_too_large"


def test_a_stream_longer_than_the_limit_is_no_message_longer_than_it() -> None:
    data = msgpack.packb(["t", SECONDS, {"log": "x" * 900}]) * 3000
    assert len(decoded(data, max_message_bytes=1000)) == 3000


def test_handshakes_are_told_from_messages() -> None:
    (ping,) = decoded(msgpack.packb(["PING", "host", b"salt", "digest", "user", "pass"]))
    assert ping == Handshake("PING", [b"host", b"salt", b"digest", b"user", b"pass"])
    (message,) = decoded(msgpack.packb(["PING", SECONDS, {"log": "x"}]))
    assert isinstance(message, Message)


def test_acknowledgements() -> None:
    assert unpack(ack("c==") + ack(b"d")) == [{b"ack": b"c=="}, {b"ack": b"d"}]
