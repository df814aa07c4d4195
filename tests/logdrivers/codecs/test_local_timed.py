"""Json-file records of a time each become the local records that their lines would become one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file, local

TIMES = st.one_of(
    st.integers(1_795_203_851 * 10**9, 1_795_203_853 * 10**9),
    st.integers(-(10**9) * 10, 10**9),
    st.integers(0, 2**63 - 1),
)


@given(
    st.lists(st.tuples(st.text(max_size=200), TIMES, st.sampled_from([Stream.STDOUT, Stream.STDERR]))),
    st.sampled_from([None, {"tag": "t", "app": 'a"b'}]),
)
def test_timed_records_are_their_lines_one_by_one(
    given_lines: list[tuple[str, int, Stream]], attrs: dict[str, str] | None
) -> None:
    data = expected = b""
    encoder = local.LocalEncoder(attrs)
    for text, time_ns, stream in given_lines:
        line = text.replace("\n", "").encode("utf-8", "replace") + b"\n"
        block = Block(line, Encoding.LINES, stream, time_ns, time_ns, 1)
        data += json_file.Encoder().encode(block)
        expected += encoder.encode(block)
    times = [time_ns for _, time_ns, _ in given_lines] or [0]
    records = Block(data, Encoding.JSON_FILE, Stream.MIXED, min(times), max(times), len(given_lines))
    assert encoder.encode(records) == expected
    assert [(r.time_ns, r.stream) for r in local.decode(expected)] == [
        (time_ns, stream) for _, time_ns, stream in given_lines
    ]
