"""Selecting and rendering log blocks, on bytes."""

from __future__ import annotations

import pytest

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs.json_file import Encoder
from runtime.logview import LogView, Selection

SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND


def lines(data: bytes, time_ns: int = T0, stream: Stream = Stream.STDOUT) -> Block:
    return Block(data, Encoding.LINES, stream, time_ns, time_ns, data.count(b"\n"))


def records(*blocks: Block) -> Block:
    data = b"".join(Encoder().encode(block) for block in blocks)
    times = [block.first_ns for block in blocks]
    return Block(data, Encoding.JSON_FILE, Stream.MIXED, min(times), max(times), sum(b.lines for b in blocks))


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("encode", [lambda b: b, records], ids=["lines", "json-file"])
def test_a_block_is_one_frame_or_a_frame_per_line(encode) -> None:  # type: ignore[no-untyped-def]
    block = encode(lines(b"a\nb\rc\n"))
    assert LogView(Selection()).render(block) == frame(1, b"a\nb\rc\n")
    per_line = LogView(Selection(frame_per_line=True)).render(block)
    assert per_line == frame(1, b"a\n") + frame(1, b"b\rc\n")
    assert LogView(Selection(framed=False)).render(block) == b"a\nb\rc\n"
    assert LogView(Selection()).render(block, skip=1) == frame(1, b"b\rc\n")


def test_a_line_in_pieces_ends_once() -> None:
    pieces = [(b"a" * 16384, 1, False), (b"", 2, True)]
    view = LogView(Selection(framed=False))
    shown = b"".join(
        view.render(Block(data, Encoding.LINES, Stream.STDOUT, T0, T0, 1, Partial("f" * 64, ordinal, last)))
        for data, ordinal, last in pieces
    )
    assert shown + view.render(lines(b"next\n")) == b"a" * 16384 + b"\nnext\n"


def test_streams_keep_their_order_and_are_selected() -> None:
    block = records(lines(b"o1\n"), lines(b"e1\ne2\n", stream=Stream.STDERR), lines(b"o2\n"))
    assert LogView(Selection()).render(block) == frame(1, b"o1\n") + frame(2, b"e1\ne2\n") + frame(1, b"o2\n")
    assert LogView(Selection(stderr=False)).render(block) == frame(1, b"o1\no2\n")
    assert LogView(Selection(stdout=False)).render(block) == frame(2, b"e1\ne2\n")


def test_times_bound_and_precede_each_line() -> None:
    block = records(*(lines(b"%d\n" % n, T0 + n * SECOND) for n in range(5)))
    view = LogView(Selection(since_ns=T0 + SECOND, until_ns=T0 + 3 * SECOND, framed=False))
    assert view.render(block) == b"1\n2\n3\n"
    assert view.done
    stamped = LogView(Selection(timestamps=True, framed=False))
    assert stamped.render(lines(b"x\ny\n", T0 + 5)) == (
        b"2023-11-14T22:13:20.000000005Z x\n2023-11-14T22:13:20.000000005Z y\n"
    )


def test_details_are_sorted_and_escaped() -> None:
    view = LogView(Selection(details=True, framed=False), {"b": "x y", "a": "1"})
    assert view.render(lines(b"m\n")) == b"a=1,b=x+y m\n"


def test_a_record_that_is_none_is_passed_over_and_counted() -> None:
    good = records(lines(b"a\n"))
    torn = Block(b"\x00\x00garbage\n" + good.data, Encoding.JSON_FILE, Stream.MIXED, T0, T0, 2)
    view = LogView(Selection(framed=False))
    assert view.render(torn) == b"a\n"
    assert view.unreadable == 1
