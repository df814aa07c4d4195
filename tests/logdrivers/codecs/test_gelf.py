"""GELF, both directions: Docker's bytes, and what any sender's messages become."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file
from logdrivers.codecs.gelf import MAX_CHUNKS, Datagrams, GelfEncoder, TooLarge, chunk, escape
from logdrivers.codecs.gelf_decode import ChunkAssembler, GelfError, NulFrames, decode, decompress
from logdrivers.codecs.json_file_timed import TimedEncoder
from logdrivers.driver import Info

TIME = 1_795_203_851_793_123_456


def info(**options: str) -> Info:
    return Info(
        "0123456789abcdef" * 4,
        "/web",
        "sha256:" + "fe" * 32,
        "shop/web",
        ("sh", "-c", 'echo "x"'),
        1_795_203_000_000_000_000,
        Path("/nonexistent"),
        options={name.replace("_", "-"): value for name, value in options.items()},
        labels={"app": "shop", "_team": "blue", "tag": "label"},
        hostname="host-7",
    )


def lines(*texts: bytes, stream: Stream = Stream.STDOUT, time_ns: int = TIME) -> Block:
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.LINES, stream, time_ns, time_ns, len(texts))


def text_lines() -> st.SearchStrategy[list[bytes]]:
    odd = st.sampled_from(
        [b"\t", b"\\", b'"', b"\x7f", b"\\u0009", b"\\n", b"\xff", b"\xe2\x80\xa8", b"<", b"\0"]
    )
    line = st.lists(st.one_of(odd, st.binary(max_size=6), st.text(max_size=6).map(str.encode)), max_size=6)
    return st.lists(line.map(lambda parts: b"".join(parts).replace(b"\n", b"")), min_size=1, max_size=8)


# --- encoding ---


def test_every_message_is_dockers_byte_for_byte(captures: Any) -> None:
    encoder = GelfEncoder(captures.container("gelf"))
    theirs = captures.stream("gelf").split(b"\0")[:-1]
    written = [entry for entry in captures.written if entry[1]]  # Docker skips the empty line
    assert len(theirs) == len(written)
    for message, (stream, text, partial) in zip(theirs, written, strict=True):
        time_ns = round(json.loads(message)["timestamp"] * 1000) * 1_000_000
        block = Block(
            text if partial else text + b"\n",
            Encoding.LINES,
            Stream[stream.upper()],
            time_ns,
            time_ns,
            1,
            Partial("0" * 64, *partial) if partial else None,
        )
        assert encoder.frames(block) == message + b"\0"


@pytest.mark.parametrize(
    ("time_ns", "shown"),
    [
        (1_795_203_851_793_999_999, "1795203851.793"),
        (1_795_203_851_790_000_000, "1795203851.79"),
        (1_795_203_851_000_999_999, "1795203851"),
        (1_795_203_851_001_000_000, "1795203851.001"),
        (0, "0"),
    ],
)
def test_timestamps_are_milliseconds_as_go_prints_floats(time_ns: int, shown: str) -> None:
    (message,) = GelfEncoder(info()).payloads(lines(b"x", time_ns=time_ns))
    assert f'"timestamp":{shown},"level":6'.encode() in message


def test_extras_are_sorted_prefixed_once_and_may_replace_dockers_own() -> None:
    (message,) = GelfEncoder(info(labels="app,_team,tag")).payloads(lines(b"x", stream=Stream.STDERR))
    fields = json.loads(message)
    assert list(fields)[:5] == ["version", "host", "short_message", "timestamp", "level"]
    assert list(fields)[5:] == sorted(list(fields)[5:])
    assert fields["level"] == 3
    assert (fields["_app"], fields["_team"], fields["_tag"]) == ("shop", "blue", "label")
    assert fields["_created"] == "2026-11-20T19:30:00Z"
    assert fields["_command"] == 'sh -c echo "x"'


def test_empty_lines_are_left_out_and_counted() -> None:
    encoder = GelfEncoder(info())
    assert [json.loads(p)["short_message"] for p in encoder.payloads(lines(b"", b"a", b"", b"", b"b"))] == [
        "a",
        "b",
    ]
    assert encoder.empty_lines == 3
    assert encoder.frames(lines(b"")) == b""
    assert encoder.empty_lines == 4


@given(text_lines())
def test_any_bytes_become_json_that_says_the_same(texts: list[bytes]) -> None:
    payloads = GelfEncoder(info()).payloads(lines(*texts))
    expected = [text for text in texts if text]
    assert len(payloads) == len(expected)
    for payload, text in zip(payloads, expected, strict=True):
        said = json.loads(payload)["short_message"]
        assert said == text.decode("utf-8", "surrogateescape").encode("utf-16", "surrogatepass").decode(
            "utf-16", "replace"
        )


@given(text_lines())
def test_frames_are_the_payloads_with_a_nul_behind_each(texts: list[bytes]) -> None:
    encoder = GelfEncoder(info())
    assert encoder.frames(lines(*texts)) == b"".join(p + b"\0" for p in encoder.payloads(lines(*texts)))


@given(text_lines(), st.booleans())
def test_records_of_a_json_file_are_spliced_to_the_same_bytes(texts: list[bytes], with_attrs: bool) -> None:
    encoder = GelfEncoder(info())
    block = lines(*texts, stream=Stream.STDERR)
    data = json_file.Encoder({"a": 'x","stream":"y'} if with_attrs else None).encode(block)
    records = Block(data, Encoding.JSON_FILE, Stream.STDERR, TIME, TIME, len(texts))
    assert encoder.payloads(records) == encoder.payloads(block)


def test_records_of_several_streams_times_and_orders_of_fields() -> None:
    data = (
        b'{"log":"a\\n","stream":"stdout","time":"2026-11-20T19:44:11.793Z"}\n'
        b'{"log":"b\\\\n","stream":"stderr","time":"2026-11-20T19:44:11.793Z"}\n'
        b'{"stream":"stdout","log":"c\\n","time":"2026-11-20T19:44:12Z"}\n'
        b'{"log":"open","stream":"stdout","time":"2026-11-20T19:44:12Z"}\n'
    )
    messages = [
        json.loads(p)
        for p in GelfEncoder(info()).payloads(Block(data, Encoding.JSON_FILE, Stream.MIXED, 0, 0, 4))
    ]
    assert [(m["short_message"], m["level"], m["timestamp"]) for m in messages] == [
        ("a", 6, 1795203851.793),
        ("b\\n", 3, 1795203851.793),
        ("c", 6, 1795203852),
        ("open", 6, 1795203852),
    ]


@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from('a"\\\t<n\u2028\x01{}:,'), max_size=6)
            | st.sampled_from(["", "\\", 'Z"}', '","stream":"stdout","time":"2', '"attrs":']),
            st.sampled_from([Stream.STDOUT, Stream.STDERR]),
            st.integers(0, 3 * 10**9).map(lambda n: TIME + n)
            | st.integers(0, 30).map(lambda n: TIME - TIME % 10**9 + n * 10**8),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_records_with_a_time_each_are_the_messages_of_their_lines(
    rows: list[tuple[str, Stream, int]],
) -> None:
    texts = [text.encode() for text, _, _ in rows]
    streams = np.array([stream for _, stream, _ in rows], np.int64)
    times = [time_ns for _, _, time_ns in rows]
    data = TimedEncoder().encode(texts, streams, np.array(times))
    block = Block(data, Encoding.JSON_FILE, Stream.MIXED, min(times), max(times), len(rows))
    single = [
        Block(text.encode() + b"\n", Encoding.LINES, stream, time_ns, time_ns, 1)
        for text, stream, time_ns in rows
    ]
    together, apart = GelfEncoder(info()), GelfEncoder(info())
    assert together.payloads(block) == [payload for one in single for payload in apart.payloads(one)]
    assert together.frames(block) == b"".join(map(apart.frames, single))
    assert together.empty_lines == apart.empty_lines == 2 * texts.count(b"")


@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=20))
def test_records_that_share_a_millisecond_share_the_rest_of_the_message(steps: list[int]) -> None:
    times = [TIME - TIME % 10**9 + sum(steps[: n + 1]) for n in range(len(steps))]
    streams = np.full(len(times), Stream.STDOUT, np.int64)
    data = TimedEncoder({"at": "1.5"}).encode([b"x"] * len(times), streams, np.array(times))
    encoder = GelfEncoder(info())
    block = Block(data, Encoding.JSON_FILE, Stream.STDOUT, times[0], times[-1], len(times))
    single = [Block(b"x\n", Encoding.LINES, Stream.STDOUT, time_ns, time_ns, 1) for time_ns in times]
    assert encoder.payloads(block) == [payload for one in single for payload in encoder.payloads(one)]
    assert len(list(encoder.groups(block))) <= 1 + (times[-1] - times[0] + 999_999) // 10**6 * 2


@given(text_lines(), st.sampled_from(["gzip", "zlib", "none"]), st.sampled_from([-1, 0, 1, 2, 9]))
def test_datagrams_are_valid_whoever_unpacks_them(texts: list[bytes], compression: str, level: int) -> None:
    encoder = GelfEncoder(info())
    block = lines(*texts, b"long " * 100) if level == 9 else lines(*texts)
    datagrams = Datagrams(encoder, compression, level).encode(block)
    unpack = {"gzip": gzip.decompress, "zlib": zlib.decompress, "none": bytes}[compression]
    assert [unpack(datagram) for datagram in datagrams] == encoder.payloads(block)


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(ValueError, match="'lz4', expected gzip, zlib or none"):
        Datagrams(GelfEncoder(info()), "lz4")


@pytest.mark.parametrize(
    ("size", "chunks"), [(1421, 2), (1408 * 2, 3), (1408 * 2 + 1, 3), (1408 * 127, 128), (180_223, 128)]
)
def test_the_count_of_chunks_is_dockers(size: int, chunks: int) -> None:
    payload = bytes(i % 251 for i in range(size))
    made = chunk(payload, b"12345678")
    assert len(made) == chunks
    assert all(len(c) <= 1420 and c.startswith(b"\x1e\x0f12345678") and c[11] == chunks for c in made)
    assert [c[10] for c in made] == list(range(chunks))
    assert b"".join(c[12:] for c in made) == payload


def test_more_than_128_chunks_are_refused_and_counted() -> None:
    with pytest.raises(TooLarge, match="msg too large, would need 129 chunks"):
        chunk(b"x" * 180_224)
    datagrams = Datagrams(GelfEncoder(info()), "none")
    assert len(datagrams.encode(lines(b"a", b"x" * 200_000, b"b"))) == 2
    assert datagrams.too_large == 1


# --- decoding ---


@given(text_lines(), st.sampled_from(["gzip", "zlib", "none"]))
def test_what_is_encoded_decodes_to_the_same(texts: list[bytes], compression: str) -> None:
    datagrams = Datagrams(GelfEncoder(info(labels="app")), compression).encode(lines(*texts))
    messages = [decode(decompress(datagram, 1 << 20)) for datagram in datagrams]
    expected = [json_file.unescape(escape(text)).decode() for text in texts if text]
    assert [message.text for message in messages] == expected
    for message in messages:
        assert (message.host, message.level, message.time_ns) == ("host-7", 6, TIME // 1_000_000 * 1_000_000)
        assert message.fields["container_id"] == "0123456789abcdef" * 4
        assert message.fields["app"] == "shop"


def test_the_longer_of_both_messages_is_the_text() -> None:
    assert decode(b'{"short_message":"s","full_message":"s\\nand more"}').text == "s\nand more"
    assert decode(b'{"short_message":"short","full_message":"f"}').text == "short"
    assert decode(b'{"full_message":"f"}').text == "f"


@pytest.mark.parametrize(
    ("value", "time_ns"),
    [
        ("1795203851.793", 1_795_203_851_793_000_000),
        ("1795203851.123456", 1_795_203_851_123_456_000),
        ('"1795203851.5"', 1_795_203_851_500_000_000),
        ("1795203851", 1_795_203_851_000_000_000),
        ('"soon"', None),
        ("-1", None),
        ("1e99", None),
        ("true", None),
        ("null", None),
        ("[1]", None),
    ],
)
def test_timestamps_of_any_sender(value: str, time_ns: int | None) -> None:
    assert decode(b'{"short_message":"x","timestamp":%s}' % value.encode()).time_ns == time_ns


def test_values_become_text_and_levels_numbers() -> None:
    message = decode(
        b'{"version":"1.1","host":"h","short_message":"x","level":"4","facility":"f","_n":1.5,"_o":{"a":[1]},"_b":true}'
    )
    assert message.level == 4
    assert message.fields == {"facility": "f", "n": "1.5", "o": '{"a":[1]}', "b": "true"}
    assert decode(b'{"short_message":"x","level":"high"}').level is None


def test_text_that_is_not_unicode_is_taken_with_replacements() -> None:
    assert decode(b'{"short_message":"a\xffb"}').text == "a\ufffdb"
    assert decode(b'{"short_message":"a\\ud800b"}').text == "a?b"
    assert decode(b'{"short_message":"a\x01b"}').text == "a\x01b"


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        (b"", "malformed"),
        (b"hello", "malformed"),
        (b"[1]", "malformed"),
        (b'{"short_message":', "malformed"),
        (b"[" * 100_000, "malformed"),
        (b"{}", "no_message"),
        (b'{"short_message":""}', "no_message"),
    ],
)
def test_what_is_no_message_is_refused_by_cause(payload: bytes, cause: str) -> None:
    with pytest.raises(GelfError) as caught:
        decode(payload)
    assert caught.value.cause == cause


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bytes])
def test_nothing_unpacks_beyond_the_limit(pack: object) -> None:
    assert callable(pack)
    assert decompress(pack(b" " * 1000), 1000) == b" " * 1000
    with pytest.raises(GelfError, match="1000 bytes") as caught:
        decompress(pack(b" " * 1001), 1000)
    assert caught.value.cause == "message_too_large"


@pytest.mark.parametrize(
    "payload", [gzip.compress(b"x" * 99)[:-9], b"\x1f\x8bxxxx", zlib.compress(b"x" * 99)[:-5]]
)
def test_a_broken_compression_is_malformed(payload: bytes) -> None:
    with pytest.raises(GelfError) as caught:
        decompress(payload, 1 << 20)
    assert caught.value.cause == "malformed"


@given(st.permutations(range(5)))
def test_chunks_are_put_together_in_any_order(order: list[int]) -> None:
    payload = bytes(i % 251 for i in range(1408 * 4))  # its fifth chunk is Docker's empty one
    chunks = chunk(payload)
    assembler = ChunkAssembler()
    results = [assembler.add(chunks[i], "a", 0.0) for i in order]
    assert results == [None] * 4 + [payload]
    assert (len(assembler), assembler.pending_bytes, assembler.dropped) == (0, 0, {})


def test_chunks_of_two_senders_with_one_id_stay_apart() -> None:
    first, second = chunk(b"a" * 2000, b"same-id!"), chunk(b"b" * 2000, b"same-id!")
    assembler = ChunkAssembler()
    assert assembler.add(first[0], "a", 0.0) is None
    assert assembler.add(second[0], "b", 0.0) is None
    assert assembler.add(first[0], "a", 0.0) is None  # twice the same
    assert assembler.add(second[1], "b", 0.0) == b"b" * 2000
    assert assembler.add(first[1], "a", 0.0) == b"a" * 2000


def test_incomplete_messages_are_dropped_after_their_time_and_counted() -> None:
    assembler = ChunkAssembler(timeout_seconds=5.0)
    old, new = chunk(b"o" * 2000), chunk(b"n" * 2000)
    assembler.add(old[0], "a", 0.0)
    assembler.add(new[0], "a", 4.0)
    assert assembler.add(new[1], "a", 5.5) == b"n" * 2000
    assert assembler.dropped == {"chunks_expired": 1}
    assert assembler.add(old[1], "a", 5.6) is None


def test_memory_for_chunks_is_bounded_and_the_oldest_makes_room() -> None:
    assembler = ChunkAssembler(max_messages=2)
    messages = [chunk(bytes([i]) * 2000) for i in range(3)]
    for message in messages:
        assembler.add(message[0], "a", 0.0)
    assert (len(assembler), assembler.dropped) == (2, {"chunks_overflow": 1})
    assert assembler.add(messages[2][1], "a", 0.0) is not None
    small = ChunkAssembler(max_bytes=3000)
    for message in messages:
        small.add(message[0], "a", 0.0)
    assert small.pending_bytes <= 3000
    assert small.dropped == {"chunks_overflow": 1}
    small.drop_all("chunks_stopped")
    assert (len(small), small.pending_bytes, small.dropped["chunks_stopped"]) == (0, 0, 2)


@pytest.mark.parametrize("tail", [b"", b"\x00", b"\x02\x02", b"\x00\x00", bytes([0, MAX_CHUNKS + 1])])
def test_impossible_chunk_headers_are_counted(tail: bytes) -> None:
    assembler = ChunkAssembler()
    assert assembler.add(b"\x1e\x0f12345678" + tail, "a", 0.0) is None
    assert assembler.dropped == {"chunks_malformed": 1}


def test_chunks_that_disagree_on_their_count_cost_the_message() -> None:
    assembler = ChunkAssembler()
    assembler.add(b"\x1e\x0f12345678\x00\x02x", "a", 0.0)
    assembler.add(b"\x1e\x0f12345678\x01\x03x", "a", 0.0)
    assert (len(assembler), assembler.dropped) == (0, {"chunks_malformed": 1})


@given(
    st.lists(st.binary(min_size=1, max_size=20).filter(lambda b: b"\0" not in b and not b.isspace())),
    st.data(),
)
def test_frames_are_found_wherever_the_stream_is_cut(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(p + b"\0" for p in payloads) + b"rest"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    frames = NulFrames(1000)
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += frames.feed(stream[start:end])
    assert found == payloads
    assert frames.pending_bytes == 4
    assert frames.take() == b"rest"
    assert frames.pending_bytes == 0


def test_a_frame_without_end_is_refused_past_the_limit() -> None:
    frames = NulFrames(10)
    found: list[bytes] = []
    with pytest.raises(GelfError, match="more than 10 bytes"):
        found.extend(frames.feed(b"one\0" + b"x" * 11))
    assert found == [b"one"]
