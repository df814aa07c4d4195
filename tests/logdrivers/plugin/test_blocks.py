"""From frames to blocks: every line keeps its text, its stream and its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file
from logdrivers.plugin.blocks import BlockMaker
from logdrivers.plugin.frames import decode, encode

T = 1_795_203_851_793_123_456
Line = tuple[Stream, int, bytes, Partial | None]

LINES = st.lists(
    st.tuples(
        st.sampled_from([Stream.STDOUT, Stream.STDERR]),
        st.integers(T, T + 3 * 10**9) | st.integers(0, 10).map(lambda n: T - T % 10**9 + n * 10**8),
        st.binary(max_size=40) | st.text(st.characters(codec="utf-8"), max_size=20).map(str.encode),
        st.none() | st.just(Partial("ab" * 32, 3, False)) | st.just(Partial("ab" * 32, 4, True)),
    ),
    max_size=12,
)


def made(lines: list[Line], maker: BlockMaker, skip: int = 0) -> list[Block]:
    return [block for block, _ in maker.make(decode(b"".join(encode(*line) for line in lines)), skip)]


def read_back(block: Block) -> list[Line]:
    if block.encoding is Encoding.JSON_FILE:
        records = json_file.decode(block.data)
        assert block.lines == len(records)
        assert (block.first_ns, block.last_ns) == (
            min(r.time_ns for r in records),
            max(r.time_ns for r in records),
        )
        assert block.stream in (Stream.MIXED, *{r.stream for r in records})
        return [(r.stream, r.time_ns, r.log.removesuffix(b"\n"), None) for r in records]
    assert block.lines == 1
    text = block.data if block.partial else block.data.removesuffix(b"\n")
    return [(block.stream, block.first_ns, text, block.partial)]


@given(LINES, st.integers(0, 12))
def test_every_line_is_in_a_block_as_it_was(lines: list[Line], skip: int) -> None:
    found = [line for block in made(lines, BlockMaker(), skip) for line in read_back(block)]
    wanted = [
        (stream, time_ns, text, partial or (Partial("", 1, True) if b"\n" in text else None))
        for stream, time_ns, text, partial in lines[skip:]
    ]
    assert found == wanted


def test_a_run_of_lines_is_one_block_even_of_both_streams() -> None:
    lines: list[Line] = [(Stream(1 + n % 2), T + n, b"line %d" % n, None) for n in range(100)]
    (block,) = made(lines, BlockMaker())
    assert block.stream is Stream.MIXED
    assert read_back(block) == lines


def test_records_are_dockers_byte_for_byte() -> None:
    lines: list[Line] = [
        (Stream.STDOUT, T, b'plain <&> "q" tab\tend \xff', None),
        (Stream.STDERR, T - T % 10**9, b"", None),
        (Stream.STDERR, T - T % 1000, b"back\\slash", None),
    ]
    (block,) = made(lines, BlockMaker({"tag": "t", "app": "a<b"}, keep_bytes=False))
    encoder = json_file.Encoder({"tag": "t", "app": "a<b"})
    single = [
        Block(text + b"\n", Encoding.LINES, stream, time_ns, time_ns, 1) for stream, time_ns, text, _ in lines
    ]
    assert block.data == b"".join(map(encoder.encode, single))


def test_lines_that_are_not_utf_8_stay_as_they_are_where_the_journal_can() -> None:
    lines: list[Line] = [
        (Stream.STDOUT, T + n, text, None) for n, text in enumerate((b"a", b"\xff\xfe", b"b"))
    ]
    blocks = made(lines, BlockMaker())
    assert [block.encoding for block in blocks] == [Encoding.JSON_FILE, Encoding.LINES, Encoding.JSON_FILE]
    assert blocks[1].data == b"\xff\xfe\n"
