"""json-file records against a slow oracle, byte by byte, and against records a real Engine wrote."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file
from logdrivers.codecs.json_file import Encoder, Record

#: Written by Docker Engine 20.10.24 with --log-opt labels=l1 env=E1 tag=jf/{{.ID}}/{{.ImageName}}.
GOLDEN = (
    b'{"log":"plain \\u003c\\u0026\\u003e \\"q\\" tab\\u0009end\\n","stream":"stdout",'
    b'"attrs":{"E1":"x","l1":"a\\u003cb","tag":"jf/9080e70bd84a/bb:1"},'
    b'"time":"2026-11-20T19:43:32.00302672Z"}\n'
)
GOLDEN_NS = int(datetime(2026, 11, 20, 19, 43, 32, tzinfo=UTC).timestamp()) * 10**9 + 3026720


def lines_block(data: bytes, time_ns: int = GOLDEN_NS, stream: Stream = Stream.STDOUT) -> Block:
    return Block(data, Encoding.LINES, stream, time_ns, time_ns, data.count(b"\n"))


def oracle_escape(data: bytes) -> bytes:
    """One character after the other, as Docker's source describes it."""
    out = []
    at = 0
    while at < len(data):
        for length in (1, 2, 3, 4):
            piece = data[at : at + length]
            try:
                char = piece.decode()
                break
            except UnicodeDecodeError:
                continue
        else:
            out.append(b"\\ufffd")
            at += 1
            continue
        at += len(piece)
        if char in '"\\':
            out.append(b"\\" + piece)
        elif char in "\n\r":
            out.append({"\n": b"\\n", "\r": b"\\r"}[char])
        elif char < " " or char in "<>&\u2028\u2029":
            out.append(b"\\u%04x" % ord(char))
        else:
            out.append(piece)
    return b"".join(out)


def oracle_encode(block: Block, attrs: dict[str, str]) -> bytes:
    time = json_file.format_time(block.first_ns)
    middle = b'","stream":"' + block.stream.text.encode() + b'",'
    if attrs:
        inner = [
            b'"%s":"%s"' % (oracle_escape(k.encode()), oracle_escape(v.encode()))
            for k, v in sorted(attrs.items(), key=lambda item: item[0].encode())
        ]
        middle += b'"attrs":{' + b",".join(inner) + b"},"
    return b"".join(
        b'{"log":"' + oracle_escape(line + b"\n") + middle + b'"time":"' + time + b'"}\n'
        for line in block.data.split(b"\n")[:-1]
    )


nasty = st.sampled_from(
    [bytes([c]) for c in b'"\\\t\b\f\r\x00\x1b\x7f<>&?~^']
    + [
        text.encode()
        for text in ("\\n", "\\t", "\\u0009", "\u2028", "\u2029", "\ufffd", "é世😀", "plain text")
    ]
    + [
        b"\x80",
        b"\xff",
        b"\xe2\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\xaf",
        b'","stream":"stderr',
    ]
)
line = st.lists(
    nasty | st.binary(max_size=8) | st.text(max_size=8).map(lambda t: t.encode("utf-8", "replace"))
)
lines = st.lists(
    line.map(lambda parts: b"".join(parts).replace(b"\n", b"") + b"\n"), min_size=1, max_size=6
).map(b"".join)
attributes = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t"), max_size=6)
    | st.just("stream"),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t"), max_size=6),
    max_size=3,
)
times = st.integers(0, 4_000_000_000 * 10**9) | st.integers(0, 4_000_000_000).map(lambda s: s * 10**9)


def test_the_golden_record_is_written_byte_for_byte() -> None:
    encoder = Encoder({"tag": "jf/9080e70bd84a/bb:1", "l1": "a<b", "E1": "x"})
    assert encoder.encode(lines_block(b'plain <&> "q" tab\tend\n')) == GOLDEN


@settings(max_examples=400)
@given(lines, attributes, times)
def test_encoding_a_block_equals_encoding_its_lines(data: bytes, attrs: dict[str, str], time_ns: int) -> None:
    block = lines_block(data, time_ns, Stream.STDERR)
    assert Encoder(attrs).encode(block) == oracle_encode(block, attrs)


@given(lines)
def test_every_marker_present_still_escapes_right(data: bytes) -> None:
    data = bytes(range(0x0B, 0x80)) + data
    block = lines_block(data)
    assert Encoder().encode(block) == oracle_encode(block, {})


@given(lines, attributes, times)
def test_records_come_back(data: bytes, attrs: dict[str, str], time_ns: int) -> None:
    encoded = Encoder(attrs).encode(lines_block(data, time_ns))
    records = json_file.decode(encoded)
    expected = [json.loads(row) for row in encoded.decode().split("\n")[:-1]]
    assert [record.log.decode() for record in records] == [row["log"] for row in expected]
    assert all(
        record.time_ns == time_ns and record.stream is Stream.STDOUT and dict(record.attrs) == attrs
        for record in records
    )
    assert json_file.messages(encoded) == [oracle_escape(row + b"\n") for row in data.split(b"\n")[:-1]]
    assert json_file.time_range(encoded) == (time_ns, time_ns)
    assert json_file.first_time(encoded) == json_file.last_time(encoded) == time_ns
    assert json_file.count_records(encoded) == data.count(b"\n")


