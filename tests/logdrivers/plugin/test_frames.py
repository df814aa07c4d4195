"""Frames of the log plugin protocol: what is encoded is decoded, whatever else a peer sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logdrivers.block import Partial, Stream
from logdrivers.plugin.frames import MAX_FRAME, FrameError, decode, encode

T = 1_795_203_851_793_123_456
STREAMS = st.sampled_from([Stream.STDOUT, Stream.STDERR])
PARTIALS = st.none() | st.builds(
    Partial, st.text("0123456789abcdef", max_size=64), st.integers(0, 2**32 - 1), st.booleans()
)
ENTRIES = st.lists(
    st.tuples(
        STREAMS, st.integers(0, 2**63 - 1) | st.integers(T, T + 10**9), st.binary(max_size=200), PARTIALS
    ),
    max_size=20,
)


def test_a_frame_as_docker_engine_writes_it() -> None:
    entry = b"\n\x06stdout\x10\xc0\xf4\xae\xaf\x90\xcb\xb8\xf5\x18\x1a\x03one"
    frames = decode(len(entry).to_bytes(4, "big") + entry)
    assert frames.lines == [b"one"]
    assert frames.streams.tolist() == [Stream.STDOUT]
    assert encode(Stream.STDOUT, int(frames.times_ns[0]), b"one")[4:] == entry


@given(ENTRIES)
def test_what_is_encoded_is_decoded(entries: list[tuple[Stream, int, bytes, Partial | None]]) -> None:
    data = b"".join(encode(*entry) for entry in entries)
    frames = decode(data)
    found = [
        (stream, time_ns, line, frames.partials.get(i))
        for i, (stream, time_ns, line) in enumerate(
            zip(frames.streams.tolist(), frames.times_ns.tolist(), frames.lines, strict=True)
        )
    ]
    assert found == entries
    assert frames.ends.tolist() == [
        len(b"".join(encode(*entry) for entry in entries[: i + 1])) for i in range(len(entries))
    ]


@pytest.mark.parametrize("length", [0, 1, 127, 128, 4095, 4096, 16383, 16384, 70_000])
def test_lines_of_every_length(length: int) -> None:
    frames = decode(encode(Stream.STDERR, T, b"x" * length) + encode(Stream.STDOUT, T + 1, b"next"))
    assert frames.lines == [b"x" * length, b"next"]
    assert frames.times_ns.tolist() == [T, T + 1]


def test_a_stream_cut_anywhere_gives_its_whole_frames() -> None:
    parts = [encode(Stream.STDOUT, T + i, b"line %d" % i) for i in range(4)]
    data = b"".join(parts)
    for cut in range(len(data)):
        frames = decode(data[:cut])
        whole = sum(1 for i in range(4) if len(b"".join(parts[: i + 1])) <= cut)
        assert len(frames) == whole
        assert decode(data[(frames.ends.tolist() or [0])[-1] :]).lines == [
            b"line %d" % i for i in range(whole, 4)
        ]


def test_fields_of_a_later_engine_are_passed_over() -> None:
    entry = b"\n\x06stderr\x10\x05\x1a\x02hi\x30\x07\x3a\x03new\x45\0\0\0\0"
    frames = decode(len(entry).to_bytes(4, "big") + entry)
    assert (frames.streams.tolist(), frames.times_ns.tolist(), frames.lines) == (
        [Stream.STDERR],
        [5],
        [b"hi"],
    )


@pytest.mark.parametrize(
    "data",
    [
        bytes(4),  # an empty entry has no source
        (MAX_FRAME + 1).to_bytes(4, "big"),
        b"\0\0\0\x04\n\x02hi",
        b"\0\0\0\x03\x1a\x7fx",
        b"\0\0\0\x02\x10\x80",
        b"\0\0\0\x01\x0b",
    ],
)
def test_what_is_no_frame_is_refused_behind_those_that_are(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode(data)
    good = encode(Stream.STDOUT, T, b"good")
    assert decode(good + data).ends.tolist() == [len(good)]


@given(st.lists(st.sampled_from([b"plain", b"", b"\n\x06stdout\x10", b"x" * 200]), max_size=6), st.data())
def test_lines_that_look_like_frames_are_lines(texts: list[bytes], data: st.DataObject) -> None:
    lines = [b"".join(data.draw(st.permutations([text, encode(Stream.STDOUT, T, text)]))) for text in texts]
    frames = decode(b"".join(encode(Stream.STDERR, T, line) for line in lines))
    assert frames.lines == lines
    assert frames.streams.tolist() == [Stream.STDERR] * len(lines)


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        frames = decode(data)
    except FrameError:
        return
    assert all(end <= len(data) for end in frames.ends)
