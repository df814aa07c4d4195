"""Lines up to a length that was asked for, and messages of several lines, cut from reads of any size."""

from __future__ import annotations

import random

import pytest

from logdrivers.block import Block, Encoding, Stream
from logdrivers.source.options import SourceOptions, parse_source
from logdrivers.source.splitting import OpenLine, Splitter

MIB = 1 << 20
JOINED = parse_source({"multiline-start": "^[^ ]", "multiline-max-lines": "4", "multiline-max-size": "1k"})


def split(options: SourceOptions, data: bytes, eof: bool = False, flush: bool = False) -> list[Block]:
    splitter = Splitter("c" * 64, Stream.STDOUT, options)
    return [piece.block for piece in splitter.split(data, 0, 1000, None, eof, flush)]


def shapes(blocks: list[Block]) -> list[tuple[str, int]]:
    return [
        ("piece" if b.partial else b.encoding.name.lower(), len(b.data) if b.partial else b.lines)
        for b in blocks
    ]


@pytest.mark.parametrize("limit", [1024, 16384, 65536, MIB])
def test_pieces_begin_at_the_length_asked_for(limit: int) -> None:
    options = SourceOptions(max_line=limit)
    assert shapes(split(options, b"x" * (limit - 1) + b"\n")) == [("lines", 1)]
    assert shapes(split(options, b"x" * limit + b"\n")) == [("piece", limit), ("piece", 0)]
    assert shapes(split(options, b"a\n" + b"x" * (2 * limit + 1) + b"\nb\n")) == [
        ("lines", 1),
        ("piece", limit),
        ("piece", limit),
        ("piece", 1),
        ("lines", 1),
    ]


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 32768, MIB - 1])
def test_with_a_mebibyte_lines_below_it_are_one(size: int) -> None:
    (block,) = split(SourceOptions(max_line=MIB), b"x" * size + b"\n")
    assert (block.lines, block.partial, len(block.data)) == (1, None, size + 1)


def test_messages_stand_between_runs_of_single_lines() -> None:
    data = b"a\nb\nc\n 1\n 2\nd\ne\n 3\nf\n"
    assert [(b.encoding, b.data) for b in split(JOINED, data, flush=True)] == [
        (Encoding.LINES, b"a\nb\n"),
        (Encoding.MESSAGE, b"c\n 1\n 2\n"),
        (Encoding.LINES, b"d\n"),
        (Encoding.MESSAGE, b"e\n 3\n"),
        (Encoding.LINES, b"f\n"),
    ]


def test_what_may_go_on_is_left_over() -> None:
    assert [b.data for b in split(JOINED, b"a\nb\n")] == [b"a\n"]
    assert [b.data for b in split(JOINED, b"a\nb\n 1\n")] == [b"a\n"]
    assert [b.data for b in split(JOINED, b"a\nb\n 1\n 2")] == [b"a\n"]
    assert split(JOINED, b" 1\n") == []
    assert [b.data for b in split(JOINED, b"a\nb\n", flush=True)] == [b"a\nb\n"]


def test_with_a_preset_that_knows_how_messages_begin_other_lines_do_not_wait() -> None:
    python = parse_source({"multiline": "python"})
    assert [b.data for b in split(python, b"a\nb\n")] == [b"a\nb\n"]
    assert [b.data for b in split(python, b"a\nTraceback (most recent call last):\n")] == [b"a\n"]


def test_a_message_ends_at_its_limits() -> None:
    assert [b.data for b in split(JOINED, b"a\n 1\n 2\n 3\n 4\n 5\n", flush=True)] == [
        b"a\n 1\n 2\n 3\n",
        b" 4\n 5\n",
    ]
    # Full: nothing is waited for.
    assert [b.data for b in split(JOINED, b"a\n 1\n 2\n 3\n")] == [b"a\n 1\n 2\n 3\n"]
    long = b" " + b"x" * 600 + b"\n"
    assert [b.data for b in split(JOINED, b"a\n" + long + long, flush=True)] == [b"a\n" + long, long]


def test_a_line_beyond_the_limit_ends_a_message() -> None:
    data = b"a\n 1\n" + b"x" * 20_000 + b"\n 2\n"
    assert shapes(split(JOINED, data, flush=True)) == [
        ("message", 1),
        ("piece", 16384),
        ("piece", 3616),
        ("lines", 1),
    ]


def test_the_end_of_the_stream_ends_a_message_and_the_line_behind_it_is_a_piece() -> None:
    assert [(b.data, b.partial is not None) for b in split(JOINED, b"a\n 1\n 2", eof=True)] == [
        (b"a\n 1\n", False),
        (b" 2", True),
    ]


@pytest.mark.parametrize("seed", range(30))
def test_each_piece_is_the_same_when_made_again(seed: int) -> None:
    chance = random.Random(seed)
    options = chance.choice(
        [SourceOptions(), JOINED, parse_source({"max-line-size": "2k", "multiline": "java"})]
    )
    data = b"".join(
        chance.choice([b"", b" ", b"\tat "])
        + b"x" * chance.choice([0, 3, 90, 1023, 2047, 2048, 16384, 40_000])
        + b"\n"
        for _ in range(20)
    )
    data += b"rest" * chance.choice([0, 1])
    splitter = Splitter("c" * 64, Stream.STDERR, options)
    here = 0
    line: OpenLine | None = None
    for piece in splitter.split(data, 0, 5, None, eof=True):
        block = piece.block
        begins = line or splitter.line_of(piece, here)
        again = splitter.again(
            data[here : piece.end],
            here,
            block.first_ns,
            begins,
            piece.end == len(data),
            block.encoding is Encoding.MESSAGE,
        )
        assert again == piece._replace(end=piece.end - here)
        here, line = piece.end, piece.open_line
    assert here == len(data)
