"""Syslog messages: whole blocks to bytes and back, other senders' liberties, and streams cut anywhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file, syslog
from logdrivers.codecs.syslog import FORMATS, SyslogEncoder
from logdrivers.codecs.syslog_decode import FrameReader, SyslogMessage, decode

NS = 1_795_203_851_793_023_000  # 2026-11-20 19:44:11.793023 UTC


@pytest.fixture(autouse=True)
def zone() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "XXX-05:30"  # 5:30 h ahead of UTC
    set_zone()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    set_zone()


def set_zone() -> None:
    time.tzset()
    syslog._stamp.cache_clear()
    syslog._rfc3339.cache_clear()


def lines(data: bytes, stream: Stream = Stream.STDOUT, time_ns: int = NS) -> Block:
    return Block(data, Encoding.LINES, stream, time_ns, time_ns, data.count(b"\n"))


def encoder(form: str = "", octet_counted: bool = False) -> SyslogEncoder:
    return SyslogEncoder("c0ffee", "host-7", 42, 3, form, octet_counted)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("", b"<30>Nov 21 01:14:11 c0ffee[42]: a b\r\n"),
        ("rfc3164", b"<30>Nov 21 01:14:11 host-7 c0ffee[42]: a b\r\n"),
        ("rfc5424", b"<30>1 2026-11-21T01:14:11+05:30 host-7 c0ffee 42 c0ffee - a b\r\n"),
        ("rfc5424micro", b"<30>1 2026-11-21T01:14:11.793023+05:30 host-7 c0ffee 42 c0ffee - a b\r\n"),
    ],
)
def test_the_four_formats(form: str, message: bytes) -> None:
    assert encoder(form).messages(lines(b"a b\r\n")) == [message]
    assert encoder(form).messages(lines(b"a b\r\n", Stream.STDERR)) == [message.replace(b"<30>", b"<27>")]
    assert encoder(form).frames(lines(b"a b\r\na b\r\n")) == 2 * message
    assert encoder(form, True).frames(lines(b"a b\r\na b\r\n")) == 2 * (b"%d %s" % (len(message), message))


def test_a_day_of_one_digit_is_padded_with_a_blank() -> None:
    assert (
        encoder()
        .messages(lines(b"x\n", time_ns=NS - 12 * 86400 * 10**9))[0]
        .startswith(b"<30>Nov  9 01:14:11 ")
    )


def test_lines_without_text_are_left_out_and_counted() -> None:
    out = encoder()
    assert out.frames(lines(b"\na\n\n\nb\n")) == b"".join(encoder().messages(lines(b"a\nb\n")))
    assert out.empty_lines == 3
    assert out.frames(lines(b"\n\n")) == b""
    assert out.empty_lines == 5


def test_pieces_are_messages_of_their_own() -> None:
    block = Block(b"piece", Encoding.LINES, Stream.STDOUT, NS, NS, 1, Partial("f" * 64, 1, False))
    assert encoder().messages(block) == encoder().messages(lines(b"piece\n"))


def test_json_file_records_give_the_same_messages() -> None:
    blocks = [lines(b'a "q"\n\nb\n'), lines(b"\xff err\n", Stream.STDERR), lines(b"c\n", time_ns=NS + 10**9)]
    data = b"".join(json_file.Encoder().encode(block) for block in blocks)
    records = Block(data, Encoding.JSON_FILE, Stream.MIXED, NS, NS + 10**9, 5)
    expected = [message for block in blocks for message in encoder("rfc5424micro").messages(block)]
    assert encoder("rfc5424micro").messages(records) == [
        m.replace(b"\xff", "\ufffd".encode()) for m in expected
    ]


TEXTS = st.binary(min_size=1, max_size=60).map(lambda b: b.replace(b"\n", b" ").replace(b"\0", b"."))


@given(st.lists(TEXTS, min_size=1, max_size=20), st.sampled_from(FORMATS), st.booleans(), st.integers(1, 70))
def test_what_is_encoded_is_decoded(texts: list[bytes], form: str, counted: bool, cut: int) -> None:
    data = encoder(form, counted).frames(lines(b"".join(text + b"\n" for text in texts)))
    reader = FrameReader()
    frames = [m for at in range(0, len(data), cut) for m in reader.feed(data[at : at + cut])]
    assert reader.end() == []
    found = [decode(frame, NS) for frame in frames]
    # A BOM at the start of an RFC 5424 text belongs to its encoding.
    bom = b"\xef\xbb\xbf" if form.startswith("rfc5424") else b""
    assert [message.text for message in found] == [text.removeprefix(bom) for text in texts]
    for message in found:
        assert (message.facility, message.severity, message.app, message.process) == (3, 6, "c0ffee", "42")
        assert message.host == ("host-7" if form else "")
        assert message.time_ns == (NS if form == "rfc5424micro" else NS - NS % 10**9)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"<13>just text", SyslogMessage(1, 5, b"just text")),
        (b"<0>", SyslogMessage(0, 0, b"")),
        (b"<34>Oct 11 22:14:15 mymachine su: failed\n", SyslogMessage(4, 2, b"failed", -1, "mymachine", "su")),
        (b"<34>Oct 11 22:14:15 mymachine no tag here", SyslogMessage(4, 2, b"no tag here", -1, "mymachine")),
        (b"<30>Nov  2 08:00:00 app[7]: x: y", SyslogMessage(3, 6, b"x: y", -1, "", "app", "7")),
        (
            b"<30>2026-11-20T19:44:11.5+00:00 h app: x",
            SyslogMessage(3, 6, b"x", 1_795_203_851_500_000_000, "h", "app"),
        ),
        (
            b'<165>1 2003-10-11T22:14:15.003Z m.example.com evntslog - ID47 '
            b'[a@1 iut="3" q="\\"\\]\\\\"][b x=""] \xef\xbb\xbfAn event',
            SyslogMessage(
                20, 5, b"An event", 1_065_910_455_003_000_000, "m.example.com", "evntslog", "", "ID47",
                {"a@1": {"iut": "3", "q": '"]\\'}, "b": {"x": ""}},
            ),
        ),
        (b"<165>1 - - - - - -", SyslogMessage(20, 5, b"")),
        (b"<13>1 is no version here", SyslogMessage(1, 5, b"1 is no version here")),
    ],
)  # fmt: skip
def test_messages_of_others(raw: bytes, expected: SyslogMessage) -> None:
    found = decode(raw, NS)
    fields = ("facility", "severity", "text", "host", "app", "process", "message_id", "data")
    assert [getattr(found, f) for f in fields] == [getattr(expected, f) for f in fields]
    assert found.time_ns == expected.time_ns if expected.time_ns >= 0 else found.time_ns > 0


def test_a_time_without_a_year_is_the_last_one() -> None:
    new_year = 1_798_750_000 * 10**9  # 2027-01-01 in this zone
    assert decode(b"<13>Dec 31 23:59:59 h a: x", new_year).time_ns < new_year
    assert time.localtime(decode(b"<13>Dec 31 23:59:59 h a: x", new_year).time_ns // 10**9).tm_year == 2026
    assert time.localtime(decode(b"<13>Jan  1 00:00:00 h a: x", new_year).time_ns // 10**9).tm_year == 2027


@pytest.mark.parametrize("raw", [b"", b"text", b"<>x", b"<192>x", b"<1234>x", b"< 1>x"])
def test_what_has_no_priority_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a syslog message: expected <0> to <191>"):
        decode(raw)


@given(st.binary(max_size=200))
def test_any_bytes_behind_a_priority_are_a_message(data: bytes) -> None:
    assert decode(b"<13>" + data, NS).severity == 5


@pytest.mark.parametrize("data", [b"12x<13>a", b"99999999999 <", b"3000000 <", b"12345678901"])
def test_a_length_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="expected a length"):
        FrameReader().feed(data)


def test_a_stream_may_end_a_line_but_not_a_counted_frame() -> None:
    reader = FrameReader()
    assert reader.feed(b"<13>a\n\n<13>b\0<13>c") == [b"<13>a", b"<13>b"]
    assert reader.end() == [b"<13>c"]
    assert reader.feed(b"10 <13>abc") == []
    with pytest.raises(ValueError, match="ended inside a counted frame"):
        reader.end()
    with pytest.raises(ValueError, match="more than 5 bytes without a newline"):
        FrameReader(5).feed(b"<13>abcdef")