@given(st.binary(max_size=60))
def test_a_needle_is_found_in_what_holds_it(needle: bytes) -> None:
    whole = b"a " + needle.decode("utf-8", "ignore").encode() + b" b"
    assert json_file.escape(needle.decode("utf-8", "ignore")) in json_file.escape(whole)
    assert json_file.unescape(json_file.escape(whole)) == whole


@pytest.mark.parametrize(
    ("partial", "newline"),
    [(Partial("0" * 64, 1, False), b""), (Partial("0" * 64, 2, True), b"\\n")],
)
def test_a_piece_has_a_newline_only_if_it_is_the_last(partial: Partial, newline: bytes) -> None:
    block = Block(b'pie"ce', Encoding.LINES, Stream.STDOUT, GOLDEN_NS, GOLDEN_NS, 1, partial)
    encoded = Encoder().encode(block)
    assert encoded.startswith(b'{"log":"pie\\"ce' + newline + b'","stream":"stdout","time":')
    assert json_file.decode(encoded)[0].log == b'pie"ce' + (b"\n" if newline else b"")


def test_attributes_are_escaped_the_way_go_escapes_maps() -> None:
    encoded = Encoder({"b": "x\ty\x01", "a": "é\n"}).encode(lines_block(b"\n"))
    assert b'"attrs":{"a":"\xc3\xa9\\n","b":"x\\ty\\u0001"}' in encoded


def test_undecodable_environment_becomes_the_replacement_character() -> None:
    assert b'"attrs":{"a":"\\ufffdx"}' in Encoder({"a": "\udcffx"}).encode(lines_block(b"\n"))


def test_a_block_that_is_not_what_it_says_is_refused() -> None:
    with pytest.raises(ValueError, match="does not end in a newline"):
        Encoder().encode(Block(b"a\nb", Encoding.LINES, Stream.STDOUT, 0, 0, 2))
    for data in (b"a\nb\n", b'"a"\nb\n'):
        with pytest.raises(ValueError, match="block of 3 lines holds 2"):
            Encoder().encode(Block(data, Encoding.LINES, Stream.STDOUT, 0, 0, 3))


def test_records_of_other_writers_are_read() -> None:
    rows = (
        b'{"time":"2026-11-20T21:43:32.00302672+02:00","stream":"stderr","log":"a\\tb\\n"}\n'
        b'{ "log": "spaced\\n", "stream": "stdout", "time": "2026-11-20T19:43:32Z", "attrs": {"n": 1} }\n'
        b'{"log":"lone \\ud800\\n","stream":"stdout","time":"2026-11-20T19:43:32Z"}\n'
    )
    records = json_file.decode(rows)
    assert records[0] == Record(GOLDEN_NS, Stream.STDERR, b"a\tb\n", {})
    assert records[1] == Record(GOLDEN_NS - 3026720, Stream.STDOUT, b"spaced\n", {"n": "1"})
    assert records[2].log == "lone \ufffd\n".encode()
    assert json_file.messages(rows) == [b"a\\u0009b\\n", b"spaced\\n", b"lone \\ud800\\n"]
    assert json_file.time_range(rows) == (GOLDEN_NS - 3026720, GOLDEN_NS)
    assert json_file.streams(rows) is Stream.MIXED


def test_broken_lines_are_handed_back_or_named() -> None:
    broken = [GOLDEN[:50], b"\x00" * 40, b"[]", b'{"log":"x","stream":"stdout"}']
    bad: list[bytes] = []
    data = GOLDEN + b"".join(row + b"\n" + GOLDEN for row in broken)
    records = json_file.decode(data, bad)
    assert bad == broken
    assert [record.time_ns for record in records] == [GOLDEN_NS] * 5
    with pytest.raises(ValueError, match="not a json-file record"):
        json_file.decode(data)


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, b"1970-01-01T00:00:00Z"),
        (GOLDEN_NS, b"2026-11-20T19:43:32.00302672Z"),
        (1, b"1970-01-01T00:00:00.000000001Z"),
        (10**9 + 500_000_000, b"1970-01-01T00:00:01.5Z"),
        (-1, b"1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_times_are_rfc3339_with_trailing_zeros_cut(time_ns: int, text: bytes) -> None:
    assert json_file.format_time(time_ns) == text
    assert json_file.parse_time(text) == time_ns


@pytest.mark.parametrize(
    "text", [b"", b"2026-11-20 19:43:32Z", b"2026-11-20T19:43:32", b"2026-13-20T19:43:32Z"]
)
def test_what_is_no_time_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 the message is datetime's for a month of 13
        json_file.parse_time(text)


def test_streams_tells_blocks_of_one_stream() -> None:
    out = Encoder().encode(lines_block(b"a\nb\n"))
    err = Encoder().encode(lines_block(b"a\n", stream=Stream.STDERR))
    assert json_file.streams(out) is Stream.STDOUT
    assert json_file.streams(err) is Stream.STDERR
    assert json_file.streams(out + err) is Stream.MIXED


@given(
    st.lists(
        st.text(st.characters(codec="utf-8"), max_size=20)
        | st.sampled_from(["\\u2028", "\\\\u", "\u2029\\", "<>&"])
    )
)
def test_the_bytes_behind_records_are_counted_without_decoding(texts: list[str]) -> None:
    data = b"".join(text.replace("\n", "").encode() + b"\n" for text in texts)
    if data:
        assert json_file.source_bytes(Encoder().encode(lines_block(data))) == len(data)
